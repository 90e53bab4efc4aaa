"""What chance decides for the images of a stream: functions of seed and position alone, so the same
on any host, in any process, after any interruption. Pure; NumPy.

The recipes of operations are those of torchvision: RandAugment (Cubuk et al. 2019, section 3),
TrivialAugment (Müller and Hutter 2021, wide) and AutoAugment's policy for ImageNet (Cubuk et al.
2018, table 9).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Integer, UInt64

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.counter import random_bits, stream_key, to_unit
from plankton_jax.data.operations import NUMBER, OPERATIONS


class Draws(NamedTuple):
    """What chance decided for each of `b` images, columns `b` long. `no_draws` changes nothing."""

    flip_horizontal: Bool[np.ndarray, " b"]
    flip_vertical: Bool[np.ndarray, " b"]
    angle: Float64[np.ndarray, " b"]  # degrees, counter-clockwise
    after_resize: Bool[np.ndarray, " b"]  # whether the angle turns the square, not the image
    quarter_turns: Integer[np.ndarray, " b"]  # counter-clockwise, of the finished square
    scale: Float64[np.ndarray, " b"]
    shift_right: Float64[np.ndarray, " b"]  # share of the side
    shift_down: Float64[np.ndarray, " b"]
    brightness: Float64[np.ndarray, " b"]  # share of the full range
    contrast: Float64[np.ndarray, " b"]
    # One after the other, on the finished square: numbers of `OPERATIONS`, amounts, random bits.
    operations: Integer[np.ndarray, "b n"]
    amounts: Float64[np.ndarray, "b n"]
    bits: UInt64[np.ndarray, "b n"]

    def take(self, places: Integer[np.ndarray, " n"]) -> "Draws":
        """Those of some of the images."""
        return Draws(*(column[places] for column in self))

    def are_symmetries(self) -> Bool[np.ndarray, " b"]:
        """Whether pixels only change places after the resize."""
        moved = (self.angle != 0) | (self.shift_right != 0) | (self.shift_down != 0)
        return ~moved & (self.scale == 1)


def no_draws(count: int) -> Draws:
    """Draws that change nothing, for `count` images."""
    no, zero, one = np.zeros(count, bool), np.zeros(count), np.ones(count)
    nothing = _operations(np.zeros((count, 0), np.int64), np.zeros((count, 0)), None)
    return Draws(no, no, zero, no, np.zeros(count, np.int64), one, zero, zero, zero, one, *nothing)


def draw_augmentations(
    augmentation: AugmentationConfig,
    seed: int,
    positions: Integer[np.ndarray, " b"],
    size: int,
) -> Draws:
    """What happens to the images at these positions of the stream.

    Args:
      size: side of the finished square, pixels.
    """
    positions = np.asarray(positions, np.uint64)
    draws = no_draws(len(positions))
    if augmentation.manual:
        draws = _manual(augmentation, draws, seed, positions)
    parts = [
        _of_policy(augmentation, seed, positions, size),
        _of_strengths(augmentation, seed, positions),
    ]
    operations, amounts, bits = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return draws._replace(operations=operations, amounts=amounts, bits=bits)


def _manual(a: AugmentationConfig, draws: Draws, seed: int, positions: np.ndarray) -> Draws:
    uniform = to_unit(random_bits(stream_key(seed, "augmentation"), positions, 9))
    signed = 2 * uniform - 1
    return draws._replace(
        flip_horizontal=uniform[:, 0] < a.horizontal_flip,
        flip_vertical=uniform[:, 1] < a.vertical_flip,
        angle=uniform[:, 2] * a.rotation_degrees,
        after_resize=np.full(len(uniform), a.rotation_frame == "square"),
        quarter_turns=(uniform[:, 3] * 4 * a.quarter_turns).astype(np.int64),
        scale=np.exp(signed[:, 4] * a.scale_jitter),
        shift_right=signed[:, 5] * a.shift,
        shift_down=signed[:, 6] * a.shift,
        brightness=signed[:, 7] * a.brightness,
        contrast=1 + signed[:, 8] * a.contrast,
    )


Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Numbers of operations int64 `b n`, amounts float64 `b n`, random bits uint64 `b n`."""


def _operations(operations: np.ndarray, amounts: np.ndarray, bits: np.ndarray | None) -> Drawn:
    if bits is None:
        bits = np.zeros(operations.shape, np.uint64)
    return operations, np.where(operations == NUMBER["Identity"], 0.0, amounts), bits


def _of_strengths(a: AugmentationConfig, seed: int, positions: np.ndarray) -> Drawn:
    """Blur, noise and cutout, each as strong as chance has it up to its setting."""
    strongest = {"Blur": a.blur, "Noise": a.noise, "Cutout": a.cutout}
    used = [name for name, most in strongest.items() if most]
    bits = random_bits(stream_key(seed, "operations"), positions, 2 * len(strongest))
    columns = [list(strongest).index(name) for name in used]
    strength = to_unit(bits[:, columns]) * np.array([strongest[name] for name in used])
    numbers = np.broadcast_to(np.array([NUMBER[n] for n in used], np.int64), strength.shape)
    return _operations(numbers, strength, bits[:, [c + len(strongest) for c in columns]])


def _of_policy(a: AugmentationConfig, seed: int, positions: np.ndarray, size: int) -> Drawn:
    """The operations of the configured recipe."""
    key = stream_key(seed, "policy")
    if a.policy == "randaugment":
        uniform = to_unit(random_bits(key, positions, 2 * a.policy_operations))
        chosen, signs = np.split(uniform, 2, axis=1)
        numbers = (chosen * len(RAND_AUGMENT)).astype(np.int64)
        bins = np.full(numbers.shape, a.policy_magnitude)
        return _operations(numbers, _amounts(_narrow(31, size), numbers, bins, signs), None)
    if a.policy == "trivialaugment":
        uniform = to_unit(random_bits(key, positions, 3))
        numbers = (uniform[:, :1] * len(RAND_AUGMENT)).astype(np.int64)
        bins = (uniform[:, 1:2] * 31).astype(np.int64)
        return _operations(numbers, _amounts(_WIDE, numbers, bins, uniform[:, 2:]), None)
    if a.policy == "autoaugment":
        uniform = to_unit(random_bits(key, positions, 5))
        pairs = (uniform[:, 0] * len(_AUTO_AUGMENT)).astype(np.int64)
        numbers, probabilities, bins = (column[pairs] for column in _AUTO_COLUMNS)
        amounts = _amounts(_narrow(10, size), numbers, bins, uniform[:, 3:])
        happens = uniform[:, 1:3] <= probabilities
        return _operations(np.where(happens, numbers, NUMBER["Identity"]), amounts, None)
    return _operations(np.zeros((len(positions), 0), np.int64), np.zeros((len(positions), 0)), None)


RAND_AUGMENT = OPERATIONS[: NUMBER["Equalize"] + 1]
"""What RandAugment and TrivialAugment choose from, each as likely as the others."""

_SIGNED = np.isin(
    OPERATIONS,
    ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
    + ("Brightness", "Color", "Contrast", "Sharpness"),
)


def _amounts(
    table: np.ndarray, numbers: np.ndarray, bins: np.ndarray, signs: np.ndarray
) -> np.ndarray:
    """Amounts of operations: of their bin, one in two negative where there is a direction."""
    return table[numbers, bins] * np.where(_SIGNED[numbers] & (signs < 0.5), -1, 1)


def _table(
    bins: int, shear: float, shift: float, degrees: float, blend: float, bits: int
) -> np.ndarray:
    """Amounts `operations bins`, from nothing to the given most."""
    rising = np.linspace(0, 1, bins)
    table = np.zeros((len(OPERATIONS), bins))
    for names, most in (
        (("ShearX", "ShearY"), shear),
        (("TranslateX", "TranslateY"), shift),
        (("Rotate",), degrees),
        (("Brightness", "Color", "Contrast", "Sharpness"), blend),
    ):
        table[[NUMBER[name] for name in names]] = most * rising
    table[NUMBER["Posterize"]] = 8 - np.rint(np.arange(bins) / ((bins - 1) / bits))
    table[NUMBER["Solarize"]] = np.linspace(255, 0, bins, dtype=np.float32)
    return table


def _narrow(bins: int, size: int) -> np.ndarray:
    """RandAugment's and AutoAugment's amounts; 150 pixels of 331 are a share of the side."""
    return _table(bins, shear=0.3, shift=150 / 331 * size, degrees=30, blend=0.9, bits=4)


_WIDE = _table(31, shear=0.99, shift=32, degrees=135, blend=0.99, bits=6)

# Two operations, each with its probability and the number of its amount among ten.
_AUTO_AUGMENT = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)
_AUTO_COLUMNS = (
    np.array([[NUMBER[name] for name, _, _ in pair] for pair in _AUTO_AUGMENT]),
    np.array([[probability for _, probability, _ in pair] for pair in _AUTO_AUGMENT]),
    np.array([[number for _, _, number in pair] for pair in _AUTO_AUGMENT]),
)
