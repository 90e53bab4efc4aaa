"""Images that are the same, or nearly, and so make an evaluation look better than it is when they
lie in two parts of a split. Reads the images of a data set once.

Candidates have the same 64-bit difference hash (of the signs of the steps between the pixels of a
9 x 8 reduction); they count when their reductions to 32 x 32 pixels and their sides hardly differ.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from jaxtyping import Integer, UInt8, UInt64

from plankton_jax.data.dataset import Dataset
from plankton_jax.data.geometry import decode_grey

LARGEST_DIFFERENCE = 4.0
"""Mean absolute difference of grey levels, of 255, between reductions of nearly equal images."""
_SIDE, _ROWS_AT_ONCE = 32, 256
_MOST_IN_BUCKET = 64  # of images with one hash, compared with each other


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
        """The pairs, by number, of which the images are in two parts; -1 is no part."""
        first, second = parts[self.pairs[:, 0]], parts[self.pairs[:, 1]]
        return np.flatnonzero((first != second) & (first >= 0) & (second >= 0))


def find_near_duplicates(
    dataset: Dataset, threads: int = 2, progress: Callable[[int, int], None] | None = None
) -> NearDuplicates:
    """Looks at every image of a data set.

    Args:
      threads: that decode side by side.
      progress: called with the number of images done and of all.
    """
    hashes = np.empty(len(dataset), np.uint64)
    starts = range(0, len(dataset), _ROWS_AT_ONCE)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start, found in zip(
            starts, pool.map(functools.partial(_hash_rows, dataset), starts), strict=True
        ):
            hashes[start : start + len(found)] = found
            if progress is not None:
                progress(min(start + _ROWS_AT_ONCE, len(dataset)), len(dataset))
    pairs, identical = [], []
    for rows in _buckets(hashes):
        for first, second, same in _compare(dataset, rows):
            pairs.append((first, second))
            identical.append(same)
    return NearDuplicates(
        np.array(pairs, np.int64).reshape(-1, 2), np.array(identical, bool).reshape(-1)
    )


def difference_hash(image: UInt8[np.ndarray, "h w"]) -> int:
    """Whether each of 8 x 8 pixels is darker than its right neighbour, as 64 bits."""
    small = cv2.resize(image, (9, 8), interpolation=cv2.INTER_AREA)
    bits = small[:, :-1] < small[:, 1:]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _hash_rows(dataset: Dataset, start: int) -> UInt64[np.ndarray, " r"]:
    rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(dataset)))
    files = dataset.read_images(rows)
    return np.array([difference_hash(decode_grey(file)) for file in files], np.uint64)


def _buckets(hashes: UInt64[np.ndarray, " n"]) -> Iterator[np.ndarray]:
    """The rows of every hash that several images have."""
    order = np.argsort(hashes, kind="stable")
    edges = np.flatnonzero(np.diff(hashes[order])) + 1
    for rows in np.split(order, edges):
        if len(rows) > 1:
            yield rows


def _compare(dataset: Dataset, rows: np.ndarray) -> Iterator[tuple[int, int, bool]]:
    """Pairs of rows with nearly equal images.

    In a large bucket each image is compared with those that follow it most closely alone: images
    that are nearly equal are chained together all the same.
    """
    images = [decode_grey(file) for file in dataset.read_images(rows)]
    small = np.stack(
        [cv2.resize(i, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for i in images]
    ).astype(np.float32)
    order = np.argsort(small.mean(axis=(1, 2)), kind="stable")
    for place, one in enumerate(order):
        for other in order[place + 1 : place + _MOST_IN_BUCKET]:
            sides = np.array([images[one].shape, images[other].shape], np.float64)
            if (np.abs(np.log(sides[0] / sides[1])) > 0.1).any():
                continue
            if np.abs(small[one] - small[other]).mean() <= LARGEST_DIFFERENCE:
                first, second = sorted((int(rows[one]), int(rows[other])))
                same = images[one].shape == images[other].shape
                yield first, second, same and np.array_equal(images[one], images[other])
