"""Operations on a finished grey square, each equal to torchvision's of the same name on a Pillow
image, and three of our own: blur, noise and cutout. NumPy and OpenCV; pure functions.

What turns out of the frame leaves pixels of the level `fill` behind, and what is moved is
interpolated bilinearly; torchvision does so when it is asked to. "Color" changes the saturation,
which a grey image has not; it stays in the list so that the others are drawn as often as there.
"""

import math

import cv2
import numpy as np
from jaxtyping import UInt8

# In the order of torchvision's RandAugment; then what only its AutoAugment has; then ours.
OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
    "Blur",
    "Noise",
    "Cutout",
)
NUMBER = {name: number for number, name in enumerate(OPERATIONS)}

_LEVELS = np.arange(256, dtype=np.float32)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def apply_operation(
    image: UInt8[np.ndarray, "s s"], name: str, amount: float, bits: int = 0, fill: int = 0
) -> UInt8[np.ndarray, "s s"]:
    """The image after one operation; a new array, or the image itself where nothing changes.

    Args:
      name: one of `OPERATIONS`.
      amount: of a shear the tangent, of a translation whole pixels, of a rotation degrees
        counter-clockwise; of Brightness, Contrast and Sharpness the factor less one; of Posterize
        the bits that stay; of Solarize the level from which on levels are inverted; of Blur the
        standard deviation in pixels; of Noise that of the levels as a share of the full range; of
        Cutout the side of the square that is filled, a share of the image's. The others have none.
      bits: 64 random ones, for Noise and Cutout.
      fill: grey level of what was not in the image.
    """
    if name in _MATRICES:
        return _moved(image, _MATRICES[name](amount, len(image)), fill)
    if name in _TABLES:
        return cv2.LUT(image, _TABLES[name](image, amount))
    if name in _FILTERS:
        return _FILTERS[name](image, amount)
    if name == "Noise":
        return _noise(image, amount, bits)
    return _cutout(image, amount, bits, fill) if name == "Cutout" else image


# Where a pixel comes from, as a matrix between coordinates with the origin at the upper left corner
# of the image (edges at whole numbers, y down).
def _shear_x(tangent: float, _: int) -> np.ndarray:
    return np.array([[1, tangent, 0], [0, 1, 0]])


def _shear_y(tangent: float, _: int) -> np.ndarray:
    return np.array([[1, 0, 0], [tangent, 1, 0]])


def _translate_x(pixels: float, _: int) -> np.ndarray:
    return np.array([[1, 0, -math.trunc(pixels)], [0, 1, 0]])


def _translate_y(pixels: float, _: int) -> np.ndarray:
    return np.array([[1, 0, 0], [0, 1, -math.trunc(pixels)]])


def _rotate(degrees: float, side: int) -> np.ndarray:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centre = side / 2
    return np.array(
        [
            [cos, -sin, centre * (1 - cos + sin)],
            [sin, cos, centre * (1 - sin - cos)],
        ]
    )


_MATRICES = {
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
}


def _moved(image: np.ndarray, matrix: np.ndarray, fill: int) -> np.ndarray:
    matrix = matrix.astype(np.float64)
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV's whole numbers are the centres
    return cv2.warpAffine(
        image,
        matrix,
        image.shape[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )


# What becomes of each of the 256 levels.
def _blended(degenerate: np.ndarray | float, amount: float) -> np.ndarray:
    """Pillow's blend of a level with a degenerate one, which cuts off what is behind the point."""
    levels = degenerate + np.float32(1 + amount) * (_LEVELS - degenerate)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _brightness(_: np.ndarray, amount: float) -> np.ndarray:
    return _blended(0.0, amount)


def _contrast(image: np.ndarray, amount: float) -> np.ndarray:
    return _blended(math.floor(cv2.mean(image)[0] + 0.5), amount)


def _posterize(_: np.ndarray, amount: float) -> np.ndarray:
    return (np.arange(256) & ~(2 ** (8 - int(amount)) - 1)).astype(np.uint8)


def _solarize(_: np.ndarray, amount: float) -> np.ndarray:
    return np.where(amount > _LEVELS, _LEVELS, 255 - _LEVELS).astype(np.uint8)


def _auto_contrast(image: np.ndarray, _: float) -> np.ndarray:
    low, high = cv2.minMaxLoc(image)[:2]
    if high <= low:
        return _LEVELS.astype(np.uint8)
    scale = 255 / (high - low)
    return np.clip(np.arange(256) * scale - low * scale, 0, 255).astype(np.uint8)


def _equalize(image: np.ndarray, _: float) -> np.ndarray:
    counts = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    filled = counts[counts > 0]
    step = (filled.sum() - filled[-1]) // 255
    if len(filled) <= 1 or not step:
        return _LEVELS.astype(np.uint8)
    before = np.concatenate(([0], counts.cumsum()[:-1]))
    return np.minimum((step // 2 + before) // step, 255).astype(np.uint8)


def _invert(_: np.ndarray, __: float) -> np.ndarray:
    return (255 - _LEVELS).astype(np.uint8)


_TABLES = {
    "Brightness": _brightness,
    "Contrast": _contrast,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
}


def _sharpness(image: np.ndarray, amount: float) -> np.ndarray:
    """Away from (or, below zero, towards) a smoothed image, whose outermost pixels are as they
    were."""
    smooth = cv2.filter2D(image, -1, _SMOOTH)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        smooth[edge] = image[edge]
    # Pillow cuts off what is behind the point; the conversion to bytes rounds.
    mixed = cv2.addWeighted(image, 1 + amount, smooth, -amount, -0.499, dtype=cv2.CV_32F)
    return cv2.convertScaleAbs(np.maximum(mixed, 0))


def _blur(image: np.ndarray, deviation: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), deviation) if deviation > 0 else image


_FILTERS = {"Sharpness": _sharpness, "Blur": _blur}


def _noise(image: np.ndarray, deviation: float, bits: int) -> np.ndarray:
    draw = np.random.Generator(np.random.SFC64(bits)).standard_normal
    noisy = image + draw(image.shape, np.float32) * np.float32(255 * deviation)
    return np.rint(noisy.clip(0, 255)).astype(np.uint8)


def _cutout(image: np.ndarray, share: float, bits: int, fill: int) -> np.ndarray:
    """A square about any pixel; what of it lies outside of the image does not count."""
    side = len(image)
    half = share * side / 2
    row, column = ((bits >> shift & 0xFFFFFFFF) / 2**32 * side for shift in (0, 32))
    lines, columns = (
        slice(max(round(middle - half), 0), max(round(middle + half), 0))
        for middle in (row, column)
    )
    cut = image.copy()
    cut[lines, columns] = fill
    return cut
