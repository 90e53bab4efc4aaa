"""ViT (Dosovitskiy et al. 2021) and its kin, in timm's naming and arithmetic.

Its kin: DeiT (Touvron et al. 2021), DeiT III (Touvron et al. 2022) and DINOv2 (Oquab et al. 2023).
Each block is pre-norm; GELU is exact; layer norm has epsilon 1e-6. The matrix products run in the
compute dtype, softmax and layer norm statistics in float32.
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
from plankton_jax.models._registry import HALF, ModelEntry, ModelInfo, register
from plankton_jax.models.attention import attend
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.initialisers import normal
from plankton_jax.models.normalisation import LayerNorm
from plankton_jax.models.regularisation import drop_path, drop_path_rates, fold_in_name
from plankton_jax.models.rematerialise import run_block
from plankton_jax.models.transformer import (
    LayerScale,
    Linear,
    Mlp,
    PatchEmbed,
    check_image_size,
    check_images,
    weight_init,
)

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class VitConfig:
    """The shape of a plain vision transformer.

    Attributes:
      patch_size: side of the square patches, pixels.
      width: length of a token.
      mlp_ratio: hidden width of a block's MLP, in widths.
      distilled: whether a distillation token follows the class token.
      pool: "token" reads the class token, "mean" the mean of the patch tokens.
      layer_scale: initial factor of each residual branch; None: branches are not scaled.
      embed_prefix: whether the class and distillation tokens have position embeddings.
    """

    width: int
    heads: int
    depth: int = 12
    patch_size: int = 16
    mlp_ratio: float = 4.0
    distilled: bool = False
    pool: str = "token"
    layer_scale: float | None = None
    embed_prefix: bool = True


class Attention(nnx.Module):
    """Self-attention with one fused projection to queries, keys and values."""

    def __init__(self, width: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.qkv = Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.proj = Linear(width, width, dtype=dtype, rngs=rngs)
        self.heads = heads

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        attended = attend(qkv.transpose(2, 0, 3, 1, 4)).transpose(0, 2, 1, 3)
        return self.proj(attended.reshape(batch, length, width))


class Block(nnx.Module):
    """Attention and MLP, each behind a layer norm and beside a residual path."""

    def __init__(
        self, config: VitConfig, drop_path_rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        width = config.width
        hidden = int(width * config.mlp_ratio)
        self.norm1 = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.attn = Attention(width, config.heads, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, hidden, dtype=dtype, rngs=rngs)
        initial = config.layer_scale
        self.ls1 = None if initial is None else LayerScale(width, initial)
        self.ls2 = None if initial is None else LayerScale(width, initial)
        self.drop_path_rate = drop_path_rate

    def __call__(
        self, x: Float[Array, "b n d"], *, key: jax.Array | None = None
    ) -> Float[Array, "b n d"]:
        attended = self.attn(self.norm1(x))
        if self.ls1 is not None:
            attended = self.ls1(attended)
        attended = drop_path(attended, self.drop_path_rate, fold_in_name(key, "attn"))
        x = x + attended.astype(x.dtype)
        hidden = self.mlp(self.norm2(x))
        if self.ls2 is not None:
            hidden = self.ls2(hidden)
        hidden = drop_path(hidden, self.drop_path_rate, fold_in_name(key, "mlp"))
        return x + hidden.astype(x.dtype)


class VisionTransformer(nnx.Module):
    """The backbone. Parameters are named as in timm: `blocks/0/attn/qkv/kernel`, `pos_embed`.

    Attributes:
      feature_dim: length of the pooled features.
      stage_dims, strides: width and stride in pixels of each block's feature map.
      num_prefix_tokens: class and distillation tokens before the patch tokens.
      grid: patches along a side.
      rematerialise: whether blocks are computed again backwards; see `rematerialise.run_block`.
    """

    rematerialise = False

    def __init__(
        self,
        config: VitConfig,
        *,
        image_size: int,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        width = config.width
        self.config = config
        self.image_size = image_size
        self.grid = image_size // config.patch_size
        self.num_prefix_tokens = 2 if config.distilled else 1
        self.feature_dim = width
        self.distilled = config.distilled
        self.stage_dims = (width,) * config.depth
        self.strides = (config.patch_size,) * config.depth
        self.patch_embed = PatchEmbed(config.patch_size, in_channels, width, dtype=dtype, rngs=rngs)
        self.cls_token = nnx.Param(normal(1e-6)(rngs.params(), (1, 1, width)))
        if config.distilled:
            self.dist_token = nnx.Param(weight_init(rngs.params(), (1, 1, width)))
        length = self.grid**2 + (self.num_prefix_tokens if config.embed_prefix else 0)
        self.pos_embed = nnx.Param(weight_init(rngs.params(), (1, length, width)))
        rates = drop_path_rates(drop_path_rate, config.depth)
        self.blocks = nnx.List([Block(config, rate, dtype=dtype, rngs=rngs) for rate in rates])
        # float32 in every precision: the head and saved embeddings read what comes out of it.
        norm = LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        if config.pool == "mean":
            self.fc_norm = norm
        else:
            self.norm = norm

    def __call__(
        self,
        images: Float[Array, "b height width c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """Features of square images of the size the network was built for.

        Raises:
          UserError: images of another size, or an index outside the blocks.
        """
        check_images(images, self.image_size)
        x = self.embed(images)
        stages = []
        for number, block in enumerate(self.blocks):
            block_key = fold_in_name(key if train else None, number)
            x = run_block(block, x, key=block_key, rematerialise=self.rematerialise)
            x = computed_once(x)
            stages.append(self._map(x))
        chosen = select_stages(stages, indices)
        if self.config.pool == "mean":
            patches = x[:, self.num_prefix_tokens :]
            return Features(chosen, pooled=self.fc_norm(jnp.mean(patches, axis=1)), tokens=x)
        tokens = self.norm(x)
        distilled = tokens[:, 1] if self.distilled else None
        return Features(chosen, pooled=tokens[:, 0], tokens=tokens, distilled=distilled)

    def normalise_stage(
        self, stage: Float[Array, "b h w d"], index: int
    ) -> Float[Array, "b h w d"]:
        """A block's map behind the final norm, where that comes before pooling."""
        del index  # all are of one width
        return stage if self.config.pool == "mean" else self.norm(stage)

    def embed(self, images: Float[Array, "b height width c"]) -> Float[Array, "b n d"]:
        """Prefix and patch tokens with their position embeddings, float32 in every precision.

        What runs beside the residual branches is a sum over all blocks. In bfloat16 each addition
        would round it to 8 bits; PyTorch's autocast keeps it in float32 too.
        """
        patches = self.patch_embed(images).astype(jnp.float32)
        batch, _, _, width = patches.shape
        patches = patches.reshape(batch, -1, width)
        positions = self.pos_embed[...]
        if not self.config.embed_prefix:
            patches = patches + positions
        prefix = [self.cls_token] + ([self.dist_token] if self.distilled else [])
        parts = [jnp.broadcast_to(token[...], (batch, 1, width)) for token in prefix]
        tokens = jnp.concatenate([*parts, patches], axis=1)
        return tokens + positions if self.config.embed_prefix else tokens

    def _map(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b h w d"]:
        """The patch tokens in their places."""
        patches = tokens[:, self.num_prefix_tokens :]
        return patches.reshape(tokens.shape[0], self.grid, self.grid, tokens.shape[-1])


def build(config: VitConfig, *, image_size: int, pool: str | None, **options) -> VisionTransformer:
    """The backbone of a configuration; `options` as `VisionTransformer` takes them.

    Raises:
      UserError: an image size that is no multiple of the patch size, or mean pooling of a
        distilled network, whose second head reads the distillation token.
    """
    check_image_size(image_size, config.patch_size)
    if config.distilled and pool == "mean":
        raise UserError(
            'config.model.pool: found "mean"; a distilled network reads its two tokens; '
            'allowed: "token".'
        )
    config = dataclasses.replace(config, pool=pool or config.pool)
    return VisionTransformer(config, image_size=image_size, **options)


_TINY = VitConfig(width=192, heads=3)
_SMALL = VitConfig(width=384, heads=6)
_BASE = VitConfig(width=768, heads=12)
_LARGE = VitConfig(width=1024, heads=16, depth=24)
_IN21K = "augreg_in21k_ft_in1k"
_DEIT3 = {"layer_scale": 1e-6, "embed_prefix": False}


def _vit(name: str, size: int, config: VitConfig, tag: str = _IN21K, **info) -> ModelEntry:
    """A network whose public weights were trained with mean and standard deviation 0.5."""
    record = ModelInfo(name, "vit", size, mean=HALF, std=HALF, timm_name=f"{name}.{tag}", **info)
    return ModelEntry(record, functools.partial(build, config))


def _deit(name: str, config: VitConfig, **changes) -> ModelEntry:
    """A network of the DeiT papers."""
    record = ModelInfo(name, "vit", 224, timm_name=f"{name}.fb_in1k")
    return ModelEntry(record, functools.partial(build, dataclasses.replace(config, **changes)))


def _dinov2(name: str, config: VitConfig) -> ModelEntry:
    """A network of the DINOv2 paper, whose public weights have no head."""
    config = dataclasses.replace(config, patch_size=14, layer_scale=1e-5)
    record = ModelInfo(name, "vit", 518, crop=1.0, timm_name=f"{name}.lvd142m")
    return ModelEntry(record, functools.partial(build, config))


register(
    _vit("vit_tiny_patch16_224", 224, _TINY),
    _vit("vit_tiny_patch16_384", 384, _TINY, crop=1.0),
    _vit("vit_small_patch16_224", 224, _SMALL),
    _vit("vit_small_patch16_384", 384, _SMALL, crop=1.0),
    _vit("vit_small_patch32_224", 224, dataclasses.replace(_SMALL, patch_size=32)),
    _vit("vit_base_patch16_224", 224, _BASE, tag="augreg2_in21k_ft_in1k"),
    _vit("vit_base_patch16_384", 384, _BASE, crop=1.0),
    _vit("vit_base_patch32_224", 224, dataclasses.replace(_BASE, patch_size=32)),
    _vit("vit_large_patch16_224", 224, _LARGE),
    _vit("vit_large_patch16_384", 384, _LARGE, crop=1.0),
    _vit("test_vit", 160, VitConfig(64, 2, 6, mlp_ratio=3.0), tag="r160_in1k", crop=0.95),
    _deit("deit_tiny_patch16_224", _TINY),
    _deit("deit_small_patch16_224", _SMALL),
    _deit("deit_base_patch16_224", _BASE),
    _deit("deit_tiny_distilled_patch16_224", _TINY, distilled=True),
    _deit("deit_small_distilled_patch16_224", _SMALL, distilled=True),
    _deit("deit_base_distilled_patch16_224", _BASE, distilled=True),
    _deit("deit3_small_patch16_224", _SMALL, **_DEIT3),
    _deit("deit3_base_patch16_224", _BASE, **_DEIT3),
    _deit("deit3_large_patch16_224", _LARGE, **_DEIT3),
    _dinov2("vit_small_patch14_dinov2", _SMALL),
    _dinov2("vit_base_patch14_dinov2", _BASE),
    _dinov2("vit_large_patch14_dinov2", _LARGE),
)
