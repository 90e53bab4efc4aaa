"""In what order training images are drawn: pure functions of (seed, position). Touches nothing.

A sampler maps any array of positions in the endless stream of draws to rows of the data set's
index. No draw depends on another, so a run resumes at any position, hosts that take every k-th
position draw together what one host would, and a draw costs the same at any data set size.
"""

import functools
import math

import numpy as np
from jaxtyping import Float64, Integer, UInt64

from plankton_jax.data.counter import mix64, random_bits, stream_key, to_unit
from plankton_jax.errors import UserError

# Moves of the Feistel network; a grid of few cells mixes with each move less.
_ROUNDS, _ROUNDS_OF_SMALL, _SMALL = 8, 16, 256


class UniformSampler:
    """Every row once an epoch, in an order that each epoch draws anew.

    Position p is draw p % n of epoch p // n. The order is a keyed pseudo-random permutation
    rather than a shuffled array: an alternating Feistel network on a grid of a x b >= n cells
    (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), walked on from the
    few cells outside. So nothing is stored beside `rows`.

    Raises:
      UserError: there are no rows.
    """

    def __init__(self, rows: Integer[np.ndarray, " n"], seed: int):
        _require_rows(rows)
        self.rows = _compact(rows)
        self.seed = int(seed)

    def __call__(self, positions: Integer[np.ndarray, " p"]) -> Integer[np.ndarray, " p"]:
        """Rows drawn at these positions, int64."""
        epochs, draws = np.divmod(np.asarray(positions, np.int64), len(self.rows))
        keys = mix64(epochs.astype(np.uint64) ^ stream_key(self.seed, "uniform sampler"))
        return self.rows[permute(draws.astype(np.uint64), keys, len(self.rows))].astype(np.int64)


class WeightedSampler:
    """Draws with replacement, a row of class c with weight 1 / n_c^power among `rows`.

    Power 1 makes every class that is present equally likely (the report's weighted random
    sampler), power 0 every row. A draw picks the class by its cumulative probability, then a
    member: uniformly, or by weights of the rows among those of the class.

    Raises:
      UserError: there are no rows, or a class whose rows weigh nothing.
    """

    def __init__(
        self,
        rows: Integer[np.ndarray, " n"],
        leaf: Integer[np.ndarray, " all"],
        num_leaves: int,
        seed: int,
        power: float = 1.0,
        weights: Float64[np.ndarray, " n"] | None = None,
    ):
        """`leaf` holds the class of every row of the index, not of `rows` alone; `weights` are
        those of `rows`."""
        order, self.counts = _by_class(rows, leaf, num_leaves)
        self.rows = _compact(rows)[order]
        self.starts = np.cumsum(self.counts) - self.counts
        # In logarithms relative to the largest class: no power overflows.
        logarithms = (1 - power) * np.log(self.counts / self.counts.max())
        shares = np.exp(logarithms - logarithms.max())
        self.cumulative = np.cumsum(shares) / shares.sum()
        self.seed = int(seed)
        self.within: Float64[np.ndarray, " n"] | None = None
        if weights is not None:
            self.within = np.cumsum(weights[order])
            ends = self.within[self.starts + self.counts - 1]
            self.before = np.concatenate(([0.0], ends[:-1]))
            self.masses = ends - self.before
            if (self.masses <= 0).any():
                weightless = np.unique(leaf[rows])[self.masses <= 0].tolist()
                raise UserError(
                    "config.sampling.weights: all training images of the classes of number "
                    f"{', '.join(map(str, weightless[:10]))} ({len(weightless)} classes) weigh 0; "
                    "allowed: a weight above 0 for one image of each class at least."
                )

    def __call__(self, positions: Integer[np.ndarray, " p"]) -> Integer[np.ndarray, " p"]:
        """Rows drawn at these positions, int64."""
        key = stream_key(self.seed, "weighted sampler")
        uniform = to_unit(random_bits(key, np.asarray(positions, np.uint64), 2))
        drawn = np.searchsorted(self.cumulative[:-1], uniform[:, 0], side="right")
        starts, counts = self.starts[drawn], self.counts[drawn]
        if self.within is None:
            places = starts + (uniform[:, 1] * counts).astype(np.int64)
        else:
            wanted = self.before[drawn] + uniform[:, 1] * self.masses[drawn]
            found = np.searchsorted(self.within, wanted, side="right")
            places = np.clip(found, starts, starts + counts - 1)  # rounding may lead beyond
        return self.rows[places].astype(np.int64)


class RepeatFactorSampler:
    """Every row of class c about r_c = max(1, sqrt(threshold / f_c)) times an epoch, f_c being the
    class's share of `rows` (Gupta, Dollar and Girshick, "LVIS", CVPR 2019).

    A row comes floor(r_c) times; those of a class that come once more are drawn anew each epoch,
    as many as the fraction asks for. The order within an epoch is that of `UniformSampler`.

    Raises:
      UserError: there are no rows.
    """

    def __init__(
        self,
        rows: Integer[np.ndarray, " n"],
        leaf: Integer[np.ndarray, " all"],
        num_leaves: int,
        seed: int,
        threshold: float = 1e-3,
    ):
        """`leaf` holds the class of every row of the index, not of `rows` alone."""
        order, self.counts = _by_class(rows, leaf, num_leaves)
        self.rows = _compact(rows)[order]
        self.starts = np.cumsum(self.counts) - self.counts
        factors = np.maximum(1.0, np.sqrt(threshold * len(rows) / self.counts))
        self.whole = self.counts * factors.astype(np.int64)
        slots = np.maximum(np.rint(self.counts * factors).astype(np.int64), self.whole)
        self.ends = np.cumsum(slots)
        self.seed = int(seed)

    def __len__(self) -> int:
        """Draws of an epoch."""
        return int(self.ends[-1])

    def __call__(self, positions: Integer[np.ndarray, " p"]) -> Integer[np.ndarray, " p"]:
        """Rows drawn at these positions, int64."""
        epochs, draws = np.divmod(np.asarray(positions, np.int64), len(self))
        keys = mix64(epochs.astype(np.uint64) ^ stream_key(self.seed, "repeat factor sampler"))
        slots = permute(draws.astype(np.uint64), keys, len(self))
        drawn = np.searchsorted(self.ends, slots, side="right")
        slots -= np.concatenate(([0], self.ends[:-1]))[drawn]
        members = slots % self.counts[drawn]
        for number in np.unique(drawn[slots >= self.whole[drawn]]).tolist():
            chosen = np.flatnonzero((drawn == number) & (slots >= self.whole[number]))
            once_more = (slots[chosen] - self.whole[number]).astype(np.uint64)
            own = mix64(keys[chosen] ^ np.uint64(number))
            members[chosen] = permute(once_more, own, int(self.counts[number]))
        return self.rows[self.starts[drawn] + members].astype(np.int64)


def capped(
    hashes: UInt64[np.ndarray, " n"], leaf: Integer[np.ndarray, " n"], cap: int
) -> Integer[np.ndarray, " m"]:
    """Which examples are left, ascending, when a class keeps `cap` of them, by the least hash."""
    order = np.lexsort((hashes, leaf))
    classes = leaf[order]
    first = np.flatnonzero(np.diff(classes, prepend=-1))
    rank = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    return np.sort(order[rank < cap])


def permute(
    indices: Integer[np.ndarray, " p"], keys: Integer[np.ndarray, " p"], size: int
) -> Integer[np.ndarray, " p"]:
    """Where the permutation of 0..size-1 that belongs to each key sends each index, int64."""
    lines, columns = _grid(size)
    images = _feistel(indices, keys, lines, columns)
    outside = np.flatnonzero(images >= size)
    while len(outside):
        images[outside] = _feistel(images[outside], keys[outside], lines, columns)
        outside = outside[images[outside] >= size]
    return images.astype(np.int64)


@functools.lru_cache
def _grid(size: int) -> tuple[int, int]:
    """Lines and columns of an almost square grid with hardly more cells than `size`.

    Every cell too many may cost a batch another walk over the grid.
    """
    start = math.isqrt(size - 1) + 1
    # It stays near a square: moves along few lines would mix less.
    widths = range(start, start + 1 + min(start // 8, 63))
    columns = min(widths, key=lambda width: -size % width)
    return -(-size // columns), columns


def _feistel(indices: np.ndarray, keys: np.ndarray, lines: int, columns: int) -> np.ndarray:
    """A keyed permutation of 0..lines*columns-1, as moves along lines and columns of a grid."""
    line, column = np.divmod(indices.astype(np.uint64), np.uint64(columns))
    rounds = _ROUNDS_OF_SMALL if lines * columns <= _SMALL else _ROUNDS
    for number in range(0, rounds, 2):
        line = (line + _move(column, keys, number, lines)) % np.uint64(lines)
        column = (column + _move(line, keys, number + 1, columns)) % np.uint64(columns)
    return line * np.uint64(columns) + column


def _move(coordinate: np.ndarray, keys: np.ndarray, number: int, limit: int) -> np.ndarray:
    """How far a round moves, 0..limit-1: a random function of the other coordinate."""
    # The upper half decides: the remainder by a small limit would read the lowest bits only.
    mixed = mix64(keys ^ mix64(coordinate + np.uint64(number << 48)))
    return (mixed >> np.uint64(32)) % np.uint64(limit)


def _by_class(rows: np.ndarray, leaf: np.ndarray, num_leaves: int) -> tuple[np.ndarray, np.ndarray]:
    """The order that puts rows of one class side by side, and the sizes of the classes present.

    Raises:
      UserError: there are no rows.
    """
    _require_rows(rows)
    # Sixteen bits, where they are enough, let NumPy sort by radix: linear in the rows.
    classes = leaf[rows].astype(np.uint16 if num_leaves <= 1 << 16 else np.int64)
    counts = np.bincount(classes, minlength=num_leaves)
    return np.argsort(classes, kind="stable"), counts[counts > 0]


def _compact(rows: np.ndarray) -> np.ndarray:
    """The rows in 32 bits where they fit, which halves what each loader process holds."""
    return rows.astype(np.int32) if rows.max() < 1 << 31 else rows.astype(np.int64)


def _require_rows(rows: np.ndarray) -> None:
    if not len(rows):
        raise UserError(
            "training split: found 0 images; at least 1 is needed. Change config.split.fractions "
            "or config.split.method, or add images."
        )
