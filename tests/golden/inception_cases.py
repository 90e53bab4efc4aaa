"""Inception v3 and v4, whole: timm's have no smaller ones. Maps end at 3x3 pixels."""

import functools

from golden.cases import Case

# timm's networks take no drop path; timm passes over options that are None.
_case = functools.partial(
    Case, timm_options={"drop_path_rate": None}, image_size=139, batch=6, kept=96, offset=3.0
)

CASES = {
    "v3": _case("inception_v3", backbone="inception_v3", in_channels=1),
    "v4": _case("inception_v4", backbone="inception_v4"),
}


def reduced(name: str) -> Case:
    """The named network on small images, where rounding takes no ReLU across zero."""
    if name == "inception_v3":
        return _case(name, backbone=name, offset=2.0, batch=8)
    return _case(name, backbone=name)
