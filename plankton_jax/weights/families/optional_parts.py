"""What public files of a family may lack, and timm then leaves as it was drawn."""

from flax import nnx

from plankton_jax.models.convnext import ConvNext
from plankton_jax.models.inception_v3 import InceptionV3
from plankton_jax.weights.rules import OptionalPart

OPTIONAL_PARTS: dict[type[nnx.Module], tuple[OptionalPart, ...]] = {
    # Pre-training without labels (`convnextv2_*.fcmae`) had neither head nor the norm before it.
    ConvNext: (
        OptionalPart(
            sources=("head.", "norm."),
            targets=("backbone/norm/",),
            initial={"scale": 1.0, "bias": 0.0},
        ),
    ),
    # Weights that came from TensorFlow or Gluon have no auxiliary classifier.
    InceptionV3: (
        OptionalPart(sources=("AuxLogits.",), targets=("backbone/AuxLogits/", "head/auxiliary/")),
    ),
}
"""The parts that may be missing, for each kind of backbone that has some."""
