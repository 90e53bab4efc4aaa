"""What Inception v3 and v4 have in common: a network made from a table of layers.

Blocks of parallel branches whose maps are joined (Szegedy et al. 2016, 2017), in timm's naming and
arithmetic. Each convolution is followed by batch norm with epsilon 1e-3 and ReLU.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.errors import UserError
from plankton_jax.models._registry import HALF, ModelInfo
from plankton_jax.models.conv_norm import ConvNorm, check_least_size, refuse_drop_path
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.layers import Padding
from plankton_jax.models.pooling import average_pool, global_average, max_pool, refuse_pool
from plankton_jax.models.rematerialise import run_block

EPSILON = 1e-3
STRIDES = (2, 4, 8, 16, 32)
"""Of the maps that are features, in both networks."""


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with batch norm and ReLU; `size` is a side, or height and width."""

    name: str
    width: int
    size: int | tuple[int, int] = 1
    stride: int = 1
    padding: Padding = "symmetric"


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling over windows of 3x3: maxima at stride 2 without padding, or means at stride 1.

    `count_padding` takes the zeros around the map into the means.
    """

    kind: Literal["max", "mean"]
    count_padding: bool = True

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        if self.kind == "max":
            return max_pool(x, 3, 2)
        return average_pool(x, 3, 1, 1, count_include_pad=self.count_padding)


# Convolutions in parentheses read the same map, and theirs are joined.
Step: TypeAlias = Conv | Pool | tuple[Conv, ...]
Branch: TypeAlias = tuple[Step, ...]


@dataclasses.dataclass(frozen=True)
class Block:
    """Branches that read the same map, and whose maps are joined."""

    name: str
    branches: tuple[Branch, ...]


@dataclasses.dataclass(frozen=True)
class InceptionConfig:
    """The layers of a network.

    Attributes:
      layers: one after the other.
      taps: names of the layers whose maps are the features' stages.
      auxiliary: name of the layer whose map an auxiliary classifier reads; empty: there is none.
    """

    layers: tuple[Conv | Pool | Block, ...]
    taps: tuple[str, ...]
    auxiliary: str = ""


class Mixed(nnx.Module):
    """A block. Its layers are attributes with the names of the table."""

    def __init__(self, in_features: int, block: Block, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.branches = block.branches
        self.width = 0
        for branch in block.branches:
            width = in_features
            for step in branch:
                convolutions = _convolutions(step)
                for each in convolutions:
                    setattr(self, each.name, _conv_norm(width, each, dtype=dtype, rngs=rngs))
                width = sum(each.width for each in convolutions) or width
            self.width += width

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        return _join(self._run(branch, x, train) for branch in self.branches)

    def _run(self, branch: Branch, x: Array, train: bool) -> Array:
        for step in branch:
            if isinstance(step, Pool):
                x = step(x)
            else:
                x = _join(getattr(self, each.name)(x, train=train) for each in _convolutions(step))
        return x


class Auxiliary(nnx.Module):
    """The trunk of an auxiliary classifier, from a map of at least 17x17 (images of 299 pixels)."""

    def __init__(self, in_features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        make = functools.partial(_conv_norm, dtype=dtype, rngs=rngs)
        self.conv0 = make(in_features, Conv("conv0", 128))
        self.conv1 = make(128, Conv("conv1", 768, 5, padding="valid"))

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b d"]:
        x = self.conv1(self.conv0(average_pool(x, 5, 3), train=train), train=train)
        return global_average(x)


class Inception(nnx.Module):
    """The backbone. Parameters are named as in timm: `Mixed_5b/branch5x5_1/conv/kernel`.

    Attributes:
      feature_dim: length of the pooled features.
      auxiliary_dim: length of the auxiliary features, 0 without.
      stage_dims, strides: width and stride in pixels of each stage's feature map.
      rematerialise: whether blocks are computed again backwards; see `rematerialise.run_block`.
    """

    rematerialise = False

    def __init__(
        self,
        config: InceptionConfig,
        *,
        in_channels: int = 3,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.dtype = dtype
        width, widths = in_channels, {}
        for layer in config.layers:
            if isinstance(layer, Pool):
                continue
            if isinstance(layer, Block):
                made = Mixed(width, layer, dtype=dtype, rngs=rngs)
                width = made.width
            else:
                made = _conv_norm(width, layer, dtype=dtype, rngs=rngs)
                width = layer.width
            setattr(self, layer.name, made)
            widths[layer.name] = width
        self.feature_dim = width
        self.stage_dims = tuple(widths[name] for name in config.taps)
        self.strides = STRIDES
        self.auxiliary_dim = 768 if config.auxiliary else 0
        if config.auxiliary:
            self.AuxLogits = Auxiliary(widths[config.auxiliary], dtype=dtype, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """The maps of the taps or those at `indices`; pooled: the mean of the last.

        Auxiliary features are computed in training only.

        Raises:
          UserError: images that are too small, or a wrong index.
        """
        del key
        _check_size(self.config, min(images.shape[1:3]), train)
        x = images.astype(self.dtype)
        stages, auxiliary = [], None
        for layer in self.config.layers:
            if isinstance(layer, Pool):
                x = layer(x)
                continue
            again = self.rematerialise and isinstance(layer, Block)
            x = run_block(getattr(self, layer.name), x, train=train, rematerialise=again)
            if layer.name in self.config.taps:
                stages.append(x)
            if train and layer.name == self.config.auxiliary:
                auxiliary = self.AuxLogits(x, train=train)
        pooled = global_average(x)
        return Features(select_stages(stages, indices), pooled, auxiliary=auxiliary)


def build(
    config: InceptionConfig,
    kind: type[Inception],
    *,
    image_size: int,
    drop_path_rate: float = 0.0,
    pool: str | None = None,
    **options,
) -> Inception:
    """The backbone of a configuration; `options` as `Inception` takes them.

    Raises:
      UserError: too small an image, drop path, or a choice of pooling, which is fixed here.
    """
    refuse_pool(pool)
    refuse_drop_path(drop_path_rate)
    _check_size(config, image_size, train=True)
    return kind(config, **options)


def info(name: str, family: str, tag: str) -> ModelInfo:
    """The record of a network's public weights."""
    return ModelInfo(name, family, 299, mean=HALF, std=HALF, crop=0.875, timm_name=f"{name}.{tag}")


def least_size(config: InceptionConfig, name: str = "", side: int = 1) -> int:
    """The least side of an image that gives the named layer's map, or the last, this side."""
    return next(size for size in itertools.count(1) if _side(config, size, name) >= side)


def _check_size(config: InceptionConfig, size: int, train: bool) -> None:
    """Raises a `UserError` for images too small for the layers, or to train the auxiliary ones."""
    check_least_size(size, least_size(config))
    if train and config.auxiliary and _side(config, size, config.auxiliary) < 17:
        raise UserError(
            f"config.data.image_size: found {size}; the auxiliary classifier needs a map of 17x17; "
            f"allowed: {least_size(config, config.auxiliary, 17)} or more."
        )


def _side(config: InceptionConfig, size: int, name: str = "") -> int:
    """The side of the named layer's map, or the last, for square images; 0: nothing is left."""
    for layer in config.layers:
        # The branches of a block agree on what they make of a side.
        for step in layer.branches[0] if isinstance(layer, Block) else (layer,):
            size = _side_after(step, size)
        if not isinstance(layer, Pool) and layer.name == name:
            break
    return size


def _side_after(step: Step, size: int) -> int:
    """A layer's side for its input's."""
    if isinstance(step, Pool):
        return max((size - 1) // 2, 0) if step.kind == "max" else size
    first = _convolutions(step)[0]
    window = first.size if isinstance(first.size, int) else max(first.size)
    lost = window - 1 if first.padding == "valid" else 0
    return max((size - lost - 1) // first.stride + 1, 0)


def _convolutions(step: Step) -> tuple[Conv, ...]:
    """The convolutions of a step; none for pooling."""
    if isinstance(step, Pool):
        return ()
    return (step,) if isinstance(step, Conv) else step


def _conv_norm(in_features: int, conv: Conv, *, dtype: DTypeLike, rngs: nnx.Rngs) -> ConvNorm:
    return ConvNorm(
        in_features, conv.width, conv.size, stride=conv.stride, padding=conv.padding,
        epsilon=EPSILON, dtype=dtype, rngs=rngs,
    )  # fmt: skip


def _join(maps: Iterable[Float[Array, "b h w _"]]) -> Float[Array, "b h w c"]:
    maps = list(maps)
    return maps[0] if len(maps) == 1 else jnp.concatenate(maps, axis=-1)
