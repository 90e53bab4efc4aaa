"""How parameters of each family are called in timm and here: one table a module, no code.

The first rule that fits counts, in both directions; one whose target the network does not have is
passed over.
"""

from flax import nnx

from plankton_jax.weights.families import (
    convnext,
    efficientnet,
    inception_v3,
    inception_v4,
    resnet,
    swin,
    vit,
    xception,
    xception_aligned,
)
from plankton_jax.weights.rules import Rule

FAMILIES: dict[type[nnx.Module], tuple[Rule, ...]] = {
    family.BACKBONE: family.RULES
    for family in (
        convnext,
        efficientnet,
        inception_v3,
        inception_v4,
        resnet,
        swin,
        vit,
        xception,
        xception_aligned,
    )
}
"""The table of each kind of backbone."""
