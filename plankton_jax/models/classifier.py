"""A backbone with a head, and `create_model`, which makes one from names or functions."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax import heads
from plankton_jax.errors import UserError, raise_all
from plankton_jax.models import _registry
from plankton_jax.models.features import Features, normalise_stages
from plankton_jax.models.initialisers import parameter_keys
from plankton_jax.models.measurements import MeasurementEmbedding
from plankton_jax.models.regularisation import fold_in_name
from plankton_jax.taxonomy import Taxonomy


class Classifier(nnx.Module):
    """A backbone and a head.

    `frozen_backbone` runs the backbone in inference mode, untrained. With `measurements` each image
    comes with numbers that are added, embedded, to the pooled features.

    Attributes:
      recipe: the arguments of `create_model` that make this network again, but for its key, as
        (name, value) pairs; None where one of them is a function or a taxonomy.
      in_channels: of the images that the network was built for; None: any.
    """

    recipe: tuple[tuple[str, Any], ...] | None = None
    in_channels: int | None = None

    def __init__(
        self,
        backbone: Any,
        head: Any,
        measurements: MeasurementEmbedding | None = None,
        frozen_backbone: bool = False,
    ):
        self.backbone = backbone
        self.head = head
        self.measurements = measurements
        self.frozen_backbone = frozen_backbone

    def __call__(
        self,
        images: Float[Array, "b h w c"] | Features,
        *,
        measurements: Float[Array, "b m"] | None = None,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[Float[Array, "b k"], ...]:
        """The head's logits, float32, one array for each level that the head predicts.

        With a frozen backbone `images` may be what that one gave of them.
        """
        features = self.features(
            images,
            measurements=measurements,
            train=train,
            key=fold_in_name(key, "backbone"),
        )
        return self.head(features, train=train, key=fold_in_name(key, "head"))

    def features(
        self,
        images: Float[Array, "b h w c"] | Features,
        *,
        measurements: Float[Array, "b m"] | None = None,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
    ) -> Features:
        """The features that the head reads.

        `indices` choose the stages: a number n the last n, as in timm; a sequence those in its
        order, counted from the end where negative; None all. With `norm` they are behind the final
        norm where that applies to a map: every block of a vision transformer that pools tokens,
        the last stage of Swin. Under `jax.jit` blocks behind the last stage that is used are not
        run.

        Raises:
          UserError: images of other axes or channels than the network was built for, or stages
            that it does not have.
        """
        if not isinstance(images, Features):
            self._check_images(images)
        if isinstance(images, Features):
            features = images
        elif self.frozen_backbone:
            features = jax.lax.stop_gradient(self.backbone(images, indices=indices))
        else:
            features = self.backbone(images, train=train, key=key, indices=indices)
        if norm:
            stages = normalise_stages(self.backbone, features.stages, indices)
            features = dataclasses.replace(features, stages=stages)
        if self.measurements is None:
            return features
        if measurements is None:
            raise UserError("the network was made for measurements: pass them beside the images.")
        measured = self.measurements(measurements)
        # Without a reader `pooled` may be missing, or be what is left of a trunk that was dropped.
        reads = getattr(self.head, "reads_pooled", True)
        pooled = features.pooled + measured if reads else features.pooled
        return dataclasses.replace(features, pooled=pooled, measured=measured)

    def _check_images(self, images: Array) -> None:
        """Raises a `UserError` where the axes of a batch are not those of the network's images."""
        shape = jnp.shape(images)
        if len(shape) != 4 or not shape[0]:
            raise UserError(
                f"images: found the shape {shape}; allowed: four axes (images, rows, columns, "
                "channels), with at least one image."
            )
        if self.in_channels not in (None, shape[3]):
            raise UserError(
                f"images: the network was built for {self.in_channels} channels and was given "
                f"{shape[3]}; allowed: images of {self.in_channels}, or a network built with "
                f"in_channels={shape[3]}."
            )


def create_model(
    name: str | Callable[..., Any],
    num_classes: int,
    *,
    image_size: int | None = None,
    in_channels: int = 3,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    dtype: DTypeLike = jnp.float32,
    pool: str | None = None,
    head: str | Callable[..., Any] | None = None,
    taxonomy: Taxonomy | None = None,
    num_measurements: int = 0,
    freeze_backbone: bool = False,
    rematerialise: bool = False,
    key: jax.Array,
) -> Classifier:
    """A classifier with random parameters.

    Args:
      name: one of `list_models()`; `keras_hub:` and what `models/_keras_hub.py` takes; or a
        function that builds a backbone from the keywords image_size, in_channels, drop_path_rate,
        dtype, pool and rngs. A backbone is called as
        `backbone(images, *, train, key, indices) -> Features` and has `feature_dim`.
      num_classes: leaves of the taxonomy.
      image_size: side of the input, pixels; None: the native one of a named backbone.
      drop_rate: dropout before the head.
      drop_path_rate: stochastic depth of the last block.
      dtype: what the network computes in; parameters are float32.
      pool: "token" or "mean" for transformers; None or "": the architecture's own.
      head: a name of `plankton_jax.heads`, a function as described there, or None: linear.
      taxonomy: for heads that predict more levels than the leaves; their settings come with
        `plankton_jax.heads.configured`.
      num_measurements: numbers that come with each image; 0: none.
      freeze_backbone: run the backbone in inference mode and stop gradients behind it.
      rematerialise: compute blocks again in the backward pass, which takes less memory and more
        time; for backbones that have an attribute of this name.
      key: of the initial parameters.

    Raises:
      UserError: an unknown name, or settings the network cannot take.
    """
    raise_all(_problems(num_classes, image_size, in_channels, drop_rate, drop_path_rate, pool))
    build, native_size = _builder(name)
    if not (image_size or native_size):
        raise UserError("config.data.image_size: a backbone given as a function needs one.")
    options = {
        "image_size": image_size or native_size,
        "in_channels": in_channels,
        "drop_path_rate": drop_path_rate,
        "dtype": dtype,
        "pool": pool or None,
        "rngs": parameter_keys(fold_in_name(key, "backbone")),
    }
    _check_call("config.model.name", build, (), options)
    backbone = build(**options)
    if not hasattr(backbone, "feature_dim"):
        raise UserError(
            "config.model.name: the backbone that the function builds has no feature_dim."
        )
    if rematerialise:
        if not hasattr(backbone, "rematerialise"):
            raise UserError(
                "config.model.rematerialise: found True; this backbone cannot; allowed: False."
            )
        backbone.rematerialise = True
    backbone.measured_dim = backbone.feature_dim if num_measurements else 0
    make_head = heads.find(head or "linear")
    head_options = {
        "taxonomy": taxonomy,
        "drop_rate": drop_rate,
        "dtype": dtype,
        "rngs": parameter_keys(fold_in_name(key, "head")),
    }
    _check_call("config.model.head", make_head, (backbone, num_classes), head_options)
    made = make_head(backbone, num_classes, **head_options)
    if hasattr(backbone, "drop_trunk") and not getattr(made, "reads_pooled", True):
        backbone.drop_trunk()
    embedding = None
    if num_measurements:
        rngs = parameter_keys(fold_in_name(key, "measurements"))
        embedding = MeasurementEmbedding(num_measurements, backbone.measured_dim, rngs=rngs)
    classifier = Classifier(backbone, made, embedding, frozen_backbone=freeze_backbone)
    classifier.in_channels = in_channels
    if isinstance(name, str) and head in (None, "linear"):
        classifier.recipe = (
            ("name", name),
            ("num_classes", num_classes),
            ("image_size", options["image_size"]),
            ("in_channels", in_channels),
            ("drop_rate", drop_rate),
            ("drop_path_rate", drop_path_rate),
            ("dtype", jnp.dtype(dtype).name),
            ("pool", pool or None),
            ("num_measurements", num_measurements),
            ("freeze_backbone", freeze_backbone),
            ("rematerialise", rematerialise),
        )
    return classifier


def _builder(name: str | Callable[..., Any]) -> tuple[Callable[..., Any], int | None]:
    """The function that builds the backbone, and its native image size where it has one."""
    if callable(name):
        return name, None
    entry = _registry.find(name)
    return entry.build, entry.info.image_size


def _problems(
    num_classes: int,
    image_size: int | None,
    in_channels: int,
    drop_rate: float,
    drop_path_rate: float,
    pool: str | None,
) -> list[str]:
    """What is wrong with the settings taken alone."""
    problems = []
    if num_classes < 1:
        problems.append(f"num_classes: found {num_classes}; allowed: 1 or more.")
    if image_size is not None and image_size < 1:
        problems.append(f"config.data.image_size: found {image_size}; allowed: 1 or more.")
    if in_channels < 1:
        problems.append(f"config.model.in_channels: found {in_channels}; allowed: 1 or more.")
    for setting, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
        if not 0 <= rate < 1:
            problems.append(f"config.model.{setting}: found {rate}; allowed: 0 or more, below 1.")
    if pool not in (None, "", "token", "mean"):
        problems.append(f'config.model.pool: found "{pool}"; allowed: "", "token" or "mean".')
    return problems


def _check_call(setting: str, function: Callable[..., Any], args: tuple, options: dict) -> None:
    """Raises a `UserError` where a user's function does not take what it is called with."""
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        raise UserError(
            f"{setting}: {getattr(function, '__name__', function)} is called with "
            f"{len(args)} positional arguments and the keywords {', '.join(options)}; {error}."
        ) from error
