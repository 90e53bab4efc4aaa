"""Outlines, curves and the sketch that gathers them. Pure geometry: no pixels.

Points are complex numbers, x real and y imaginary. A sketch is drawn about one unit long with the
head towards +x; turning, mirroring and scaling it is then one complex product.
"""

import cmath
import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
from jaxtyping import Complex, Float

from data_builders.synthetic_plankton.dice import Dice

CLEAR = 24.0  # ink of empty water; less than this shines brighter than the background

_HARMONICS = 9
_ANGLES = 2 * np.pi * np.arange(40) / 40
_UNIT_CIRCLE = np.exp(1j * _ANGLES)
_COSINES, _SINES = np.cos(_ANGLES), 1j * np.sin(_ANGLES)
_DECAY = 1 / np.arange(1.5, 1.5 + _HARMONICS)
_WAVES = np.exp(1j * np.outer(np.arange(2, 2 + _HARMONICS), _ANGLES))
_CAP = np.array([0.7 - 0.55j, -0.7j, -0.7 - 0.55j])  # from the left side over the end to the right
_STEPS = np.linspace(0, 1, 12)
_QUADRATIC = np.stack([(1 - _STEPS) ** 2, 2 * _STEPS * (1 - _STEPS), _STEPS**2], axis=1)


@dataclasses.dataclass(slots=True)
class Stroke:
    """One shape: filled when `width` is 0, else a line of that width (in units of the sketch)."""

    points: Complex[np.ndarray, " n"]
    ink: float
    width: float
    closed: bool


class Sketch:
    """Shapes in the order they are painted, with how the whole of it looks.

    Attributes:
      texture: how far the ink varies within the body, 0 for smooth.
      defocus: added blur, in parts of the sketch's length.
      density: factor on all ink, below 1 for what light passes.
      bend: curvature of the x axis in radians for each unit of length, bending all shapes with it.
    """

    def __init__(
        self, texture: float = 0.15, defocus: float = 0.0, density: float = 1.0, bend: float = 0.0
    ):
        self.strokes: list[Stroke] = []
        self.texture, self.defocus, self.density, self.bend = texture, defocus, density, bend

    def fill(self, points: Complex[np.ndarray, " n"], ink: float) -> None:
        """Paints the inside of a closed outline."""
        self.strokes.append(Stroke(points, ink, 0.0, True))

    def line(
        self, points: Complex[np.ndarray, " n"], ink: float, width: float = 0.01, closed=False
    ) -> None:
        """Paints a line along the points."""
        self.strokes.append(Stroke(points, ink, width, closed))

    def body(
        self, points: Complex[np.ndarray, " n"], ink: float, edge: float, width: float = 0.018
    ) -> None:
        """Paints a body: light passes its middle and is bent away at its rim."""
        self.fill(points, ink)
        self.line(points, edge, width, closed=True)

    def dot(self, centre: complex, radius: float, ink: float) -> None:
        """Paints a small disc."""
        self.fill(centre + radius * _UNIT_CIRCLE[::4], ink)


def ellipse(
    centre: complex, length: float, height: float, tilt: float = 0.0
) -> Complex[np.ndarray, "40"]:
    """An ellipse with the given half axes, turned by `tilt` radians."""
    points = length * _COSINES + height * _SINES
    return centre + points * cmath.rect(1, tilt) if tilt else centre + points


def blob(
    dice: Dice, centre: complex, radius: float, roughness: float, squash: float = 1.0
) -> Complex[np.ndarray, "40"]:
    """An irregular closed outline: a circle whose radius is a sum of random harmonics."""
    outline = radius * _outlines(dice, 1, roughness)[0]
    if squash == 1.0:
        return centre + outline
    turn = cmath.rect(1, dice.between(0, np.pi))
    squashed = (outline * (1 + squash) + outline.conj() * (1 - squash)) / 2
    return centre + squashed * turn


def blobs(
    dice: Dice, centres: Complex[np.ndarray, " k"], radii: Float[np.ndarray, " k"], roughness: float
) -> Complex[np.ndarray, "k 40"]:
    """Several blobs in one go, 14 at most."""
    return centres[:, None] + radii[:, None] * _outlines(dice, len(centres), roughness)


def _outlines(dice: Dice, number: int, roughness: float) -> Complex[np.ndarray, "{number} 40"]:
    """Irregular outlines of radius about 1."""
    weights = dice.many(2 * _HARMONICS * number, -1, 1).view(np.complex128)
    waves = np.real((weights.reshape(number, _HARMONICS) * (roughness * _DECAY)) @ _WAVES)
    return np.maximum(1 + waves, 0.25) * _UNIT_CIRCLE


def arc(start: complex, control: complex, end: complex) -> Complex[np.ndarray, "12"]:
    """A quadratic Bezier curve."""
    return _QUADRATIC @ np.array([start, control, end])


def evenly(low: float, high: float, number: int) -> list[float]:
    """`number` (2 or more) values from `low` to `high`; quicker than `np.linspace` for a few."""
    step = (high - low) / (number - 1)
    return [low + i * step for i in range(number)]


def spine(length: float, points: int = 24) -> Complex[np.ndarray, " points"]:
    """The x axis from -length/2 to length/2."""
    return length * _axis(points)


@functools.lru_cache(maxsize=16)
def _axis(points: int) -> Complex[np.ndarray, " points"]:
    return np.linspace(-0.5, 0.5, points).astype(np.complex128)


def normals(curve: Complex[np.ndarray, " n"]) -> Complex[np.ndarray, " n"]:
    """The unit vector to the left of the curve at each of its points."""
    ahead = np.empty_like(curve)
    ahead[1:-1] = curve[2:] - curve[:-2]
    ahead[0], ahead[-1] = curve[1] - curve[0], curve[-1] - curve[-2]
    return 1j * ahead / np.maximum(np.abs(ahead), 1e-9)


def ribbon(
    curve: Complex[np.ndarray, " n"], half_width: Float[np.ndarray, " n"]
) -> Complex[np.ndarray, " m"]:
    """The outline of a body along a curve, of the given half width at each point, ends rounded."""
    side = normals(curve) * half_width
    return np.concatenate(
        [curve + side, curve[-1] + side[-1] * _CAP, (curve - side)[::-1], curve[0] - side[0] * _CAP]
    )


@functools.lru_cache(maxsize=256)
def profile(
    points: int, positions: tuple[float, ...], half_widths: tuple[float, ...]
) -> Float[np.ndarray, " points"]:
    """Half widths along a body, smooth between those given at positions 0..1, tail to head.

    The array is shared between calls: do not write to it.
    """
    fine = np.interp(np.linspace(0, 1, 8 * (points - 1) + 1), positions, half_widths)
    reach = points // 2
    kernel = np.hanning(2 * reach + 3)[1:-1]
    padded = np.pad(fine, reach, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")[::8]


def fan(root: complex, length: float, angles: Iterable[float]) -> Complex[np.ndarray, " n"]:
    """Straight hairs from one root, as a single line that goes out and back along each."""
    hairs = ((root, root + cmath.rect(length, angle)) for angle in angles)
    return np.array([point for hair in hairs for point in hair])


def wander(dice: Dice, start: complex, heading: float, length: float, wildness: float):
    """A line of 16 points that keeps its direction but for slow random turns (radians a unit)."""
    turns = np.cumsum(np.cumsum(dice.many(16, -1, 1)) * wildness / 16)
    return start + np.cumsum(np.exp(1j * (heading + turns)) * (length / 16))
