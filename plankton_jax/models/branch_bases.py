"""Bases B and C of the branch networks (Zhu & Bain 2017, B-CNN), for images of 28 or 32 pixels.

Stacks of 3x3 convolutions between poolings, then a trunk of two dense layers with dropout. Every
convolution and dense layer is followed by ReLU and then batch norm. Epsilon 1e-3, momentum .99 and
the initial values are Keras's defaults, which the authors left as they are.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.errors import UserError
from plankton_jax.models._registry import HALF, ModelEntry, ModelInfo, register
from plankton_jax.models.conv_norm import refuse_drop_path
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.initialisers import glorot
from plankton_jax.models.layers import BatchNorm, Convolution
from plankton_jax.models.pooling import max_pool, refuse_pool
from plankton_jax.models.regularisation import dropout, fold_in_name

POOLINGS = 4
DROP_RATE = 0.5
_batch_norm = functools.partial(BatchNorm, epsilon=1e-3, momentum=0.99)


@dataclasses.dataclass(frozen=True)
class BranchBaseConfig:
    """The shape of a base.

    Attributes:
      blocks: channels of each block's convolutions; pooling ends the first four.
      dense: widths of the trunk's dense layers.
    """

    blocks: tuple[tuple[int, ...], ...]
    dense: tuple[int, ...]


class ConvLayer(nnx.Module):
    """A 3x3 convolution with offset, ReLU, batch norm."""

    def __init__(self, in_features: int, out_features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = Convolution(
            in_features, out_features, 3, use_bias=True,
            kernel_init=glorot(9 * in_features, 9 * out_features), dtype=dtype, rngs=rngs,
        )  # fmt: skip
        self.bn = _batch_norm(out_features, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        return self.bn(jax.nn.relu(self.conv(x)), train=train)


class DenseLayer(nnx.Module):
    """A dense layer, ReLU, batch norm, dropout; `joined` more numbers may come in between, behind
    the ReLU, and are normalised with the layer's own."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        joined: int = 0,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        init = glorot(in_features, out_features)
        self.linear = nnx.Linear(
            in_features, out_features, kernel_init=init, dtype=dtype, rngs=rngs
        )
        self.bn = _batch_norm(out_features + joined, dtype=dtype)

    def __call__(
        self, x: Float[Array, "b c"], *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b d"]:
        return self.normalise(self.active(x), train=train, key=key)

    def active(self, x: Float[Array, "b c"]) -> Float[Array, "b d"]:
        """The dense layer and ReLU."""
        return jax.nn.relu(self.linear(x))

    def normalise(
        self, x: Float[Array, "b d"], *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b d"]:
        """Batch norm and dropout."""
        return dropout(self.bn(x, train=train), DROP_RATE, key if train else None)


class BranchBase(nnx.Module):
    """The backbone. Branches read the stages, the finest level the pooled features.

    Attributes:
      feature_dim: length of the trunk's output.
      stage_dims, strides: width and stride in pixels of each stage's feature map.
      stage_sides: side of each stage's feature map.
    """

    def __init__(
        self,
        config: BranchBaseConfig,
        *,
        image_size: int,
        in_channels: int = 3,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.blocks = nnx.List()
        width = in_channels
        for widths in config.blocks:
            block = nnx.List()
            for features in widths:
                block.append(ConvLayer(width, features, dtype=dtype, rngs=rngs))
                width = features
            self.blocks.append(block)
        self.image_size = image_size
        self.dtype = dtype
        self.stage_dims = tuple(widths[-1] for widths in config.blocks)
        self.strides = tuple(2 ** min(n, POOLINGS) for n in range(1, len(config.blocks) + 1))
        self.stage_sides = tuple(image_size // stride for stride in self.strides)
        width *= self.stage_sides[-1] ** 2
        self.dense = nnx.List()
        for features in config.dense:
            self.dense.append(DenseLayer(width, features, dtype=dtype, rngs=rngs))
            width = features
        self.feature_dim = width

    def drop_trunk(self) -> None:
        """Leaves the dense layers out, for heads that read stages alone; pooled is then the last
        map."""
        self.dense = nnx.List()
        self.feature_dim = self.stage_dims[-1] * self.stage_sides[-1] ** 2

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """The map behind every block and its pooling, or those at `indices`; pooled: the trunk's.

        Raises:
          UserError: images of another size than the network was built for, or a wrong index.
        """
        if images.shape[1:3] != (self.image_size, self.image_size):
            raise UserError(
                f"config.data.image_size: the network was built for {self.image_size} pixels and "
                f"was given {images.shape[1]} x {images.shape[2]}; allowed: images of that size, "
                "or a network built for theirs."
            )
        x = images.astype(self.dtype)
        stages = []
        for number, block in enumerate(self.blocks):
            for layer in block:
                x = layer(x, train=train)
            if number < POOLINGS:
                x = max_pool(x, 2, 2)
            stages.append(x)
        x = x.reshape(x.shape[0], -1)
        for number, layer in enumerate(self.dense):
            x = layer(x, train=train, key=fold_in_name(key, number))
        return Features(select_stages(stages, indices), x.astype(jnp.float32))


def build(
    config: BranchBaseConfig,
    *,
    image_size: int,
    drop_path_rate: float = 0.0,
    pool: str | None = None,
    **options,
) -> BranchBase:
    """The backbone of a configuration; `options` as `BranchBase` takes them.

    Raises:
      UserError: an image that the poolings leave nothing of, drop path, or a choice of pooling.
    """
    refuse_pool(pool)
    refuse_drop_path(drop_path_rate)
    if image_size < 2**POOLINGS:
        raise UserError(
            f"config.data.image_size: found {image_size}; four poolings leave nothing of so small "
            f"an image; allowed: {2**POOLINGS} or more."
        )
    return BranchBase(config, image_size=image_size, **options)


CONFIGS = {
    "bcnn_base_b": BranchBaseConfig(
        ((64, 64), (128, 128), (256, 256), (512, 512)), dense=(1024, 1024)
    ),
    "bcnn_base_c": BranchBaseConfig(
        ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
        dense=(4096, 4096),
    ),
}

register(
    *(
        ModelEntry(
            ModelInfo(name, "branch_bases", 32, mean=HALF, std=HALF, crop=1.0),
            functools.partial(build, config),
        )
        for name, config in CONFIGS.items()
    )
)
