"""ResNets."""

from plankton_jax.models.resnet import ResNet
from plankton_jax.weights.rules import batch_norm, convolution, input_convolution, linear

BACKBONE = ResNet

_BLOCK = "layer{stage}.{block}"
_OURS = "backbone/layer{stage}/{block}"

RULES = (
    *input_convolution("conv1", "backbone/conv1"),
    # The stem of three convolutions.
    *input_convolution("conv1.0", "backbone/conv1/conv1"),
    *batch_norm("conv1.1", "backbone/conv1/bn1"),
    *convolution("conv1.3", "backbone/conv1/conv2"),
    *batch_norm("conv1.4", "backbone/conv1/bn2"),
    *convolution("conv1.6", "backbone/conv1/conv3"),
    *batch_norm("bn1", "backbone/bn1"),
    *convolution(f"{_BLOCK}.conv{{number}}", f"{_OURS}/conv{{number}}"),
    *batch_norm(f"{_BLOCK}.bn{{number}}", f"{_OURS}/bn{{number}}"),
    *convolution(f"{_BLOCK}.downsample.{{place}}", f"{_OURS}/downsample/layers/{{place}}"),
    *batch_norm(f"{_BLOCK}.downsample.{{place}}", f"{_OURS}/downsample/layers/{{place}}"),
    *linear("fc", "head/linear"),
    # The head's name in older files.
    *linear("last_linear", "head/linear"),
)
