"""EfficientNets."""

from plankton_jax.models.efficientnet import EfficientNet
from plankton_jax.weights.rules import batch_norm, convolution, input_convolution, linear

BACKBONE = EfficientNet

_BLOCK = "blocks.{stage}.{block}"
_OURS = "backbone/blocks/{stage}/{block}"

RULES = (
    *input_convolution("conv_stem", "backbone/conv_stem"),
    *batch_norm("bn1", "backbone/bn1"),
    *convolution(f"{_BLOCK}.conv", f"{_OURS}/conv"),
    *convolution(f"{_BLOCK}.conv_{{name}}", f"{_OURS}/conv_{{name}}"),
    *batch_norm(f"{_BLOCK}.bn{{number}}", f"{_OURS}/bn{{number}}"),
    *convolution(f"{_BLOCK}.se.conv_{{name}}", f"{_OURS}/se/conv_{{name}}"),
    *convolution("conv_head", "backbone/conv_head"),
    *batch_norm("bn2", "backbone/bn2"),
    *linear("classifier", "head/linear"),
)
