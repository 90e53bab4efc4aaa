"""ConvNeXt and ConvNeXt V2."""

from plankton_jax.models.convnext import ConvNext
from plankton_jax.weights.rules import Rule, convolution, input_convolution, linear, norm

BACKBONE = ConvNext

_OURS = "backbone/stages/{stage}"
_BLOCK = "stages.{stage}.blocks.{block}"
_OUR_BLOCK = "backbone/stages/{stage}/blocks/{block}"
_OLD_BLOCK = "stages.{stage}.{block}"


def _pointwise(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a layer that is linear or a 1x1 convolution, in the file or here."""
    return (
        Rule(f"{source}.weight", f"{target}/kernel", "pointwise"),
        Rule(f"{source}.bias", f"{target}/bias"),
    )


_TIMM = (
    *input_convolution("stem.0", "backbone/stem/conv"),
    *norm("stem.1", "backbone/stem/norm"),
    *norm("stages.{stage}.downsample.0", f"{_OURS}/downsample/norm"),
    *convolution("stages.{stage}.downsample.1", f"{_OURS}/downsample/conv"),
    *convolution(f"{_BLOCK}.conv_dw", f"{_OUR_BLOCK}/conv_dw"),
    *norm(f"{_BLOCK}.norm", f"{_OUR_BLOCK}/norm"),
    *_pointwise(f"{_BLOCK}.mlp.fc1", f"{_OUR_BLOCK}/mlp/fc1"),
    *norm(f"{_BLOCK}.mlp.grn", f"{_OUR_BLOCK}/mlp/grn"),
    *_pointwise(f"{_BLOCK}.mlp.fc2", f"{_OUR_BLOCK}/mlp/fc2"),
    Rule(f"{_BLOCK}.gamma", f"{_OUR_BLOCK}/layer_scale/gamma"),
    *norm("head.norm", "backbone/norm"),
    *linear("head.fc", "head/linear"),
)

# The names in the authors' own files.
_AUTHORS = (
    *input_convolution("downsample_layers.0.0", "backbone/stem/conv"),
    *norm("downsample_layers.0.1", "backbone/stem/norm"),
    *norm("downsample_layers.{stage}.0", f"{_OURS}/downsample/norm"),
    *convolution("downsample_layers.{stage}.1", f"{_OURS}/downsample/conv"),
    *convolution(f"{_OLD_BLOCK}.dwconv", f"{_OUR_BLOCK}/conv_dw"),
    *norm(f"{_OLD_BLOCK}.norm", f"{_OUR_BLOCK}/norm"),
    *_pointwise(f"{_OLD_BLOCK}.pwconv1", f"{_OUR_BLOCK}/mlp/fc1"),
    Rule(f"{_OLD_BLOCK}.grn.gamma", f"{_OUR_BLOCK}/mlp/grn/scale", "flat"),
    Rule(f"{_OLD_BLOCK}.grn.beta", f"{_OUR_BLOCK}/mlp/grn/bias", "flat"),
    *_pointwise(f"{_OLD_BLOCK}.pwconv2", f"{_OUR_BLOCK}/mlp/fc2"),
    Rule(f"{_OLD_BLOCK}.gamma", f"{_OUR_BLOCK}/layer_scale/gamma"),
    *norm("norm", "backbone/norm"),
    *linear("head", "head/linear"),
)

RULES = (*_TIMM, *_AUTHORS)
