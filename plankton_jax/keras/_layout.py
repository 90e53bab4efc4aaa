"""What a backbone of KerasHub is made of: its class, its arguments, and where our weights go."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from plankton_jax.errors import UserError

Weights = Mapping[str, Any]
"""Parameters and batch-norm statistics of a backbone by path."""
Pairs = Iterable[tuple[str, Any]]
"""(path in KerasHub, value)."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A backbone of KerasHub.

    Attributes:
      class_name, settings: the class of `keras_hub.models` and its arguments, but for the shape.
      in_channels: of the images.
      pairs: a value for every variable.
      shape_argument: the name of the argument that takes the shape of an image.
    """

    class_name: str
    settings: Mapping[str, Any]
    in_channels: int
    pairs: Pairs
    shape_argument: str = "image_shape"


def not_there(what: str) -> UserError:
    """The error for an architecture that KerasHub does not have."""
    return UserError(
        f"as_keras_hub: found {what}; allowed: ViT, DeiT and DINOv2 as published, which read their "
        "class tokens; Swin with whole windows of one size in all stages; ResNet, EfficientNetV2 "
        "and the legacy Xception."
    )


def layer(theirs: str, weights: Weights, ours: str) -> Iterator[tuple[str, Any]]:
    """Kernel and offset of a linear layer or a convolution."""
    for kind in ("kernel", "bias"):
        yield f"{theirs}/{kind}", weights[f"{ours}/{kind}"]


def norm(theirs: str, weights: Weights, ours: str) -> Iterator[tuple[str, Any]]:
    """Scale and offset of a layer norm."""
    for kind, name in (("gamma", "scale"), ("beta", "bias")):
        yield f"{theirs}/{kind}", weights[f"{ours}/{name}"]


def batch_norm(
    theirs: str, weights: Weights, ours: str, epsilon: float = 0.0
) -> Iterator[tuple[str, Any]]:
    """Scale, offset and running statistics; `epsilon`: what our constant is above KerasHub's."""
    yield from norm(theirs, weights, ours)
    yield f"{theirs}/moving_mean", weights[f"{ours}/mean"]
    yield f"{theirs}/moving_variance", weights[f"{ours}/variance"] + epsilon
