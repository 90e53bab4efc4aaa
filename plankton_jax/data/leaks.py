"""Images that are the same, or nearly, and so make an evaluation look better than it is when they
lie in two parts of a split. Reads the images of a data set once, and those of candidates again.

Candidates are alike in a 9 x 8 reduction: in 60 of the 64 bits that tell where it becomes clearly
brighter from one pixel to the next, and in its grey levels. They count when one laid over the
other, at the best of a few shifts, hardly differs: different organisms in the same pose are alike
in any reduction.

Bits that differ in four places agree wholly in one of five bands, so images are compared only
within the buckets of a band, from dark to bright. What is capped: an image is compared with the 512
that follow it in its bucket, until it has eight candidates. Of a thousand blank images not every
pair is found, but all of them are chained together.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Integer, UInt8

from plankton_jax.data.dataset import Dataset
from plankton_jax.data.geometry import decode_grey

SMALLEST_CORRELATION = 0.985
"""Of nearly equal images, laid over each other. Copies as JPEG files of quality 80, or without a
line and a column, reach it; other organisms in the same pose hardly do."""
_SMALL_CORRELATION, _SMALL_DIFFERENCE = 0.95, 4.0  # of 9 x 8 reductions; mean grey levels of 255
_LARGEST_STRETCH = 0.1  # of a side; difference of natural logarithms
_CLEARLY_BRIGHTER = 3  # grey levels; smaller steps are noise on an even ground
_BITS_THAT_DIFFER, _BANDS = 4, 5
_MOST_COMPARED, _MOST_KEPT = 512, 8
_LONGEST_SIDE = 128  # pixels, of images that are laid over each other
_ROWS_AT_ONCE, _PAIRS_AT_ONCE = 256, 1024


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """What was found.

    Attributes:
      pairs: int64 `p 2`, rows of images that are nearly equal, the smaller one first.
      identical: bool `p`, whether their grey levels are equal at all pixels.
    """

    pairs: Integer[np.ndarray, "p 2"]
    identical: np.ndarray

    def across(self, parts: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, " q"]:
        """The pairs, by number, of which the images are in two parts, or of two labels; -1 is
        none."""
        first, second = parts[self.pairs[:, 0]], parts[self.pairs[:, 1]]
        return np.flatnonzero((first != second) & (first >= 0) & (second >= 0))


def find_near_duplicates(
    dataset: Dataset, threads: int = 2, progress: Callable[[str, int, int], None] | None = None
) -> NearDuplicates:
    """Looks at every image of a data set.

    Args:
      threads: that decode and compare side by side.
      progress: called with what is done, images or pairs, how many of it, and of how many.

    Raises:
      UserError: a record is damaged.
    """
    progress = progress or (lambda what, done, total: None)
    small = np.empty((len(dataset), 8, 9), np.uint8)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        parts = list(_parts(np.arange(len(dataset)), _ROWS_AT_ONCE))
        read = pool.map(functools.partial(_read_small, dataset), parts)
        for rows, found in zip(parts, read, strict=True):
            small[rows] = found
            progress("images", int(rows[-1]) + 1, len(dataset))
        pairs = find_candidates(small, np.stack([dataset.height, dataset.width], axis=1))
        checked = [np.empty((2, 0), bool)]
        for some in pool.map(functools.partial(_check, dataset), _parts(pairs, _PAIRS_AT_ONCE)):
            checked.append(some)
            progress("pairs", sum(part.shape[1] for part in checked), len(pairs))
    near, identical = np.concatenate(checked, axis=1)
    return NearDuplicates(pairs[near], identical[near])


def find_candidates(
    small: UInt8[np.ndarray, "n 8 9"], sides: Integer[np.ndarray, "n 2"]
) -> Integer[np.ndarray, "p 2"]:
    """Pairs of images that may be nearly equal, int64, in order, the smaller row first.

    Args:
      small: reductions of all images.
      sides: their heights and widths, pixels.
    """
    bits = (np.diff(small.astype(np.int16), axis=2) > _CLEARLY_BRIGHTER).reshape(-1, 64)
    hashes = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    logarithms, means = np.log(sides), small.mean(axis=(1, 2))
    tests = (
        lambda a, b: np.bitwise_count(hashes[a] ^ hashes[b]) <= _BITS_THAT_DIFFER,
        lambda a, b: (np.abs(logarithms[a] - logarithms[b]) <= _LARGEST_STRETCH).all(axis=1),
        lambda a, b: _alike(small[a], small[b]),
    )
    kept = np.zeros(len(small), np.int64)
    found = [np.empty(0, np.int64)]
    for band in range(_BANDS):
        some = bits[:, band::_BANDS]  # spread over the image, of which a side may be even ground
        keys = some @ (1 << np.arange(some.shape[1]))
        order = np.lexsort((means, keys))
        ends = np.searchsorted(keys[order], keys[order], side="right")
        places = np.arange(len(order))
        for offset in range(1, _MOST_COMPARED + 1):
            places = places[(places + offset < ends[places]) & (kept[order[places]] < _MOST_KEPT)]
            brighter = means[order[places + offset]] - means[order[places]]
            places = places[brighter <= _SMALL_DIFFERENCE]
            one, other = order[places], order[places + offset]
            for test in tests:  # the cheap ones first
                passed = test(one, other)
                one, other = one[passed], other[passed]
            kept[one] += 1
            found.append(np.minimum(one, other) * len(small) + np.maximum(one, other))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(len(small), 1)), axis=1)


def _parts(values: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _read_small(dataset: Dataset, rows: np.ndarray) -> UInt8[np.ndarray, "r 8 9"]:
    images = [decode_grey(file) for file in dataset.read_images(rows)]
    return np.stack([_resized(image, 8, 9) for image in images])


def _alike(one: np.ndarray, other: np.ndarray) -> Bool[np.ndarray, " p"]:
    """Which pairs of reductions differ little, in levels and in where they are bright."""
    one, other = (levels.reshape(-1, 72).astype(np.float32) for levels in (one, other))
    near = np.abs(one - other).mean(axis=1) <= _SMALL_DIFFERENCE
    one, other = (levels - levels.mean(axis=1, keepdims=True) for levels in (one, other))
    powers = (one**2 + other**2).mean(axis=1)  # below 1: nothing but rounding
    return near & (2 * (one * other).mean(axis=1) >= _SMALL_CORRELATION * powers - 1)


def _check(dataset: Dataset, pairs: Integer[np.ndarray, "p 2"]) -> Bool[np.ndarray, "2 p"]:
    """Which pairs are nearly equal, and which are so at every pixel."""
    rows, places = np.unique(pairs, return_inverse=True)
    images, pixels = [], []
    for some in _parts(rows, _ROWS_AT_ONCE):
        for file in dataset.read_images(some):
            image = decode_grey(file)
            pixels.append((image.shape, hashlib.blake2b(image.tobytes(), digest_size=16).digest()))
            scale = min(1, _LONGEST_SIDE / max(image.shape))
            sides = [max(1, round(side * scale)) for side in image.shape]
            # Blurred a little: a JPEG file keeps no noise, a crop lies between the pixels.
            images.append(cv2.GaussianBlur(_resized(image, *sides), (3, 3), 0.7))
    checked = []
    for one, other in places.reshape(-1, 2).tolist():
        same = pixels[one] == pixels[other]
        checked.append((same or _nearly_equal(images[one], images[other]), same))
    return np.array(checked, bool).T


def _nearly_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether they correlate as they are, which finds crops, or stretched to the same sides."""
    height, width = np.minimum(one.shape, other.shape).tolist()
    stretched = [_resized(image, height, width) for image in (one, other)]
    down, right = (side // 32 + 1 if side > 8 else 0 for side in (height, width))
    inner = slice(down, height - down), slice(right, width - right)
    blank = [image[inner].std() < 1 for image in stretched]
    if any(blank):  # which correlate with anything
        return all(blank)
    return any(
        cv2.matchTemplate(a[inner], b, cv2.TM_CCOEFF_NORMED).max() >= SMALLEST_CORRELATION
        for a, b in ((one, other), stretched)
    )


def _resized(image: np.ndarray, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
