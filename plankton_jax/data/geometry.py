"""From the bytes of an image file to one grey square: decoding, augmentation, resize. NumPy and
OpenCV; pure functions, nothing is read or written.

Augmentation and resize are one affine warp of the original pixels, so an image is interpolated
once. The order is the report's: flips and rotation of the image at its own size (what turns out of
its frame is lost), then the resize to a square, which squashes the aspect ratio. A rotation may
come after the resize instead, and the image may be padded to a square instead of squashed.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float64, Integer, UInt8

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.counter import random_bits, stream_key, to_unit

# Output pixels may lie this many source pixels apart before several are averaged into one.
_LONGEST_STEP = 1.25
_MOST_SAMPLES = 16


def decode_grey(data: bytes) -> UInt8[np.ndarray, "h w"]:
    """Decodes an image file to 8-bit grey levels.

    Colour becomes luma (ITU-R BT.601: .299 R + .587 G + .114 B), transparency is laid over white,
    16-bit levels are divided by 257. An orientation tag of a camera is ignored.

    Raises:
      ValueError: the bytes are not an image, or its pixels are not 8- or 16-bit integers.
    """
    # JPEG has no alpha and no more than 8 bits, and its luma comes out of the file ready made.
    jpeg = data[:2] == b"\xff\xd8"
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION if jpeg else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"not a readable image ({error.err})") from error
    if image is None:
        raise ValueError("not a readable image")
    if image.ndim == 2 and image.dtype == np.uint8:
        return image
    return _to_grey(image)


def _to_grey(image: np.ndarray) -> np.ndarray:
    """8-bit grey levels of a decoded image of any channels and 8 or 16 bits."""
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels are {image.dtype}; 8- and 16-bit integers are read")
    image = image[:, :, None] if image.ndim == 2 else image
    full = np.iinfo(image.dtype).max
    levels = image.astype(np.float32) / full
    colours = levels[:, :, :3] if levels.shape[2] >= 3 else levels[:, :, :1]
    blue_green_red = np.array([0.114, 0.587, 0.299], np.float32)
    grey = colours @ blue_green_red if colours.shape[2] == 3 else colours[:, :, 0]
    if levels.shape[2] in (2, 4):
        alpha = levels[:, :, -1]
        grey = grey * alpha + (1 - alpha)
    return np.rint(grey * 255).astype(np.uint8)


class Draw(NamedTuple):
    """What chance decided for one image. The default changes nothing."""

    flip_horizontal: bool = False
    flip_vertical: bool = False
    angle: float = 0.0  # degrees, counter-clockwise
    after_resize: bool = False  # whether the angle turns the square instead of the image
    quarter_turns: int = 0  # counter-clockwise, of the finished square
    scale: float = 1.0
    shift_right: float = 0.0  # share of the side
    shift_down: float = 0.0
    brightness: float = 0.0  # share of the full range
    contrast: float = 1.0

    @property
    def is_symmetry(self) -> bool:
        """Whether pixels only change places after the resize."""
        return self.angle == 0 and self.scale == 1 and self.shift_right == self.shift_down == 0


def draw_augmentations(
    augmentation: AugmentationConfig, seed: int, positions: Integer[np.ndarray, " b"]
) -> list[Draw]:
    """What happens to the images at these positions of the stream: a function of seed and position
    alone, so the same on any host, in any process, after any interruption."""
    key = stream_key(seed, "augmentation")
    uniform = to_unit(random_bits(key, np.asarray(positions, np.uint64), 9))
    signed = 2 * uniform - 1
    a = augmentation
    columns = (
        uniform[:, 0] < a.horizontal_flip,
        uniform[:, 1] < a.vertical_flip,
        uniform[:, 2] * a.rotation_degrees,
        np.full(len(uniform), a.rotation_frame == "square"),
        (uniform[:, 3] * 4 * a.quarter_turns).astype(np.int64),
        np.exp(signed[:, 4] * a.scale_jitter),
        signed[:, 5] * a.shift,
        signed[:, 6] * a.shift,
        signed[:, 7] * a.brightness,
        1 + signed[:, 8] * a.contrast,
    )
    return [Draw(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def render(
    image: UInt8[np.ndarray, "h w"],
    size: int,
    draw: Draw,
    out: UInt8[np.ndarray, "s s"],
    pad: bool = False,
) -> None:
    """Writes the augmented image, `size` x `size`, into `out`.

    What lies outside the image has the median grey level of its own border; `pad` lets that fill up
    the shorter axis instead of stretching it.
    """
    if draw.is_symmetry:
        _resize_and_turn(pad_square(image) if pad else image, size, draw, out)
    else:
        _warp(image, size, draw, out, pad)
    if draw.brightness != 0 or draw.contrast != 1:
        mean = cv2.mean(image)[0]
        levels = (np.arange(256) - mean) * draw.contrast + mean + 255 * draw.brightness
        cv2.LUT(out, np.rint(np.clip(levels, 0, 255)).astype(np.uint8), dst=out)


def resize_square(image: UInt8[np.ndarray, "h w"], size: int) -> UInt8[np.ndarray, "s s"]:
    """Resize to `size` x `size`: by area along an axis that shrinks, bilinear along one that grows.

    OpenCV averages areas only where both axes shrink, hence the two steps.
    """
    height, width = image.shape
    shrunk = (min(width, size), min(height, size))
    if shrunk != (width, height):
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return image


def pad_square(image: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "s s"]:
    """The image in the middle of a square of its longer side; an odd line is added at the end."""
    side, (top, left) = max(image.shape), _margins(image.shape)
    if image.shape == (side, side):
        return image
    square = np.full((side, side), border_median(image), np.uint8)
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    return square


def _margins(shape: tuple[int, ...]) -> tuple[int, int]:
    """Lines above and columns left of an image in the middle of a square."""
    side = max(shape)
    return (side - shape[0]) // 2, (side - shape[1]) // 2


def border_median(image: UInt8[np.ndarray, "h w"]) -> int:
    """The median grey level of the outermost pixels, the upper one of two."""
    border = np.concatenate((image[0], image[-1], image[1:-1, 0], image[1:-1, -1]))
    middle = border.size // 2
    border.partition(middle)
    return int(border[middle])


def _resize_and_turn(image: np.ndarray, size: int, draw: Draw, out: np.ndarray) -> None:
    """The case without rotation, scale or shift: exact flips and quarter turns of the resize."""
    square = resize_square(image, size)
    square = square[:, ::-1] if draw.flip_horizontal else square
    square = square[::-1] if draw.flip_vertical else square
    out[:] = np.rot90(square, draw.quarter_turns)


def _warp(image: np.ndarray, size: int, draw: Draw, out: np.ndarray, pad: bool) -> None:
    """The general case: one bilinear warp, between area averages where the image shrinks.

    An image more than twice as large as needed along both axes is first shrunk, by the same whole
    factor along both, which rotation does not notice. What is left to shrink, along one axis of
    the square when it squashes the aspect ratio, is sampled finely and averaged afterwards.
    """
    fill = border_median(image)
    matrix = source_from_square(image.shape, draw, pad)
    steps = _steps(matrix, size)
    if min(steps) >= 2:
        image, matrix = _shrink(image, matrix, int(min(steps)))
        steps = _steps(matrix, size)
    samples = [min(max(math.ceil(step / _LONGEST_STEP), 1), _MOST_SAMPLES) for step in steps]
    columns, lines = size * samples[0], size * samples[1]
    # OpenCV's kernel for floats is a fifth faster than that for bytes, conversions included.
    warped = cv2.warpAffine(
        image.astype(np.float32),
        _between_pixel_centres(matrix, columns, lines),
        (columns, lines),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
    if samples != [1, 1]:
        warped = cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)
    cv2.convertScaleAbs(warped, dst=out)  # rounds; nothing here is negative


def source_from_square(
    shape: tuple[int, ...], draw: Draw, pad: bool = False
) -> tuple[float, float, float, float, float, float]:
    """The map from the unit square (centre 0, y down) to source pixels (edges at whole numbers).

    Returns (xx, xy, x0, yx, yy, y0): x = xx u + xy v + x0 and y = yx u + yy v + y0, for u, v from
    -.5 to .5. Read from the square back to the source: shift, quarter turns, scale, stretch to the
    image's frame, rotation (or rotation, then stretch), flips.
    """
    top, left = _margins(shape) if pad else (0, 0)
    height, width = (max(shape),) * 2 if pad else shape
    turn_cos, turn_sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[draw.quarter_turns]
    angle = math.radians(draw.angle)
    cos, sin = math.cos(angle) / draw.scale, math.sin(angle) / draw.scale
    across = -1.0 if draw.flip_horizontal else 1.0
    down = -1.0 if draw.flip_vertical else 1.0
    # Of the square after its quarter turns are undone: u to x, v to x, u to y, v to y.
    ux, vy = across * cos * width, down * cos * height
    if draw.after_resize:
        vx, uy = -across * sin * width, down * sin * height
    else:
        vx, uy = -across * sin * height, down * sin * width
    xx, xy = ux * turn_cos + vx * turn_sin, vx * turn_cos - ux * turn_sin
    yx, yy = uy * turn_cos + vy * turn_sin, vy * turn_cos - uy * turn_sin
    right, below = draw.shift_right, draw.shift_down
    x0 = width / 2 - left - xx * right - xy * below
    y0 = height / 2 - top - yx * right - yy * below
    return xx, xy, x0, yx, yy, y0


def _steps(matrix: tuple[float, ...], size: int) -> tuple[float, float]:
    """How many source pixels lie between neighbours along the square's lines and columns."""
    xx, xy, _, yx, yy, _ = matrix
    return math.hypot(xx, yx) / size, math.hypot(xy, yy) / size


def _shrink(
    image: np.ndarray, matrix: tuple[float, ...], factor: int
) -> tuple[np.ndarray, tuple[float, ...]]:
    """The image area-averaged by `factor`, and the matrix onto its pixels."""
    height, width = image.shape
    size = (max(round(width / factor), 1), max(round(height / factor), 1))
    x_ratio, y_ratio = size[0] / width, size[1] / height
    ratios = (x_ratio,) * 3 + (y_ratio,) * 3
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return shrunk, tuple(value * ratio for value, ratio in zip(matrix, ratios, strict=True))


def _between_pixel_centres(
    matrix: tuple[float, ...], columns: int, lines: int
) -> Float64[np.ndarray, "2 3"]:
    """The same map between pixel numbers, whose centres are at whole numbers in OpenCV."""
    xx, xy, x0, yx, yy, y0 = matrix
    left, top = 0.5 / columns - 0.5, 0.5 / lines - 0.5
    return np.array(
        [
            [xx / columns, xy / lines, x0 + xx * left + xy * top - 0.5],
            [yx / columns, yy / lines, y0 + yx * left + yy * top - 0.5],
        ]
    )
