"""What older files call otherwise, where a name alone does not tell them from today's."""

from flax import nnx

from plankton_jax.models.swin import SwinTransformer
from plankton_jax.weights.rules import OldNames

OLD_NAMES: dict[type[nnx.Module], tuple[OldNames, ...]] = {
    # They merge patches at the end of a stage, newer ones at the beginning of the next.
    SwinTransformer: (
        OldNames(
            marker="layers.0.downsample.reduction.weight",
            source="layers.{stage}.downsample.{layer}.{kind}",
            numbers={"stage": 1},
        ),
    ),
}
"""Older names of each kind of backbone that has had others."""
