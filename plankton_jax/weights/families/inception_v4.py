"""Inception v4."""

from plankton_jax.models.inception_v4 import InceptionV4
from plankton_jax.weights.rules import batch_norm, convolution, input_convolution, linear

BACKBONE = InceptionV4

_STEP = "features.{layer}.{branch}.{step}"
_OUR_STEP = "backbone/features_{layer}/{branch}_step{step}"
_BRANCH = "features.{layer}.{branch}"
_OUR_BRANCH = "backbone/features_{layer}/{branch}"

RULES = (
    *input_convolution("features.0.conv", "backbone/features_0/conv"),
    *convolution(f"{_STEP}.conv", f"{_OUR_STEP}/conv"),
    *batch_norm(f"{_STEP}.bn", f"{_OUR_STEP}/bn"),
    *convolution(f"{_BRANCH}.conv", f"{_OUR_BRANCH}/conv"),
    *batch_norm(f"{_BRANCH}.bn", f"{_OUR_BRANCH}/bn"),
    *convolution("features.{layer}.conv", "backbone/features_{layer}/conv"),
    *batch_norm("features.{layer}.bn", "backbone/features_{layer}/bn"),
    *linear("last_linear", "head/linear"),
    # The head's name in other networks of this kind.
    *linear("fc", "head/linear"),
)
