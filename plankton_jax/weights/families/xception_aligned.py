"""Aligned Xceptions."""

from plankton_jax.models.xception_aligned import XceptionAligned
from plankton_jax.weights.rules import batch_norm, convolution, input_convolution, linear

BACKBONE = XceptionAligned

_UNIT = "blocks.{block}.stack.{unit}"
_OURS = "backbone/blocks/{block}/stack/{unit}"

RULES = (
    *input_convolution("stem.0.conv", "backbone/stem/0/conv"),
    *convolution("stem.{layer}.conv", "backbone/stem/{layer}/conv"),
    *batch_norm("stem.{layer}.bn", "backbone/stem/{layer}/bn"),
    *convolution("blocks.{block}.shortcut.conv", "backbone/blocks/{block}/shortcut/conv"),
    *batch_norm("blocks.{block}.shortcut.bn", "backbone/blocks/{block}/shortcut/bn"),
    *convolution(f"{_UNIT}.conv_{{part}}", f"{_OURS}/conv_{{part}}"),
    *batch_norm(f"{_UNIT}.bn_{{part}}", f"{_OURS}/bn_{{part}}"),
    *linear("head.fc", "head/linear"),
)
