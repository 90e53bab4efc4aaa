"""Inception v4 (Szegedy et al. 2017), in timm's naming and arithmetic.

timm numbers the layers, `features.7`, and those of a branch, `branch1.2`; here they are
`features_7` and `branch1_step2`.
"""

import functools

from plankton_jax.models._registry import ModelEntry, register
from plankton_jax.models.inception import (
    Block,
    Branch,
    Conv,
    Inception,
    InceptionConfig,
    Pool,
    build,
    info,
)


class InceptionV4(Inception):
    """The backbone; see `Inception`."""


_MAX = Pool("max")
_MEAN = Pool("mean", count_padding=False)
_ROW = (1, 7)
_COLUMN = (7, 1)


def _branch(name: str, *steps: Pool | tuple) -> Branch:
    """A branch of 1x1 (width,), symmetric (width, size) or halving (width, 3, 2) convolutions."""
    return tuple(
        step if isinstance(step, Pool) else _conv(f"{name}_step{number}", *step)
        for number, step in enumerate(steps)
    )


def _conv(name: str, width: int, size: int | tuple[int, int] = 1, stride: int = 1) -> Conv:
    return Conv(name, width, size, stride, "symmetric" if stride == 1 else "valid")


def _a(name: str) -> Block:
    """3x3 once and twice, and pooling, beside a 1x1."""
    return Block(name, (
        (Conv("branch0", 96),),
        _branch("branch1", (64,), (96, 3)),
        _branch("branch2", (64,), (96, 3), (96, 3)),
        _branch("branch3", _MEAN, (96,)),
    ))  # fmt: skip


def _b(name: str) -> Block:
    """7x7 factored into 1x7 and 7x1, once and twice."""
    return Block(name, (
        (Conv("branch0", 384),),
        _branch("branch1", (192,), (224, _ROW), (256, _COLUMN)),
        _branch("branch2", (192,), (192, _COLUMN), (224, _ROW), (224, _COLUMN), (256, _ROW)),
        _branch("branch3", _MEAN, (128,)),
    ))  # fmt: skip


def _c(name: str) -> Block:
    """3x3 spread out into 1x3 beside 3x1."""
    return Block(name, (
        (Conv("branch0", 256),),
        (
            Conv("branch1_0", 384),
            (Conv("branch1_1a", 256, (1, 3)), Conv("branch1_1b", 256, (3, 1))),
        ),
        (
            Conv("branch2_0", 384),
            Conv("branch2_1", 448, (3, 1)),
            Conv("branch2_2", 512, (1, 3)),
            (Conv("branch2_3a", 256, (1, 3)), Conv("branch2_3b", 256, (3, 1))),
        ),
        _branch("branch3", _MEAN, (256,)),
    ))  # fmt: skip


def _valid(name: str, width: int) -> Conv:
    return Conv(name, width, 3, padding="valid")


_STEM = (
    _conv("features_0", 32, 3, 2),
    _valid("features_1", 32),
    Conv("features_2", 64, 3),
    Block("features_3", ((_MAX,), (_conv("conv", 96, 3, 2),))),
    Block("features_4", (
        (Conv("branch0_step0", 64), _valid("branch0_step1", 96)),
        (
            *_branch("branch1", (64,), (64, _ROW), (64, _COLUMN)),
            _valid("branch1_step3", 96),
        ),
    )),
    Block("features_5", ((_conv("conv", 192, 3, 2),), (_MAX,))),
)  # fmt: skip

_REDUCTION_A = Block("features_10", (
    (_conv("branch0", 384, 3, 2),),
    _branch("branch1", (192,), (224, 3), (256, 3, 2)),
    (_MAX,),
))  # fmt: skip

_REDUCTION_B = Block("features_18", (
    _branch("branch0", (192,), (192, 3, 2)),
    _branch("branch1", (256,), (256, _ROW), (320, _COLUMN), (320, 3, 2)),
    (_MAX,),
))  # fmt: skip

CONFIG = InceptionConfig(
    layers=(
        *_STEM,
        *(_a(f"features_{number}") for number in range(6, 10)),
        _REDUCTION_A,
        *(_b(f"features_{number}") for number in range(11, 18)),
        _REDUCTION_B,
        *(_c(f"features_{number}") for number in range(19, 22)),
    ),
    taps=("features_2", "features_3", "features_9", "features_17", "features_21"),
)

register(
    ModelEntry(
        info("inception_v4", "inception", "tf_in1k"),
        functools.partial(build, CONFIG, InceptionV4),
    )
)
