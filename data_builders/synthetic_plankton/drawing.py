"""Draws one image: a sketch, posed at random, put to pixels, blurred and photographed.

`draw(index, seed)` is a pure function; nothing is read or written.
"""

import cmath
import functools

import cv2
import numpy as np
from jaxtyping import Complex128, Float32, UInt8

from data_builders.synthetic_plankton.classes import CLASSES, leaf_of
from data_builders.synthetic_plankton.dice import Dice, generator
from data_builders.synthetic_plankton.shapes import CLEAR, Sketch

SMALLEST, LARGEST = 24.0, 160.0  # longest side of what is drawn, in pixels
_OVERSAMPLING = 2
_SUBPIXEL_BITS = 4
_TILE = 512
_TILE_STREAM = (1 << 64) - 2  # an index no image has
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)


def draw(index: int, seed: int) -> tuple[int, UInt8[np.ndarray, "h w"]]:
    """Draws image `index` of the data set with the given seed.

    Returns:
      The leaf, and a grey image of about 30 to 200 pixels a side.
    """
    leaf = leaf_of(index, seed)
    source = generator(seed, index)
    dice = Dice(source)
    sketch = CLASSES[leaf].sketch(dice)
    length = CLASSES[leaf].length * float(np.exp(0.3 * source.standard_normal()))
    length = min(max(length, SMALLEST), LARGEST)
    ink = _expose(sketch, length, dice)
    return leaf, _photograph(ink, sketch, dice, seed)


def encode(image: UInt8[np.ndarray, "h w"]) -> bytes:
    """The image as a PNG file whose pixels are stored as they are.

    Sensor noise does not compress: deflating saves a quarter of the bytes, takes six times as long
    here and makes every later decoding four times slower.
    """
    return cv2.imencode(".png", image, _PNG)[1].tobytes()


def _pose(
    sketch: Sketch, length: float, dice: Dice
) -> tuple[Complex128[np.ndarray, "n"], complex, float]:
    """Bends, turns and scales the sketch to oversampled pixels.

    Returns:
      All points, their bounding box beginning at 0; its far corner; the scale.
    """
    points = np.concatenate([stroke.points for stroke in sketch.strokes])
    if abs(sketch.bend) > 1e-3:
        along = np.exp(1j * sketch.bend * np.real(points))
        points = (along - 1) / (1j * sketch.bend) + 1j * np.imag(points) * along
    if dice.chance(0.5):
        points = points.conj()
    points = points * cmath.rect(1, dice.between(0, 2 * np.pi))
    across, down = np.real(points), np.imag(points)
    low = complex(across.min(), down.min())
    far = complex(across.max(), down.max()) - low
    scale = _OVERSAMPLING * length / max(far.real, far.imag)
    return (points - low) * scale, far * scale, scale


def _expose(sketch: Sketch, length: float, dice: Dice) -> UInt8[np.ndarray, "h w"]:
    """Puts the sketch to pixels: how much light each one loses, `CLEAR` where there is water."""
    points, far, scale = _pose(sketch, length, dice)
    blur = int(sketch.defocus * _OVERSAMPLING * length) | 1
    margin = _OVERSAMPLING * (3 + length * dice.between(0.02, 0.12)) + blur
    width, height = (int((side + 2 * margin) / _OVERSAMPLING) for side in (far.real, far.imag))
    canvas = np.full((height * _OVERSAMPLING, width * _OVERSAMPLING), int(CLEAR), np.uint8)
    pixels = (
        ((points + complex(margin, margin)) * (1 << _SUBPIXEL_BITS)).view(np.float64).reshape(-1, 2)
    )
    _paint(canvas, sketch, np.rint(pixels).astype(np.int32), scale)
    _add_specks(canvas, dice)
    return _develop(canvas, (width, height), blur, dice)


def _paint(canvas: np.ndarray, sketch: Sketch, pixels: np.ndarray, scale: float) -> None:
    """Paints the strokes in order. Thick lines skip anti-aliasing: oversampling is cheaper.

    OpenCV saturates ink that leaves 0..255.
    """
    start = 0
    for stroke in sketch.strokes:
        outline = [pixels[start : start + len(stroke.points)]]
        start += len(stroke.points)
        if stroke.width == 0.0:
            cv2.fillPoly(canvas, outline, stroke.ink, cv2.LINE_8, _SUBPIXEL_BITS)
            continue
        thickness = max(1, round(stroke.width * scale))
        kind = cv2.LINE_AA if thickness == 1 else cv2.LINE_8
        cv2.polylines(canvas, outline, stroke.closed, stroke.ink, thickness, kind, _SUBPIXEL_BITS)


def _add_specks(canvas: np.ndarray, dice: Dice) -> None:
    """A few grains that float by."""
    height, width = canvas.shape
    for _ in range(dice.count(0, 4)):
        centre = int(dice.between(0, width)), int(dice.between(0, height))
        cv2.circle(canvas, centre, dice.count(1, 3), dice.between(60, 170), -1)


def _develop(canvas: np.ndarray, size: tuple[int, int], blur: int, dice: Dice) -> np.ndarray:
    """Blurs as the lens does and brings the canvas down to its final size."""
    focus = 3 if dice.chance(0.6) else 5
    canvas = cv2.blur(canvas, (focus, focus))
    if blur >= 3:
        canvas = cv2.blur(cv2.blur(canvas, (blur, blur)), (blur, blur))
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)


@functools.lru_cache(maxsize=4)
def _tiles(seed: int) -> tuple[Float32[np.ndarray, "t t"], Float32[np.ndarray, "t t"]]:
    """Two squares of noise, mean 0 and variance 1: fine as a sensor's, coarse as tissue."""
    source = generator(seed, _TILE_STREAM)
    fine = source.standard_normal((_TILE, _TILE), dtype=np.float32)
    rough = source.standard_normal((_TILE, _TILE), dtype=np.float32)
    tissue, patches = cv2.GaussianBlur(rough, (0, 0), 1), cv2.GaussianBlur(rough, (0, 0), 3)
    coarse = tissue / tissue.std() + patches / patches.std()
    return fine, coarse / coarse.std()


def _window(tile: np.ndarray, shape: tuple[int, ...], dice: Dice) -> np.ndarray:
    """A random part of a tile."""
    top = int(dice.between(0, _TILE - shape[0]))
    left = int(dice.between(0, _TILE - shape[1]))
    return tile[top : top + shape[0], left : left + shape[1]]


def _photograph(ink: np.ndarray, sketch: Sketch, dice: Dice, seed: int) -> np.ndarray:
    """Light through the ink onto a sensor: uneven bright background, shot noise, 8 bits."""
    fine, coarse = _tiles(seed)
    background, contrast = dice.between(195, 245), dice.between(0.7, 1.0) * sketch.density
    passed = (ink.astype(np.float32) - np.float32(CLEAR)) * np.float32(-contrast / 240)
    passed *= np.float32(sketch.texture * 0.6) * _window(coarse, ink.shape, dice) + np.float32(1)
    passed += np.float32(1)
    corners = background + dice.many(4, -7, 7).astype(np.float32).reshape(2, 2)
    light = cv2.resize(corners, ink.shape[::-1], interpolation=cv2.INTER_LINEAR)
    light *= passed
    noise, strength = _window(fine, ink.shape, dice), dice.between(1.5, 6.0)
    return cv2.addWeighted(light, 1.0, noise, strength, 0.0, dtype=cv2.CV_8U)
