"""Aligned Xception (Chen et al. 2018, DeepLabv3+), in timm's naming and arithmetic.

Batch norm, with epsilon 1e-3, behind both parts of a separable convolution, and a stride in place
of every pooling.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.models._registry import HALF, ModelEntry, ModelInfo, register
from plankton_jax.models.conv_norm import ConvNorm
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.layers import BatchNorm, Convolution
from plankton_jax.models.pooling import global_average, refuse_pool
from plankton_jax.models.regularisation import drop_path, drop_path_rates, fold_in_name
from plankton_jax.models.rematerialise import run_block

EPSILON = 1e-3
STEM = (32, 64)


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """Three separable convolutions.

    Attributes:
      widths: channels behind each.
      stride: of the last.
      shortcut: whether they are beside one. Those without have ReLU behind every convolution,
        the others before every separable one.
    """

    widths: tuple[int, int, int]
    stride: int = 1
    shortcut: bool = True


class Separable(nnx.Module):
    """A depthwise 3x3 and a pointwise convolution, each with batch norm and, or not, ReLU."""

    def __init__(self, in_features: int, out_features: int, *, stride: int, activates: bool,
                 dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        make = functools.partial(Convolution, dtype=dtype, rngs=rngs)
        norm = functools.partial(BatchNorm, epsilon=EPSILON, dtype=dtype)
        self.conv_dw = make(in_features, in_features, 3, stride=stride, groups=in_features)
        self.bn_dw = norm(in_features)
        self.conv_pw = make(in_features, out_features, 1)
        self.bn_pw = norm(out_features)
        self.activates = activates

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        x = self.bn_dw(self.conv_dw(x), train=train)
        if self.activates:
            x = jax.nn.relu(x)
        x = self.bn_pw(self.conv_pw(x), train=train)
        return jax.nn.relu(x) if self.activates else x


class Block(nnx.Module):
    """Separable convolutions, beside a shortcut or not."""

    def __init__(self, in_features: int, config: BlockConfig, *, drop_path_rate: float,
                 dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        made, features = {}, in_features
        for number, width in enumerate(config.widths, 1):
            made[f"conv{number}"] = Separable(
                features, width, stride=config.stride if number == 3 else 1,
                activates=not config.shortcut, dtype=dtype, rngs=rngs,
            )  # fmt: skip
            features = width
        self.stack = nnx.Dict(made)
        project = functools.partial(
            ConvNorm, activates=False, epsilon=EPSILON, dtype=dtype, rngs=rngs
        )
        changes = config.shortcut and (config.stride > 1 or features != in_features)
        self.shortcut = project(in_features, features, stride=config.stride) if changes else None
        self.config = config
        self.drop_path_rate = drop_path_rate

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool, key: jax.Array | None
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b h w e"]]:
        """The block's map, and the one that its last convolution reads."""
        branch = last = x
        for convolution in self.stack.values():
            last = jax.nn.relu(branch) if self.config.shortcut else branch
            branch = convolution(last, train=train)
        if not self.config.shortcut:
            return branch, last
        branch = drop_path(branch, self.drop_path_rate, key if train else None)
        return branch + (x if self.shortcut is None else self.shortcut(x, train=train)), last


class XceptionAligned(nnx.Module):
    """The backbone. Parameters are named as in timm: `blocks/0/stack/conv1/conv_dw/kernel`.

    Stages are timm's: what the strided convolutions read, and the last map.

    Attributes:
      feature_dim: length of the pooled features.
      stage_dims, strides: width and stride in pixels of each stage's feature map.
      rematerialise: whether blocks are computed again backwards; see `rematerialise.run_block`.
    """

    rematerialise = False

    def __init__(
        self,
        config: tuple[BlockConfig, ...],
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        make = functools.partial(ConvNorm, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.stem = nnx.List([make(in_channels, STEM[0], 3, stride=2), make(*STEM, 3)])
        self.blocks = nnx.List()
        width = STEM[-1]
        rates = drop_path_rates(drop_path_rate, len(config))
        for block, rate in zip(config, rates, strict=True):
            self.blocks.append(Block(width, block, drop_path_rate=rate, dtype=dtype, rngs=rngs))
            width = block.widths[-1]
        strided = [block for block in config if block.stride > 1]
        self.dtype = dtype
        self.feature_dim = width
        self.stage_dims = (*(block.widths[-2] for block in strided), width)
        self.strides = tuple(2 ** (stage + 1) for stage in range(len(strided) + 1))

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """The map of every stage or those at `indices`; pooled: the mean of the last."""
        x = images.astype(self.dtype)
        for layer in self.stem:
            x = layer(x, train=train)
        stages = []
        for number, block in enumerate(self.blocks):
            block_key = fold_in_name(key, number)
            x, last = run_block(
                block, x, train=train, key=block_key, rematerialise=self.rematerialise
            )
            if block.config.stride > 1:
                stages.append(last)
        stages.append(x)
        pooled = global_average(x)
        return Features(select_stages(stages, indices), pooled)


def build(
    config: tuple[BlockConfig, ...], *, image_size: int, pool: str | None = None, **options
) -> XceptionAligned:
    """The backbone of a configuration, for images of any size.

    Raises:
      UserError: a choice of pooling, which is fixed here.
    """
    del image_size
    refuse_pool(pool)
    return XceptionAligned(config, **options)


XCEPTION_41 = (
    BlockConfig((128, 128, 128), 2),
    BlockConfig((256, 256, 256), 2),
    BlockConfig((728, 728, 728), 2),
    *(BlockConfig((728, 728, 728)) for _ in range(8)),
    BlockConfig((728, 1024, 1024), 2),
    BlockConfig((1536, 1536, 2048), shortcut=False),
)

register(
    ModelEntry(
        ModelInfo(
            "xception41", "xception", 299, mean=HALF, std=HALF, crop=0.903,
            timm_name="xception41.tf_in1k",
        ),
        functools.partial(build, XCEPTION_41),
    )
)  # fmt: skip
