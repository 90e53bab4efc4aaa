"""Inception v3."""

from plankton_jax.models.inception_v3 import InceptionV3
from plankton_jax.weights.rules import Rule, batch_norm, convolution, input_convolution, linear

BACKBONE = InceptionV3

_BRANCH = "{layer}.{branch}"
_OURS = "backbone/{layer}/{branch}"

RULES = (
    *input_convolution("Conv2d_1a_3x3.conv", "backbone/Conv2d_1a_3x3/conv"),
    *convolution("{layer}.conv", "backbone/{layer}/conv"),
    *batch_norm("{layer}.bn", "backbone/{layer}/bn"),
    *convolution(f"{_BRANCH}.conv", f"{_OURS}/conv"),
    *batch_norm(f"{_BRANCH}.bn", f"{_OURS}/bn"),
    *linear("AuxLogits.fc", "head/auxiliary"),
    *linear("fc", "head/linear"),
    # The head's name in older files.
    *linear("last_linear", "head/linear"),
    # A network without the auxiliary classifier does not need its weights.
    Rule("AuxLogits.{layer}.{part}.{value}", ""),
    Rule("AuxLogits.fc.{value}", ""),
)
