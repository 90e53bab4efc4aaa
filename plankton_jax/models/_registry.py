"""The names of all backbones, filled by the family modules as they are imported."""

import dataclasses
from collections.abc import Callable

from flax import nnx

from plankton_jax.config import KERAS_HUB
from plankton_jax.errors import UserError, near_miss

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """How a named backbone wants its images.

    Attributes:
      name: what `create_model` takes.
      family: the architecture's family, the name of its module.
      image_size: native side of the square input, pixels.
      mean, std: of red, green and blue in 0..1, which the public weights were trained with.
      crop: share of the shorter side that the central crop of evaluation keeps.
      interpolation: of the resize in evaluation.
      timm_name: name and tag of the public weights in timm, or None where there are none.
    """

    name: str
    family: str
    image_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop: float = 0.9
    interpolation: str = "bicubic"
    timm_name: str | None = None


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """A named backbone: what is known of it and the function that builds it.

    `build(*, image_size, in_channels, drop_path_rate, dtype, pool, rngs)` returns the backbone;
    `pool` is "token", "mean" or None for the architecture's own.
    """

    info: ModelInfo
    build: Callable[..., nnx.Module]


_ENTRIES: dict[str, ModelEntry] = {}


def register(*entries: ModelEntry) -> None:
    """Adds backbones; called by the family modules when they are imported."""
    for entry in entries:
        if entry.info.name in _ENTRIES:
            raise ValueError(f"two backbones are named {entry.info.name}")
        _ENTRIES[entry.info.name] = entry


def find(name: str) -> ModelEntry:
    """The backbone of this name; one of KerasHub's imports Keras.

    Raises:
      UserError: an unknown name.
    """
    if name.startswith(KERAS_HUB):
        from plankton_jax.models import _keras_hub

        return _keras_hub.entry(name)
    if name not in _ENTRIES:
        raise UserError(
            f'config.model.name: there is no backbone "{name}". {near_miss(name, _ENTRIES)} '
            "plankton_jax.models.list_models() lists them all."
        )
    return _ENTRIES[name]


def list_models() -> tuple[str, ...]:
    """The names of all backbones, sorted."""
    return tuple(sorted(_ENTRIES))


def get_info(name: str) -> ModelInfo:
    """What is known of a named backbone.

    Raises:
      UserError: an unknown name.
    """
    return find(name).info
