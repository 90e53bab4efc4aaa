"""Swin: the small networks whose outputs are stored, and any named one at reduced depth."""

import dataclasses
import functools

from golden.cases import Case

from plankton_jax.models._registry import find
from plankton_jax.models.swin import SwinConfig, build


def _case(name: str, config: SwinConfig, image_size: int, **options) -> Case:
    timm_options = {
        "img_size": image_size,
        "embed_dim": config.width,
        "depths": config.depths,
        "num_heads": config.heads,
        "window_size": [(side, side) for side in config.windows],  # pairs: timm reads (4, 4) as one
    }
    backbone = functools.partial(build, config)
    return Case(name, timm_options, backbone, image_size, **options)


_SMALL = functools.partial(_case, "swin_tiny_patch4_window7_224")

CASES = {
    # Whole windows, shifted in the first stage; the second's window is the map.
    "whole": _SMALL(SwinConfig(16, (2, 2), (2, 4), (4, 4)), 32, batch=3),
    # 10, 5 and 3 tokens a side: padded windows, shifted or not, odd merging, a cut window.
    "padded": _SMALL(SwinConfig(16, (2, 2, 1), (1, 2, 4), (4, 3, 4)), 40, in_channels=1, batch=2),
    # A window of one token, and one that is even and fills the map.
    "uneven": _SMALL(SwinConfig(16, (1, 3), (2, 2), (1, 5)), 24, batch=2),
}


def reduced(name: str) -> Case:
    """The named network with two blocks a stage at most, on maps of 16, 8, 4 and 2 tokens."""
    entry = find(name).build
    config = dataclasses.replace(entry.args[0], depths=(2, 2, 2, 1))
    return _case(name, config, 64, batch=2)
