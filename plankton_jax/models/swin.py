"""Swin (Liu et al. 2021) and Swin-S3 (Chen et al. 2021), in timm's naming and arithmetic.

Attention runs inside windows, which every second block shifts by half a window. Blocks are
pre-norm; GELU is exact; layer norm has epsilon 1e-5. The matrix products run in the compute dtype,
softmax and layer norm statistics in float32.
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
from plankton_jax.models._fusion import computed_once
from plankton_jax.models._registry import ModelEntry, ModelInfo, register
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.normalisation import LayerNorm
from plankton_jax.models.regularisation import drop_path, drop_path_rates, fold_in_name
from plankton_jax.models.rematerialise import run_block
from plankton_jax.models.transformer import (
    Linear,
    Mlp,
    PatchEmbed,
    check_image_size,
    check_images,
)
from plankton_jax.models.window_attention import WindowAttention, shift_mask

EPSILON = 1e-5
PATCH = 4


@dataclasses.dataclass(frozen=True)
class SwinConfig:
    """The shape of a network; `depths`, `heads` and `windows` have one number for each stage.

    Attributes:
      width: length of a token in the first stage; each later stage doubles it.
      depths: blocks.
      heads: attention heads of a block.
      windows: side of the square windows, tokens; where the map is smaller, the map's side.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...]


class Stem(nnx.Module):
    """Patches as tokens, normalised."""

    def __init__(self, in_channels: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.proj = PatchEmbed(PATCH, in_channels, width, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)

    def __call__(self, images: Float[Array, "b height width c"]) -> Float[Array, "b h w d"]:
        return self.norm(self.proj(images))


class Block(nnx.Module):
    """Window attention and MLP, each behind a layer norm and beside a residual path."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        window: int,
        shift: int,
        drop_path_rate: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.norm1 = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.attn = WindowAttention(width, heads, window, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, 4 * width, dtype=dtype, rngs=rngs)
        self.shift = shift
        self.drop_path_rate = drop_path_rate

    def __call__(
        self,
        x: Float[Array, "b h w d"],
        mask: Float[Array, "windows n n"] | None,
        *,
        key: jax.Array | None = None,
    ) -> Float[Array, "b h w d"]:
        """`mask` is added to the scores where the block shifts its windows."""
        attended = self.norm1(x)
        if self.shift:
            attended = self.attn(jnp.roll(attended, (-self.shift, -self.shift), (1, 2)), mask)
            attended = jnp.roll(attended, (self.shift, self.shift), (1, 2))
        else:
            attended = self.attn(attended, None)
        x = x + drop_path(attended, self.drop_path_rate, fold_in_name(key, "attn"))
        hidden = self.mlp(self.norm2(x))
        return x + drop_path(hidden, self.drop_path_rate, fold_in_name(key, "mlp"))


class PatchMerging(nnx.Module):
    """Joins each square of four tokens to one of twice their length; odd sides get zeros."""

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm = LayerNorm(4 * width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.reduction = Linear(4 * width, 2 * width, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h2 w2 2*d"]:
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        # Columns before rows: the order of timm's weights.
        squares = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, -1)
        return self.reduction(self.norm(squares))


class Stage(nnx.Module):
    """Blocks of one resolution, behind the merging that leads to it."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        side: int,
        window: int,
        rates: Sequence[float],
        merge: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        """`side` is the map's, tokens; `rates` are the drop path rates of the blocks."""
        self.downsample = PatchMerging(width // 2, dtype=dtype, rngs=rngs) if merge else None
        window = min(window, side)
        # A window that holds the whole map has nothing to be shifted to.
        self.shift = window // 2 if window < side else 0
        self.side = side
        self.window = window
        self.blocks = nnx.List()
        for number, rate in enumerate(rates):
            shift = self.shift if number % 2 else 0
            self.blocks.append(Block(
                width, heads, window=window, shift=shift, drop_path_rate=rate,
                dtype=dtype, rngs=rngs,
            ))  # fmt: skip

    def __call__(
        self, x: Float[Array, "b h w d"], *, key: jax.Array | None, rematerialise: bool
    ) -> Float[Array, "b h w d"]:
        if self.downsample is not None:
            x = self.downsample(x)
        mask = jnp.asarray(shift_mask(self.side, self.window, self.shift)) if self.shift else None
        for number, block in enumerate(self.blocks):
            block_key = fold_in_name(key, number)
            x = run_block(block, x, mask, key=block_key, rematerialise=rematerialise)
            x = computed_once(x)
        return x


class SwinTransformer(nnx.Module):
    """The backbone. Parameters are named as in timm: `layers/0/blocks/0/attn/qkv/kernel`.

    Attributes:
      feature_dim: length of the pooled features.
      stage_dims, strides: width and stride in pixels of each stage's feature map.
      rematerialise: whether blocks are computed again backwards; see `rematerialise.run_block`.
    """

    rematerialise = False

    def __init__(
        self,
        config: SwinConfig,
        *,
        image_size: int,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.image_size = image_size
        count = len(config.depths)
        self.stage_dims = tuple(config.width * 2**stage for stage in range(count))
        self.strides = tuple(PATCH * 2**stage for stage in range(count))
        self.feature_dim = self.stage_dims[-1]
        self.patch_embed = Stem(in_channels, config.width, dtype=dtype, rngs=rngs)
        rates = drop_path_rates(drop_path_rate, sum(config.depths))
        self.layers = nnx.List()
        for stage, depth in enumerate(config.depths):
            first = sum(config.depths[:stage])
            self.layers.append(Stage(
                self.stage_dims[stage], config.heads[stage], window=config.windows[stage],
                side=-(-image_size // self.strides[stage]), rates=rates[first : first + depth],
                merge=stage > 0, dtype=dtype, rngs=rngs,
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
        """The map of every stage or those at `indices`, before the final norm; pooled: the mean.

        Raises:
          UserError: images of another size than the network was built for, or a wrong index.
        """
        check_images(images, self.image_size)
        x = self.patch_embed(images)
        stages = []
        for number, layer in enumerate(self.layers):
            layer_key = fold_in_name(key if train else None, number)
            x = layer(x, key=layer_key, rematerialise=self.rematerialise)
            stages.append(x)
        tokens = self.norm(x).reshape(x.shape[0], -1, self.feature_dim)
        return Features(
            select_stages(stages, indices), pooled=jnp.mean(tokens, axis=1), tokens=tokens
        )

    def normalise_stage(
        self, stage: Float[Array, "b h w d"], index: int
    ) -> Float[Array, "b h w d"]:
        """The last stage's map behind the final norm; other maps, of other widths, as they are."""
        return self.norm(stage) if index == len(self.layers) - 1 else stage


def build(config: SwinConfig, *, image_size: int, pool: str | None, **options) -> SwinTransformer:
    """The backbone of a configuration; `options` as `SwinTransformer` takes them.

    Raises:
      UserError: an image size that is no multiple of 4, or a class token, which there is not.
    """
    check_image_size(image_size, PATCH)
    if pool == "token":
        raise UserError(
            'config.model.pool: found "token"; Swin has no class token; allowed: "" or "mean".'
        )
    return SwinTransformer(config, image_size=image_size, **options)


def _swin(name: str, config: SwinConfig, tag: str) -> ModelEntry:
    """A network with the record of its public weights."""
    info = ModelInfo(name, "swin", 224, timm_name=f"{name}.{tag}")
    return ModelEntry(info, functools.partial(build, config))


def _config(width: int, depth: int, *windows: int) -> SwinConfig:
    """`depth` blocks in the third stage and two in each other; heads of 32 channels."""
    heads = tuple(width // 32 * 2**stage for stage in range(4))
    return SwinConfig(width, (2, 2, depth, 2), heads, windows or (7, 7, 7, 7))


register(
    _swin("swin_tiny_patch4_window7_224", _config(96, 6), "ms_in1k"),
    _swin("swin_small_patch4_window7_224", _config(96, 18), "ms_in22k_ft_in1k"),
    _swin("swin_base_patch4_window7_224", _config(128, 18), "ms_in22k_ft_in1k"),
    _swin("swin_large_patch4_window7_224", _config(192, 18), "ms_in22k_ft_in1k"),
    _swin("swin_s3_tiny_224", _config(96, 6, 7, 7, 14, 7), "ms_in1k"),
    _swin("swin_s3_small_224", _config(96, 18, 14, 14, 14, 7), "ms_in1k"),
    _swin("swin_s3_base_224", _config(96, 30, 7, 7, 14, 7), "ms_in1k"),
)
