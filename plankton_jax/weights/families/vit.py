"""Vision transformers."""

from plankton_jax.models.vit import VisionTransformer
from plankton_jax.weights.rules import Rule, input_convolution, linear, norm

BACKBONE = VisionTransformer

RULES = (
    Rule("cls_token", "backbone/cls_token"),
    Rule("dist_token", "backbone/dist_token"),
    Rule("pos_embed", "backbone/pos_embed", "position_embedding"),
    *input_convolution("patch_embed.proj", "backbone/patch_embed"),
    *norm("blocks.{block}.norm1", "backbone/blocks/{block}/norm1"),
    *linear("blocks.{block}.attn.qkv", "backbone/blocks/{block}/attn/qkv"),
    *linear("blocks.{block}.attn.proj", "backbone/blocks/{block}/attn/proj"),
    *norm("blocks.{block}.norm2", "backbone/blocks/{block}/norm2"),
    Rule("blocks.{block}.ls1.gamma", "backbone/blocks/{block}/ls1/gamma"),
    *linear("blocks.{block}.mlp.fc1", "backbone/blocks/{block}/mlp/fc1"),
    *linear("blocks.{block}.mlp.fc2", "backbone/blocks/{block}/mlp/fc2"),
    Rule("blocks.{block}.ls2.gamma", "backbone/blocks/{block}/ls2/gamma"),
    # The names in the files of DeiT III's and DINOv2's own authors.
    Rule("blocks.{block}.gamma_1", "backbone/blocks/{block}/ls1/gamma"),
    Rule("blocks.{block}.gamma_2", "backbone/blocks/{block}/ls2/gamma"),
    Rule("mask_token", ""),
    # A layer before the head of older files for 21,000 classes, which timm leaves out too.
    Rule("pre_logits.{layer}.{value}", ""),
    *norm("norm", "backbone/norm"),
    *norm("fc_norm", "backbone/fc_norm"),
    # Weights of the one pooling may start a network of the other.
    *norm("norm", "backbone/fc_norm"),
    *norm("fc_norm", "backbone/norm"),
    *linear("head", "head/linear"),
    *linear("head_dist", "head/distilled"),
)
