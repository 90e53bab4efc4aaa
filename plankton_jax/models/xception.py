"""Xception (Chollet 2017), in the naming and arithmetic of timm's `legacy_xception`.

Depthwise separable convolutions with nothing between their two parts, then batch norm with epsilon
1e-5; ReLU before a convolution rather than behind it.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.models._registry import HALF, ModelEntry, ModelInfo, register
from plankton_jax.models.conv_norm import ConvNorm, check_least_size, refuse_drop_path
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.layers import BatchNorm, Convolution
from plankton_jax.models.pooling import global_average, max_pool, refuse_pool
from plankton_jax.models.rematerialise import run_block

LEAST_SIZE = 7
"""The stem's two convolutions without padding take this much to leave one pixel."""


class Unit(nnx.Module):
    """A depthwise 3x3 and a pointwise convolution, and batch norm."""

    def __init__(self, in_features: int, out_features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        make = functools.partial(Convolution, dtype=dtype, rngs=rngs)
        self.depthwise = make(in_features, in_features, 3, groups=in_features)
        self.pointwise = make(in_features, out_features, 1)
        self.norm = BatchNorm(out_features, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        return self.norm(self.pointwise(self.depthwise(x)), train=train)


class Block(nnx.Module):
    """Units beside a shortcut; it may halve the side, by maxima and by a projection."""

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int],
        *,
        halves: bool = False,
        starts_with_relu: bool = True,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.units = nnx.List()
        features = in_features
        for width in widths:
            self.units.append(Unit(features, width, dtype=dtype, rngs=rngs))
            features = width
        project = functools.partial(ConvNorm, activates=False, dtype=dtype, rngs=rngs)
        changes = halves or features != in_features
        self.skip = project(in_features, features, stride=2 if halves else 1) if changes else None
        self.halves = halves
        self.starts_with_relu = starts_with_relu

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        branch = x
        for number, unit in enumerate(self.units):
            if number or self.starts_with_relu:
                branch = jax.nn.relu(branch)
            branch = unit(branch, train=train)
        if self.halves:
            branch = max_pool(branch, 3, 2, 1)
        return branch + (x if self.skip is None else self.skip(x, train=train))


class Xception(nnx.Module):
    """The backbone.

    Stages are timm's: the stem's map, those of the first, second and eleventh block behind the ReLU
    with which the next begins, and the last.

    Attributes:
      feature_dim: length of the pooled features.
      stage_dims, strides: width and stride in pixels of each stage's feature map.
      rematerialise: whether blocks are computed again backwards; see `rematerialise.run_block`.
    """

    rematerialise = False

    feature_dim = 2048
    stage_dims = (64, 128, 256, 728, 2048)
    strides = (2, 4, 8, 16, 32)

    def __init__(self, *, in_channels: int = 3, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = nnx.List([
            ConvNorm(in_channels, 32, 3, stride=2, padding="valid", **options),
            ConvNorm(32, 64, 3, padding="valid", **options),
        ])  # fmt: skip
        self.entry = nnx.List([
            Block(64, (128, 128), halves=True, starts_with_relu=False, **options),
            Block(128, (256, 256), halves=True, **options),
            Block(256, (728, 728), halves=True, **options),
        ])  # fmt: skip
        self.middle = nnx.List([Block(728, (728, 728, 728), **options) for _ in range(8)])
        self.exit = Block(728, (728, 1024), halves=True, **options)
        self.last = nnx.List([Unit(1024, 1536, **options), Unit(1536, 2048, **options)])
        self.dtype = dtype

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """The map of every stage or those at `indices`; pooled: the mean of the last.

        Raises:
          UserError: images of which the stem leaves nothing, or a wrong index.
        """
        del key
        check_least_size(min(images.shape[1:3]), LEAST_SIZE)
        run = functools.partial(run_block, train=train, rematerialise=self.rematerialise)
        x = images.astype(self.dtype)
        for layer in self.stem:
            x = layer(x, train=train)
        stages = [x]
        for block in self.entry:
            x = run(block, x)
            stages.append(jax.nn.relu(x))
        for block in self.middle:
            x = run(block, x)
        stages[-1] = jax.nn.relu(x)  # of stride 16, the deepest map
        x = run(self.exit, x)
        for unit in self.last:
            x = jax.nn.relu(unit(x, train=train))
        stages.append(x)
        pooled = global_average(x)
        return Features(select_stages(stages, indices), pooled)


def build(*, image_size: int, drop_path_rate: float = 0.0, pool: str | None = None, **options):
    """The backbone; `options` as `Xception` takes them.

    Raises:
      UserError: too small an image, drop path, or a choice of pooling, which is fixed here.
    """
    refuse_pool(pool)
    refuse_drop_path(drop_path_rate)
    check_least_size(image_size, LEAST_SIZE)
    return Xception(**options)


register(
    ModelEntry(
        ModelInfo(
            "legacy_xception", "xception", 299, mean=HALF, std=HALF, crop=0.8975,
            timm_name="legacy_xception.tf_in1k",
        ),
        build,
    )
)  # fmt: skip
