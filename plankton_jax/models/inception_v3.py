"""Inception v3 (Szegedy et al. 2016), in timm's naming and arithmetic."""

import dataclasses
import functools

from plankton_jax.models._registry import ModelEntry, register
from plankton_jax.models.inception import (
    Block,
    Conv,
    Inception,
    InceptionConfig,
    Pool,
    build,
    info,
)


class InceptionV3(Inception):
    """The backbone; see `Inception`."""


_MAX = Pool("max")
_MEAN = Pool("mean")
_valid = functools.partial(Conv, padding="valid")
_halving = functools.partial(Conv, size=3, stride=2, padding="valid")


def _a(name: str, pool_width: int) -> Block:
    """5x5, two 3x3 and pooling beside a 1x1."""
    return Block(name, (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5)),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, 3),
            Conv("branch3x3dbl_3", 96, 3),
        ),
        (_MEAN, Conv("branch_pool", pool_width)),
    ))  # fmt: skip


def _b(name: str) -> Block:
    """Halves the side, 288 channels to 768."""
    return Block(name, (
        (_halving("branch3x3", 384),),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3), _halving("branch3x3dbl_3", 96)),
        (_MAX,),
    ))  # fmt: skip


def _c(name: str, width: int) -> Block:
    """7x7 factored into 1x7 and 7x1, once and twice."""
    return Block(name, (
        (Conv("branch1x1", 192),),
        (
            Conv("branch7x7_1", width),
            Conv("branch7x7_2", width, (1, 7)),
            Conv("branch7x7_3", 192, (7, 1)),
        ),
        (
            Conv("branch7x7dbl_1", width),
            Conv("branch7x7dbl_2", width, (7, 1)),
            Conv("branch7x7dbl_3", width, (1, 7)),
            Conv("branch7x7dbl_4", width, (7, 1)),
            Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        (_MEAN, Conv("branch_pool", 192)),
    ))  # fmt: skip


def _d(name: str) -> Block:
    """Halves the side, 768 channels to 1280."""
    return Block(name, (
        (Conv("branch3x3_1", 192), _halving("branch3x3_2", 320)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            _halving("branch7x7x3_4", 192),
        ),
        (_MAX,),
    ))  # fmt: skip


def _e(name: str) -> Block:
    """3x3 spread out into 1x3 beside 3x1."""
    return Block(name, (
        (Conv("branch1x1", 320),),
        (
            Conv("branch3x3_1", 384),
            (Conv("branch3x3_2a", 384, (1, 3)), Conv("branch3x3_2b", 384, (3, 1))),
        ),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, 3),
            (Conv("branch3x3dbl_3a", 384, (1, 3)), Conv("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (_MEAN, Conv("branch_pool", 192)),
    ))  # fmt: skip


CONFIG = InceptionConfig(
    layers=(
        _halving("Conv2d_1a_3x3", 32),
        _valid("Conv2d_2a_3x3", 32, 3),
        Conv("Conv2d_2b_3x3", 64, 3),
        _MAX,
        Conv("Conv2d_3b_1x1", 80),
        _valid("Conv2d_4a_3x3", 192, 3),
        _MAX,
        _a("Mixed_5b", 32),
        _a("Mixed_5c", 64),
        _a("Mixed_5d", 64),
        _b("Mixed_6a"),
        _c("Mixed_6b", 128),
        _c("Mixed_6c", 160),
        _c("Mixed_6d", 160),
        _c("Mixed_6e", 192),
        _d("Mixed_7a"),
        _e("Mixed_7b"),
        _e("Mixed_7c"),
    ),
    taps=("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"),
)

WITH_AUXILIARY = dataclasses.replace(CONFIG, auxiliary="Mixed_6e")


def with_auxiliary(**options) -> Inception:
    """The network with the trunk of an auxiliary classifier, for `config.model.name`.

    The head "auxiliary" and the loss "auxiliary_cross_entropy" go with it. `options` as in `build`.
    """
    return build(WITH_AUXILIARY, InceptionV3, **options)


register(
    ModelEntry(
        info("inception_v3", "inception", "tv_in1k"),
        functools.partial(build, CONFIG, InceptionV3),
    )
)
