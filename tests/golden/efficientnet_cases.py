"""EfficientNets: the small networks whose outputs are stored, and any named one reduced."""

import dataclasses
import functools
import math
from collections.abc import Sequence

from golden.cases import Case

from plankton_jax.models._registry import find
from plankton_jax.models.efficientnet import EfficientNetConfig, build

DEPTH = 0.1  # of the networks here, as a share of the named ones', rounded up


def _case(
    name: str, image_size: int, widths: Sequence[int] | None = None, *, in_channels: int = 3
) -> Case:
    """A named network of one or two blocks a stage, and of a quarter of its width.

    Its `widths` are then those of stem, stages and features; timm rounds them.
    """
    config: EfficientNetConfig = find(name).build.args[0]
    options = {"depth_multiplier": DEPTH}
    stages = [dataclasses.replace(s, depth=math.ceil(DEPTH * s.depth)) for s in config.stages]
    if widths is not None:
        options["channel_multiplier"] = 0.25
        pairs = zip(stages, widths[1:-1], strict=True)
        stages = [dataclasses.replace(stage, width=width) for stage, width in pairs]
        config = dataclasses.replace(config, stem=widths[0], features=widths[-1])
    config = dataclasses.replace(config, stages=tuple(stages))
    backbone = functools.partial(build, config)
    return Case(name, options, backbone, image_size, in_channels=in_channels)


CASES = {
    # Maps of 36, 36, 18, 9, 5 and 3 pixels a side: TensorFlow's padding differs with the parity.
    "tensorflow": _case("tf_efficientnetv2_b0", 72, (8, 8, 8, 16, 24, 32, 48, 320)),
    "odd": _case("tf_efficientnetv2_s", 65, (8, 8, 16, 16, 32, 40, 64, 320), in_channels=1),
    "torch": _case("efficientnetv2_rw_s", 64, (8, 8, 16, 16, 32, 40, 72, 448)),
}


def reduced(name: str) -> Case:
    """The named network with three blocks a stage at most."""
    return _case(name, 96)
