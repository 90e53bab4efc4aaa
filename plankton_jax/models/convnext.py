"""ConvNeXt (Liu et al. 2022) and ConvNeXt V2 (Woo et al. 2023), in timm's naming and arithmetic.

A block mixes space by a 7x7 depthwise convolution and channels by an MLP, beside a residual path.
GELU is exact; layer norm has epsilon 1e-6. The products run in the compute dtype, statistics of
the norms in float32.
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
from plankton_jax.models._registry import ModelEntry, ModelInfo, register
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.layers import Convolution, gelu
from plankton_jax.models.normalisation import LayerNorm
from plankton_jax.models.pooling import global_average, refuse_pool
from plankton_jax.models.regularisation import drop_path, drop_path_rates, fold_in_name
from plankton_jax.models.rematerialise import run_blocks
from plankton_jax.models.transformer import LayerScale, Linear, PatchEmbed, weight_init

EPSILON = 1e-6
KERNEL = 7
PATCH = 4
LAYER_SCALE = 1e-6


@dataclasses.dataclass(frozen=True)
class ConvNextConfig:
    """The shape of a network; `widths` and `depths` have one number for each stage.

    Attributes:
      widths: channels.
      depths: blocks.
      conv_mlp: the MLPs are 1x1 convolutions; the arithmetic is that of linear layers, the
        parameters have a convolution's shape, as timm's smallest networks.
      response_norm: ConvNeXt V2: global response normalisation in the MLP and no layer scale.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    conv_mlp: bool = False
    response_norm: bool = False


class PatchConvolution(PatchEmbed):
    """A convolution whose stride is its size; rows and columns left over at the end are cut off."""

    def __init__(
        self, size: int, in_features: int, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        super().__init__(size, in_features, features, dtype=dtype, rngs=rngs)
        self.kernel[...] = weight_init(rngs.params(), self.kernel.shape)
        self.bias[...] = jnp.zeros(features, jnp.float32)
        self.size = size

    def __call__(self, images: Float[Array, "b height width c"]) -> Float[Array, "b h w d"]:
        height, width = (length // self.size * self.size for length in images.shape[1:3])
        return super().__call__(images[:, :height, :width])


class SmallConvolution(Convolution):
    """A convolution of stride 1 with an offset, whose kernel starts small."""

    def __init__(self, in_features: int, features: int, size: int = 1, *, groups: int = 1,
                 dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        super().__init__(
            in_features, features, size, groups=groups, use_bias=True, kernel_init=weight_init,
            dtype=dtype, rngs=rngs,
        )  # fmt: skip


class ResponseNorm(nnx.Module):
    """Global response normalisation: channels compete by their norms over the map.

    Woo et al. 2023, section 3.3; each image's channel is scaled by its norm over the mean norm of
    all channels, learnt and added to the input. Starts as the identity.
    """

    def __init__(self, features: int, *, dtype: DTypeLike):
        self.scale = nnx.Param(jnp.zeros(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=(1, 2), keepdims=True)
        # The root's slope at zero is infinite: a channel that is silent all over has slope 0.
        silent = squares == 0.0
        norms = jnp.where(silent, 0.0, jnp.sqrt(jnp.where(silent, 1.0, squares)))
        response = norms / (jnp.mean(norms, axis=-1, keepdims=True) + EPSILON)
        factor = 1.0 + self.scale[...].reshape(1, 1, 1, -1) * response
        bias = self.bias[...].reshape(1, 1, 1, -1)
        return x * factor.astype(self.dtype) + bias.astype(self.dtype)


class Mlp(nnx.Module):
    """Two linear layers with an exact GELU, and in V2 response normalisation, between."""

    def __init__(self, width: int, config: ConvNextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kind = SmallConvolution if config.conv_mlp else Linear
        make = functools.partial(kind, dtype=dtype, rngs=rngs)
        self.fc1 = make(width, 4 * width)
        self.grn = ResponseNorm(4 * width, dtype=dtype) if config.response_norm else None
        self.fc2 = make(4 * width, width)

    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        x = gelu(self.fc1(x))
        return self.fc2(x if self.grn is None else self.grn(x))


class Block(nnx.Module):
    """Depthwise convolution, layer norm and MLP beside a residual path."""

    def __init__(self, width: int, config: ConvNextConfig, *, drop_path_rate: float,
                 dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        self.conv_dw = SmallConvolution(width, width, KERNEL, groups=width, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, config, dtype=dtype, rngs=rngs)
        self.layer_scale = None if config.response_norm else LayerScale(width, LAYER_SCALE)
        self.drop_path_rate = drop_path_rate

    def __call__(
        self, x: Float[Array, "b h w d"], *, key: jax.Array | None = None
    ) -> Float[Array, "b h w d"]:
        branch = self.mlp(self.norm(self.conv_dw(x)))
        if self.layer_scale is not None:
            branch = self.layer_scale(branch)
        return x + drop_path(branch, self.drop_path_rate, key)


class Stem(nnx.Module):
    """Patches, normalised."""

    def __init__(self, in_channels: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = PatchConvolution(PATCH, in_channels, width, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)

    def __call__(self, images: Float[Array, "b height width c"]) -> Float[Array, "b h w d"]:
        return self.norm(self.conv(images))


class Downsample(nnx.Module):
    """Layer norm, then each square of four becomes one."""

    def __init__(self, in_features: int, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm = LayerNorm(in_features, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.conv = PatchConvolution(2, in_features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.conv(self.norm(x))


class Stage(nnx.Module):
    """Blocks of one resolution, behind what leads to it."""

    def __init__(self, in_width: int, width: int, config: ConvNextConfig, *, halves: bool,
                 rates: Sequence[float], dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        """`rates` are the drop path rates of the blocks."""
        self.downsample = Downsample(in_width, width, dtype=dtype, rngs=rngs) if halves else None
        make = functools.partial(Block, width, config, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([make(drop_path_rate=rate) for rate in rates])

    def __call__(
        self, x: Float[Array, "b h w c"], *, key: jax.Array | None, rematerialise: bool
    ) -> Float[Array, "b h2 w2 d"]:
        if self.downsample is not None:
            x = self.downsample(x)
        return run_blocks(self.blocks, x, key=key, rematerialise=rematerialise)


class ConvNext(nnx.Module):
    """The backbone, for images of any size.

    Attributes:
      feature_dim: length of the pooled features.
      stage_dims, strides: width and stride in pixels of each stage's feature map.
      rematerialise: whether blocks are computed again backwards; see `rematerialise.run_block`.
    """

    rematerialise = False

    def __init__(
        self,
        config: ConvNextConfig,
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stage_dims = config.widths
        self.strides = tuple(PATCH * 2**stage for stage in range(len(config.depths)))
        self.feature_dim = config.widths[-1]
        self.stem = Stem(in_channels, config.widths[0], dtype=dtype, rngs=rngs)
        rates = drop_path_rates(drop_path_rate, sum(config.depths))
        self.stages = nnx.List()
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            first = sum(config.depths[:stage])
            self.stages.append(Stage(
                config.widths[max(stage - 1, 0)], width, config, halves=stage > 0,
                rates=rates[first : first + depth], dtype=dtype, rngs=rngs,
            ))  # fmt: skip
        # float32 in every precision: the head and saved embeddings read what comes out of it.
        self.norm = LayerNorm(self.feature_dim, epsilon=EPSILON, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "b height width c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """The map of every stage or those at `indices`; pooled: the last one's mean, normalised.

        Raises:
          UserError: images smaller than the stride of the last stage, or a wrong index.
        """
        _check_size(min(images.shape[1:3]), self.strides[-1])
        x = self.stem(images)
        stages = []
        for number, stage in enumerate(self.stages):
            stage_key = fold_in_name(key if train else None, number)
            x = stage(x, key=stage_key, rematerialise=self.rematerialise)
            stages.append(x)
        pooled = self.norm(global_average(x))
        return Features(select_stages(stages, indices), pooled=pooled)


def _check_size(size: int, stride: int) -> None:
    """Raises a `UserError` for images of which the last stage would see nothing."""
    if size < stride:
        raise UserError(
            f"config.data.image_size: found {size}; allowed: {stride} or more, the stride of the "
            "last stage."
        )


def build(config: ConvNextConfig, *, image_size: int, pool: str | None, **options) -> ConvNext:
    """The backbone of a configuration; `options` as `ConvNext` takes them.

    Raises:
      UserError: an image size below the last stage's stride, or a choice of pooling.
    """
    _check_size(image_size, PATCH * 2 ** (len(config.depths) - 1))
    refuse_pool(pool)
    return ConvNext(config, **options)


def _convnext(
    size: str, tag: str, width: int, depths: tuple[int, ...], *, version: int = 1, crop: float
) -> ModelEntry:
    """A network with the record of its public weights; atto and nano have convolutional MLPs."""
    widths = tuple(width * 2**stage for stage in range(4))
    config = ConvNextConfig(
        widths, depths, conv_mlp=size in ("atto", "nano"), response_norm=version == 2
    )
    name = f"convnext{'v2' if version == 2 else ''}_{size}"
    info = ModelInfo(name, "convnext", 224, crop=crop, timm_name=f"{name}.{tag}")
    return ModelEntry(info, functools.partial(build, config))


_v2 = functools.partial(_convnext, version=2, crop=0.875)

register(
    _convnext("atto", "d2_in1k", 40, (2, 2, 6, 2), crop=0.875),
    _convnext("nano", "in12k_ft_in1k", 80, (2, 2, 8, 2), crop=0.95),
    _convnext("tiny", "in12k_ft_in1k", 96, (3, 3, 9, 3), crop=0.95),
    _convnext("small", "in12k_ft_in1k", 96, (3, 3, 27, 3), crop=0.95),
    _convnext("base", "fb_in22k_ft_in1k", 128, (3, 3, 27, 3), crop=0.875),
    _convnext("large", "fb_in22k_ft_in1k", 192, (3, 3, 27, 3), crop=0.875),
    _v2("atto", "fcmae_ft_in1k", 40, (2, 2, 6, 2)),
    _v2("nano", "fcmae_ft_in22k_in1k", 80, (2, 2, 8, 2)),
    _v2("tiny", "fcmae_ft_in22k_in1k", 96, (3, 3, 9, 3)),
    _v2("base", "fcmae_ft_in22k_in1k", 128, (3, 3, 27, 3)),
)
