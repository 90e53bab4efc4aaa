"""EfficientNetV2 (Tan & Le 2021), equal to timm's.

Early stages fuse the expansion of a block with its 3x3 convolution, later ones expand, convolve
each channel alone and gate by squeeze-and-excitation (Hu et al. 2018). SiLU after batch norm,
except at a block's end. The `tf_` networks are the authors' own: padded as TensorFlow does, batch
norm with epsilon 1e-3.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.models._registry import HALF, ModelEntry, ModelInfo, register
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.layers import BatchNorm, Convolution, Padding
from plankton_jax.models.pooling import global_average, refuse_pool
from plankton_jax.models.regularisation import drop_path, drop_path_rates, fold_in_name
from plankton_jax.models.rematerialise import run_blocks

Kind = Literal["plain", "fused", "inverted"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks of one width.

    Attributes:
      kind: "plain" blocks are one 3x3 convolution; "fused" ones expand in theirs; "inverted" ones
        expand before it, convolve channels alone, and have a gate.
      expansion: width inside a block, in widths of its input.
      stride: of the first block, 1 or 2.
    """

    kind: Kind
    depth: int
    width: int
    expansion: int = 1
    stride: int = 1


@dataclasses.dataclass(frozen=True)
class EfficientNetConfig:
    """The shape of a network.

    Attributes:
      stem: channels of the first convolution, which halves the side.
      stages: of blocks.
      features: channels of the last 1x1 convolution, which are pooled.
      padding, epsilon: of the convolutions and of batch norm.
    """

    stem: int
    stages: tuple[Stage, ...]
    features: int = 1280
    padding: Padding = "same"
    epsilon: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of one network."""

    padding: Padding
    epsilon: float
    dtype: DTypeLike
    rngs: nnx.Rngs

    def convolution(self, in_features: int, features: int, size: int, **options) -> Convolution:
        options |= {"padding": self.padding, "dtype": self.dtype, "rngs": self.rngs}
        return Convolution(in_features, features, size, **options)

    def norm(self, features: int) -> BatchNorm:
        return BatchNorm(features, epsilon=self.epsilon, dtype=self.dtype)


class Gate(nnx.Module):
    """Squeeze-and-excitation: channels scaled by a function of their means over the map."""

    def __init__(self, features: int, hidden: int, make: Layers):
        self.conv_reduce = make.convolution(features, hidden, 1, use_bias=True)
        self.conv_expand = make.convolution(hidden, features, 1, use_bias=True)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        means = jnp.mean(x, axis=(1, 2), keepdims=True)
        hidden = jax.nn.silu(self.conv_reduce(means))
        return x * jax.nn.sigmoid(self.conv_expand(hidden))


class Block(nnx.Module):
    """What is common to the blocks: the shortcut where the shape stays."""

    def __init__(self, in_features: int, features: int, stride: int, drop_path_rate: float):
        self.has_shortcut = stride == 1 and in_features == features
        self.drop_path_rate = drop_path_rate

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool = False, key: jax.Array | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        branch = self.branch(x, train)
        if not self.has_shortcut:
            return branch
        return x + drop_path(branch, self.drop_path_rate, key if train else None)

    def branch(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        raise NotImplementedError


class PlainBlock(Block):
    """A 3x3 convolution."""

    def __init__(self, in_features: int, stage: Stage, stride: int, rate: float, make: Layers):
        super().__init__(in_features, stage.width, stride, rate)
        self.conv = make.convolution(in_features, stage.width, 3, stride=stride)
        self.bn1 = make.norm(stage.width)

    def branch(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        return jax.nn.silu(self.bn1(self.conv(x), train=train))


class FusedBlock(Block):
    """A 3x3 convolution that expands and a 1x1 convolution that contracts."""

    def __init__(self, in_features: int, stage: Stage, stride: int, rate: float, make: Layers):
        super().__init__(in_features, stage.width, stride, rate)
        inner = in_features * stage.expansion
        self.conv_exp = make.convolution(in_features, inner, 3, stride=stride)
        self.bn1 = make.norm(inner)
        self.conv_pwl = make.convolution(inner, stage.width, 1)
        self.bn2 = make.norm(stage.width)

    def branch(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        x = jax.nn.silu(self.bn1(self.conv_exp(x), train=train))
        return self.bn2(self.conv_pwl(x), train=train)


class InvertedBlock(Block):
    """Expands by a 1x1 convolution, convolves each channel alone, gates, contracts."""

    def __init__(self, in_features: int, stage: Stage, stride: int, rate: float, make: Layers):
        super().__init__(in_features, stage.width, stride, rate)
        inner = in_features * stage.expansion
        self.conv_pw = make.convolution(in_features, inner, 1)
        self.bn1 = make.norm(inner)
        self.conv_dw = make.convolution(inner, inner, 3, stride=stride, groups=inner)
        self.bn2 = make.norm(inner)
        self.se = Gate(inner, in_features // 4, make)
        self.conv_pwl = make.convolution(inner, stage.width, 1)
        self.bn3 = make.norm(stage.width)

    def branch(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        x = jax.nn.silu(self.bn1(self.conv_pw(x), train=train))
        x = jax.nn.silu(self.bn2(self.conv_dw(x), train=train))
        return self.bn3(self.conv_pwl(self.se(x)), train=train)


BLOCKS = {"plain": PlainBlock, "fused": FusedBlock, "inverted": InvertedBlock}


class EfficientNet(nnx.Module):
    """The backbone. Parameters are named as in timm: `blocks/3/0/conv_dw/kernel`.

    Images are float, normalised, of any size.

    Attributes:
      feature_dim: length of the pooled features.
      stage_dims, strides: width and stride in pixels of the feature maps: the last of each
        resolution.
      rematerialise: whether blocks are computed again backwards; see `rematerialise.run_block`.
    """

    rematerialise = False

    def __init__(
        self,
        config: EfficientNetConfig,
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        make = Layers(config.padding, config.epsilon, dtype, rngs)
        self.conv_stem = make.convolution(in_channels, config.stem, 3, stride=2)
        self.bn1 = make.norm(config.stem)
        self.blocks = nnx.List()
        self.config = config
        self.dtype = dtype
        self.feature_dim = config.features
        self.ends = _ends(config.stages)
        self.stage_dims = tuple(config.stages[end].width for end in self.ends)
        strides = [stage.stride for stage in config.stages]
        self.strides = tuple(2 * math.prod(strides[: end + 1]) for end in self.ends)
        # As timm's: the last block is one step short of the rate.
        total = sum(stage.depth for stage in config.stages)
        rates = iter(drop_path_rates(drop_path_rate, total + 1))
        features = config.stem
        for stage in config.stages:
            blocks = nnx.List()
            for stride in (stage.stride, *(1,) * (stage.depth - 1)):
                blocks.append(BLOCKS[stage.kind](features, stage, stride, next(rates), make))
                features = stage.width
            self.blocks.append(blocks)
        self.conv_head = make.convolution(features, config.features, 1)
        self.bn2 = make.norm(config.features)

    def __call__(
        self,
        images: Float[Array, "b height width c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """The last map of every resolution or those at `indices`; pooled: the mean of the head's.

        Raises:
          UserError: a wrong index.
        """
        x = jax.nn.silu(self.bn1(self.conv_stem(images.astype(self.dtype)), train=train))
        maps = []
        for stage, blocks in enumerate(self.blocks):
            x = run_blocks(
                blocks, x, train=train,
                key=fold_in_name(key, stage), rematerialise=self.rematerialise,
            )  # fmt: skip
            maps.append(x)
        x = jax.nn.silu(self.bn2(self.conv_head(x), train=train))
        pooled = global_average(x)
        return Features(select_stages([maps[end] for end in self.ends], indices), pooled=pooled)


def _ends(stages: Sequence[Stage]) -> tuple[int, ...]:
    """The stages that are the last of their resolution."""
    following = (*stages[1:], None)
    return tuple(n for n, stage in enumerate(following) if stage is None or stage.stride > 1)


def build(
    config: EfficientNetConfig, *, image_size: int, pool: str | None, **options
) -> EfficientNet:
    """The backbone of a configuration for images of any size; a choice of pooling is refused."""
    del image_size
    refuse_pool(pool)
    return EfficientNet(config, **options)


# Kind, expansion and stride of the stages, of which smaller networks have the first six.
_KINDS: tuple[tuple[Kind, int, int], ...] = (
    ("plain", 1, 1),
    ("fused", 4, 2),
    ("fused", 4, 2),
    ("inverted", 4, 2),
    ("inverted", 6, 1),
    ("inverted", 6, 2),
    ("inverted", 6, 1),
)


def _stages(*rows: tuple[int, int]) -> tuple[Stage, ...]:
    """The stages of these depths and widths."""
    return tuple(
        Stage(kind, depth, width, expansion, stride)
        for (kind, expansion, stride), (depth, width) in zip(_KINDS, rows, strict=False)
    )


def _entry(name: str, tag: str, config: EfficientNetConfig, size: int, **record) -> ModelEntry:
    """A network with the record of its public weights."""
    info = ModelInfo(name, "efficientnet", size, timm_name=f"{name}.{tag}", **record)
    return ModelEntry(info, functools.partial(build, config))


_B0 = EfficientNetConfig(32, _stages((1, 16), (2, 32), (2, 48), (3, 96), (5, 112), (8, 192)))
_S = EfficientNetConfig(24, _stages((2, 24), (4, 48), (4, 64), (6, 128), (9, 160), (15, 256)))
_M = EfficientNetConfig(
    24, _stages((3, 24), (5, 48), (5, 80), (7, 160), (14, 176), (18, 304), (5, 512))
)
_L = EfficientNetConfig(
    32, _stages((4, 32), (7, 64), (7, 96), (10, 192), (19, 224), (25, 384), (7, 640))
)
# Made from the paper's figures before the authors' code: other first and last stages.
_RW_S = EfficientNetConfig(
    24,
    (Stage("fused", 2, 24), *_S.stages[1:-1], dataclasses.replace(_S.stages[-1], width=272)),
    features=1792,
    padding="symmetric",
    epsilon=1e-5,
)
_HALF = {"mean": HALF, "std": HALF, "crop": 1.0}

register(
    _entry("tf_efficientnetv2_b0", "in1k", _B0, 192, crop=0.875),
    _entry("tf_efficientnetv2_s", "in21k_ft_in1k", _S, 300, **_HALF),
    _entry("tf_efficientnetv2_m", "in21k_ft_in1k", _M, 384, **_HALF),
    _entry("tf_efficientnetv2_l", "in21k_ft_in1k", _L, 384, **_HALF),
    _entry("efficientnetv2_rw_s", "ra2_in1k", _RW_S, 288, crop=1.0),
)
