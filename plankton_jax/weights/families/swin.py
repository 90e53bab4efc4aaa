"""Swin transformers."""

from plankton_jax.models.swin import SwinTransformer
from plankton_jax.weights.rules import Rule, input_convolution, linear, norm

BACKBONE = SwinTransformer

_BLOCK = "layers.{stage}.blocks.{block}"
_OURS = "backbone/layers/{stage}/blocks/{block}"

RULES = (
    *input_convolution("patch_embed.proj", "backbone/patch_embed/proj"),
    *norm("patch_embed.norm", "backbone/patch_embed/norm"),
    *norm("layers.{stage}.downsample.norm", "backbone/layers/{stage}/downsample/norm"),
    *linear("layers.{stage}.downsample.reduction", "backbone/layers/{stage}/downsample/reduction"),
    *norm(f"{_BLOCK}.norm1", f"{_OURS}/norm1"),
    Rule(
        f"{_BLOCK}.attn.relative_position_bias_table",
        f"{_OURS}/attn/relative_position_bias_table",
        "relative_position_table",
    ),
    *linear(f"{_BLOCK}.attn.qkv", f"{_OURS}/attn/qkv"),
    *linear(f"{_BLOCK}.attn.proj", f"{_OURS}/attn/proj"),
    *norm(f"{_BLOCK}.norm2", f"{_OURS}/norm2"),
    *linear(f"{_BLOCK}.mlp.fc1", f"{_OURS}/mlp/fc1"),
    *linear(f"{_BLOCK}.mlp.fc2", f"{_OURS}/mlp/fc2"),
    # Constants that older files store.
    Rule(f"{_BLOCK}.attn.relative_position_index", ""),
    Rule(f"{_BLOCK}.attn_mask", ""),
    *norm("norm", "backbone/norm"),
    *linear("head.fc", "head/linear"),
    # The head's name in the authors' own files.
    *linear("head", "head/linear"),
)
