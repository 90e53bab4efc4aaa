"""From the bytes of an image file to one grey square: decoding, augmentation, resize. NumPy and
OpenCV; pure functions, nothing is read or written.

Augmentation and resize are one affine warp of the original pixels, so an image is interpolated
once. The order is the report's: flips and rotation of the image at its own size (what turns out of
its frame is lost), then the resize to a square, which squashes the aspect ratio. A rotation may
come after the resize instead, and the image may be padded to a square instead of squashed. Recipes
of operations come last, on the square, as in the report.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float64, Integer, UInt8

from plankton_jax.data.draws import Draws
from plankton_jax.data.operations import OPERATIONS, apply_operation

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


class Geometry(NamedTuple):
    """How images are framed; the fields are those of `config.data`.

    Attributes:
      kind: how an image becomes a square: squash, pad or preserve_size.
      crop_bottom_px: lines that are cut off at the bottom first.
      pixel_size_um: side of a pixel in micrometres; 0 where it is not known.
    """

    kind: str = "squash"
    crop_bottom_px: int = 0
    pixel_size_um: float = 0.0


def render(
    images: Sequence[UInt8[np.ndarray, "h w"]],
    size: int,
    draws: Draws,
    out: Sequence[UInt8[np.ndarray, "s s"]],
    geometry: str = "squash",
) -> None:
    """Writes the augmented images, `size` x `size`, into `out`.

    What lies outside an image has the median grey level of its own border. `geometry` is
    `config.data.geometry`: "pad" lets that fill up the shorter axis instead of stretching it, and
    "preserve_size" both, where an image is smaller than the square.
    """
    resized = draws.are_symmetries()
    for place in np.flatnonzero(resized).tolist():
        image = images[place]
        if geometry != "squash":
            image = pad_square(image, size if geometry == "preserve_size" else 0)
        _resize_and_turn(image, size, draws, place, out[place])
    turned = np.flatnonzero(~resized)
    if len(turned):
        sources = [images[place] for place in turned.tolist()]
        _warp(
            sources, size, draws.take(turned), [out[place] for place in turned.tolist()], geometry
        )
    for place in np.flatnonzero((draws.brightness != 0) | (draws.contrast != 1)).tolist():
        mean = cv2.mean(images[place])[0]
        levels = (np.arange(256) - mean) * draws.contrast[place] + mean
        levels = np.clip(levels + 255 * draws.brightness[place], 0, 255)
        cv2.LUT(out[place], np.rint(levels).astype(np.uint8), dst=out[place])
    if draws.operations.any():  # 0 is none
        _operate(images, draws, out)


def _operate(images: Sequence[np.ndarray], draws: Draws, out: Sequence[np.ndarray]) -> None:
    fills = border_medians(images).tolist()
    columns = zip(
        out,
        draws.operations.tolist(),
        draws.amounts.tolist(),
        draws.bits.tolist(),
        fills,
        strict=True,
    )
    for target, numbers, amounts, bits, fill in columns:
        square = target
        for number, amount, random in zip(numbers, amounts, bits, strict=True):
            square = apply_operation(square, OPERATIONS[number], amount, random, fill)
        target[:] = square


def without_bottom(image: UInt8[np.ndarray, "h w"], lines: int) -> UInt8[np.ndarray, "h2 w"]:
    """The image without its last lines, which hold a scale bar; one that is no higher stays."""
    return image[:-lines] if 0 < lines < len(image) else image


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


def pad_square(image: UInt8[np.ndarray, "h w"], least: int = 0) -> UInt8[np.ndarray, "s s"]:
    """The image in the middle of a square of its longer side, or of `least` if that is more; an odd
    line is added at the end."""
    height, width = image.shape
    side = max(height, width, least)
    if height == width == side:
        return image
    square = np.full((side, side), border_medians([image])[0], np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def border_medians(images: Sequence[UInt8[np.ndarray, "h w"]]) -> Integer[np.ndarray, " b"]:
    """The median grey level of the outermost pixels of each image, the upper one of two."""
    edges = [edge for i in images for edge in (i[0], i[-1], i[1:-1, 0], i[1:-1, -1])]
    lengths = np.array([len(edge) for edge in edges]).reshape(-1, 4).sum(axis=1)
    owners = np.repeat(np.arange(len(images)) * 256, lengths)
    counts = np.bincount(owners + np.concatenate(edges), minlength=256 * len(images))
    up_to_level = counts.reshape(-1, 256).cumsum(axis=1)
    return (up_to_level <= lengths[:, None] // 2).sum(axis=1)


def _resize_and_turn(
    image: np.ndarray, size: int, draws: Draws, place: int, out: np.ndarray
) -> None:
    """The case without rotation, scale or shift: exact flips and quarter turns of the resize."""
    square = resize_square(image, size)
    square = square[:, ::-1] if draws.flip_horizontal[place] else square
    square = square[::-1] if draws.flip_vertical[place] else square
    out[:] = np.rot90(square, draws.quarter_turns[place])


def _warp(
    images: Sequence[np.ndarray], size: int, draws: Draws, out: Sequence[np.ndarray], geometry: str
) -> None:
    """The general case: one bilinear warp, between area averages where the image shrinks.

    An image more than twice as large as needed along both axes is first shrunk, by the same whole
    factor along both, which rotation does not notice. What is left to shrink, along one axis of
    the square when it squashes the aspect ratio, is sampled finely and averaged afterwards.
    """
    # All that numbers decide is worked out for all images at once: Python is slow, and a thread
    # that is in it holds up the others.
    shapes = np.array([image.shape for image in images])
    matrices = source_from_square(shapes, draws, _frames(shapes, size, geometry))
    factors = np.maximum(_steps(matrices, size).min(axis=1).astype(np.int64), 1)[:, None]
    shrunk = np.maximum(np.rint(shapes / factors).astype(np.int64), 1)
    matrices *= (shrunk / shapes)[:, ::-1, None]
    samples = np.ceil(_steps(matrices, size) / _LONGEST_STEP).clip(1, _MOST_SAMPLES)
    grids = size * samples.astype(np.int64)
    matrices = _between_pixel_centres(matrices, grids)
    fills = border_medians(images)
    for image, (height, width), grid, matrix, fill, target in zip(
        images, shrunk.tolist(), grids.tolist(), matrices, fills.tolist(), out, strict=True
    ):
        if image.shape != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        # OpenCV's kernel for floats is a fifth faster than that for bytes, conversions included.
        warped = cv2.warpAffine(
            image.astype(np.float32),
            matrix,
            grid,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=fill,
        )
        if grid != [size, size]:
            warped = cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)
        cv2.convertScaleAbs(warped, dst=target)  # rounds; nothing here is negative


def source_from_square(
    shapes: Integer[np.ndarray, "b 2"],
    draws: Draws,
    frames: Integer[np.ndarray, "b 2"] | None = None,
) -> Float64[np.ndarray, "b 2 3"]:
    """The maps from the unit square (centre 0, y down) to source pixels (edges at whole numbers).

    Of each image ((xx, xy, x0), (yx, yy, y0)): x = xx u + xy v + x0 and y = yx u + yy v + y0, for
    u, v from -.5 to .5. Read from the square back to the source: shift, quarter turns, scale,
    stretch to the image's frame, rotation (or rotation, then stretch), flips.

    Args:
      shapes: height and width of the images.
      draws: what chance decided.
      frames: height and width of what becomes the square, with the image in its middle; None: the
        image itself.
    """
    frames = shapes if frames is None else frames
    top, left = ((frames - shapes) // 2).T
    height, width = frames.T
    turn_cos = np.array([1, 0, -1, 0])[draws.quarter_turns]
    turn_sin = np.array([0, 1, 0, -1])[draws.quarter_turns]
    angle = np.radians(draws.angle)
    cos, sin = np.cos(angle) / draws.scale, np.sin(angle) / draws.scale
    across = np.where(draws.flip_horizontal, -1.0, 1.0)
    down = np.where(draws.flip_vertical, -1.0, 1.0)
    # Of the square after its quarter turns are undone: u to x, v to x, u to y, v to y.
    ux, vy = across * cos * width, down * cos * height
    vx = -across * sin * np.where(draws.after_resize, width, height)
    uy = down * sin * np.where(draws.after_resize, height, width)
    xx, xy = ux * turn_cos + vx * turn_sin, vx * turn_cos - ux * turn_sin
    yx, yy = uy * turn_cos + vy * turn_sin, vy * turn_cos - uy * turn_sin
    right, below = draws.shift_right, draws.shift_down
    x0 = width / 2 - left - xx * right - xy * below
    y0 = height / 2 - top - yx * right - yy * below
    return np.stack((xx, xy, x0, yx, yy, y0), axis=1).reshape(-1, 2, 3)


def _frames(
    shapes: Integer[np.ndarray, "b 2"], size: int, geometry: str
) -> Integer[np.ndarray, "b 2"]:
    """Height and width of what becomes the square."""
    if geometry == "squash":
        return shapes
    sides = np.maximum(shapes.max(axis=1), size if geometry == "preserve_size" else 0)
    return np.repeat(sides[:, None], 2, axis=1)


def _steps(matrices: Float64[np.ndarray, "b 2 3"], size: int) -> Float64[np.ndarray, "b 2"]:
    """How many source pixels lie between neighbours along the square's lines and columns."""
    return np.hypot(matrices[:, 0, :2], matrices[:, 1, :2]) / size


def _between_pixel_centres(
    matrices: Float64[np.ndarray, "b 2 3"], grids: Integer[np.ndarray, "b 2"]
) -> Float64[np.ndarray, "b 2 3"]:
    """The same maps between pixel numbers, whose centres are at whole numbers in OpenCV.

    Args:
      grids: columns and lines that the square has.
    """
    linear, offset = matrices[:, :, :2], matrices[:, :, 2]
    first = 0.5 / grids - 0.5
    offset = offset + (linear * first[:, None]).sum(axis=2) - 0.5
    return np.concatenate((linear / grids[:, None], offset[:, :, None]), axis=2)
