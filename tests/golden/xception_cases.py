"""Xception whole, as timm has no smaller one, and small aligned Xceptions."""

import functools

from golden.cases import Case

from plankton_jax.models.xception_aligned import XCEPTION_41, BlockConfig, build


def _legacy(**options) -> Case:
    # timm's network takes no drop path; timm passes over options that are None.
    name = "legacy_xception"
    options = {"offset": 2.0} | options
    return Case(name, {"drop_path_rate": None}, name, 96, kept=128, **options)


def _aligned(blocks: tuple[BlockConfig, ...], image_size: int, **options) -> Case:
    described, width = [], 64
    for block in blocks:
        described.append({
            "in_chs": width,
            "out_chs": block.widths,
            "stride": block.stride,
            "no_skip": not block.shortcut,
            "start_with_relu": block.shortcut,
        })  # fmt: skip
        width = block.widths[-1]
    backbone = functools.partial(build, blocks)
    options = {"offset": 1.0} | options
    return Case("xception41", {"block_cfg": described}, backbone, image_size, **options)


_SMALL = (
    BlockConfig((8, 16, 16), 2),
    BlockConfig((16, 16, 16)),
    BlockConfig((16, 24, 32)),
    BlockConfig((24, 24, 40), 2),
    BlockConfig((24, 32, 48), shortcut=False),
)

CASES = {
    "legacy": _legacy(),
    "aligned": _aligned(_SMALL, 32, kept=4096),
    "aligned_odd": _aligned(_SMALL, 37, in_channels=1, kept=4096),
}


def reduced(name: str) -> Case:
    """The named network, with two of the eight equal blocks where timm lets us choose.

    Offsets at which rounding takes no ReLU across zero, or gradients would depend on the processor.
    """
    if name == "legacy_xception":
        return _legacy(offset=3.0)
    return _aligned((*XCEPTION_41[:5], *XCEPTION_41[-2:]), 96, offset=3.0)
