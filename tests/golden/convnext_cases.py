"""ConvNeXt: the small networks whose outputs are stored, and any named one at reduced depth."""

import dataclasses
import functools

from golden.cases import Case

from plankton_jax.models._registry import find
from plankton_jax.models.convnext import ConvNextConfig, build


def _case(name: str, config: ConvNextConfig, image_size: int, **options) -> Case:
    timm_options = {
        "dims": config.widths,
        "depths": config.depths,
        "conv_mlp": config.conv_mlp,
    }
    backbone = functools.partial(build, config)
    return Case(name, timm_options, backbone, image_size, **options)


_WIDTHS, _DEPTHS = (8, 12, 16, 24), (1, 1, 2, 1)
_SMALL = functools.partial(_case, "convnext_tiny")
_SMALL_V2 = functools.partial(_case, "convnextv2_tiny")

CASES = {
    "plain": _SMALL(ConvNextConfig(_WIDTHS, _DEPTHS), 64),
    # 78 pixels: maps of 19, 9, 4 and 2; rows and columns are left over in three places.
    "odd": _SMALL(ConvNextConfig(_WIDTHS, _DEPTHS), 78, in_channels=1, batch=2),
    "conv_mlp": _SMALL(ConvNextConfig(_WIDTHS, _DEPTHS, conv_mlp=True), 32),
    "response_norm": _SMALL_V2(ConvNextConfig(_WIDTHS, _DEPTHS, response_norm=True), 64),
    "conv_response_norm": _SMALL_V2(
        ConvNextConfig(_WIDTHS, _DEPTHS, conv_mlp=True, response_norm=True), 40, in_channels=1
    ),
}


def reduced(name: str) -> Case:
    """The named network with a block a stage, two in the second, on maps of 16 to 2."""
    config = dataclasses.replace(find(name).build.args[0], depths=(1, 2, 1, 1))
    return _case(name, config, 64, batch=2)
