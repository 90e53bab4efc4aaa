"""How parameters of each family are called in timm and here: tables, no code.

A rule's names are templates: `{block}` stands for one part of a name, the same on both sides. The
first rule that fits counts, in both directions; one whose target the network does not have is
passed over. A rule without target drops its key.
"""

import dataclasses

from flax import nnx

from plankton_jax.models.vit import VisionTransformer


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table.

    Attributes:
      source: name in timm's state dict.
      target: path in this package's parameters or model state; empty: the key is not needed.
      transform: a name in `plankton_jax.weights.timm_names.TRANSFORMS`.
    """

    source: str
    target: str
    transform: str = "same"


def linear(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a linear layer."""
    return (
        Rule(f"{source}.weight", f"{target}/kernel", "transpose"),
        Rule(f"{source}.bias", f"{target}/bias"),
    )


def layer_norm(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a layer norm."""
    return (Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias"))


VIT = (
    Rule("cls_token", "backbone/cls_token"),
    Rule("dist_token", "backbone/dist_token"),
    Rule("pos_embed", "backbone/pos_embed", "position_embedding"),
    Rule("patch_embed.proj.weight", "backbone/patch_embed/kernel", "input_convolution"),
    Rule("patch_embed.proj.bias", "backbone/patch_embed/bias"),
    *layer_norm("blocks.{block}.norm1", "backbone/blocks/{block}/norm1"),
    *linear("blocks.{block}.attn.qkv", "backbone/blocks/{block}/attn/qkv"),
    *linear("blocks.{block}.attn.proj", "backbone/blocks/{block}/attn/proj"),
    *layer_norm("blocks.{block}.norm2", "backbone/blocks/{block}/norm2"),
    *linear("blocks.{block}.mlp.fc1", "backbone/blocks/{block}/mlp/fc1"),
    *linear("blocks.{block}.mlp.fc2", "backbone/blocks/{block}/mlp/fc2"),
    *layer_norm("norm", "backbone/norm"),
    *layer_norm("fc_norm", "backbone/fc_norm"),
    # Weights of the one pooling may start a network of the other.
    *layer_norm("norm", "backbone/fc_norm"),
    *layer_norm("fc_norm", "backbone/norm"),
    *linear("head", "head/linear"),
    *linear("head_dist", "head/distilled"),
)

FAMILIES: dict[type[nnx.Module], tuple[Rule, ...]] = {VisionTransformer: VIT}
