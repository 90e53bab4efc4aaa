"""ResNets: the small networks whose outputs are stored, and any named one at reduced depth."""

import dataclasses
import functools

from golden.cases import Case

from plankton_jax.models._registry import find
from plankton_jax.models.resnet import ResNetConfig, build


def _case(name: str, image_size: int, *, in_channels: int = 3, **changes) -> Case:
    """A named network with another configuration."""
    config: ResNetConfig = dataclasses.replace(find(name).build.args[0], **changes)
    timm_options = {"layers": config.depths, "channels": config.widths}
    if len(config.stem) == 3:
        timm_options["stem_width"] = config.stem[1]
    backbone = functools.partial(build, config)
    return Case(name, timm_options, backbone, image_size, in_channels=in_channels)


_SMALL = functools.partial(_case, widths=(8, 16, 16, 24))

CASES = {
    "basic": _SMALL("resnet18", 40, depths=(1, 2, 1, 1)),
    "bottleneck": _SMALL("resnet50", 40, in_channels=1, depths=(2, 1, 1, 1)),
    "deep_stem": _SMALL("resnet50d", 48, depths=(1, 1, 2, 1), stem=(8, 8, 16)),
    # Maps of 27, 14, 7, 4 and 2 pixels a side: the last window of an averaging shortcut is cut.
    "odd": _SMALL("resnet10t", 54, in_channels=1, depths=(1, 1, 1, 1), stem=(6, 8, 16)),
}


def reduced(name: str) -> Case:
    """The named network with two blocks a stage at most, of a quarter of its width.

    The fewer values meet a ReLU, the less likely one of them rounds to the other side of zero.
    """
    depths = find(name).build.args[0].depths
    return _SMALL(name, 48, depths=tuple(min(d, 2) for d in depths), widths=(16, 32, 64, 128))
