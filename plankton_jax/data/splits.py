"""Which examples are trained on, chosen by and tested on. Pure functions of index columns.

Everything is decided by each example's own hash, so a split does not depend on the order of the
examples, and under `hash` an example stays in its part when the data set grows.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt64

from plankton_jax.data.counter import mix64, stream_key, to_unit
from plankton_jax.errors import UserError, near_miss, raise_all

PARTS = ("train", "validation", "test")
METHODS = ("hash", "stratified", "official", "grouped")

# A class too small for every part fills them in this order: one image trains, two also test.
_PRIORITY = np.array([0, 2, 1])


def split_rows(
    hashes: UInt64[np.ndarray, " n"],
    leaf: Integer[np.ndarray, " n"],
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    method: str = "hash",
    official: Integer[np.ndarray, " n"] | None = None,
    groups: UInt64[np.ndarray, " n"] | None = None,
) -> dict[str, Integer[np.ndarray, " rows"]]:
    """Divides the rows of an index into train, validation and test.

    Args:
      hashes: hash of each example's id.
      leaf: class of each example.
      fractions: shares of train, validation and test; they add up to 1, and 0 is allowed.
      seed: another seed gives another, unrelated split.
      method: `hash` compares the mixed hash with the fractions. `stratified` deals each class's
        images in the order of that hash, so that shares hold within classes: a class has at least
        one image in each part of a fraction above 0 if it has enough of them, and else fills
        train, test, validation in this order. `official` takes the data set's own parts; if it
        has no validation part, a hashed share of its train part becomes one, of the size
        validation / (train + validation) by `fractions`. `grouped` is `hash` by what `groups`
        holds, so no group has images in two parts; shares hold as far as groups are small.
      groups: for method `grouped`, the same number for the images of a group.
      official: for method `official`, index into `PARTS` for each example, -1 where it has none.

    Returns:
      Ascending row numbers of each part, int64; a part may be empty.

    Raises:
      UserError: unknown method, fractions that are no shares, or no official split.
    """
    raise_all(_problems(fractions, method))
    order = mix64(hashes ^ stream_key(seed, "split"))
    if method == "stratified":
        part = _stratified_parts(order, np.asarray(leaf), np.asarray(fractions, np.float64))
    elif method == "grouped":
        if groups is None:
            raise UserError(
                'config.split.method: found "grouped", but no image of this data set has a group '
                '(sample, bin). Use "hash" or "stratified".'
            )
        part = _hashed_parts(mix64(groups ^ stream_key(seed, "split")), fractions)
    elif method == "official":
        part = _official_parts(order, official, fractions)
    else:
        part = _hashed_parts(order, fractions)
    return {name: np.flatnonzero(part == number) for number, name in enumerate(PARTS)}


def class_counts(
    leaf: Integer[np.ndarray, " n"], rows: Integer[np.ndarray, " rows"], num_leaves: int
) -> Integer[np.ndarray, " k"]:
    """Number of examples of each class among `rows`."""
    return np.bincount(leaf[rows], minlength=num_leaves)


def _problems(fractions: Sequence[float], method: str) -> list[str]:
    """What is wrong with the settings."""
    problems = []
    if method not in METHODS:
        problems.append(f'config.split.method: found "{method}". {near_miss(method, METHODS)}')
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (3,) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        problems.append(
            f"config.split.fractions: found {tuple(fractions)}; allowed: three numbers from 0 to 1 "
            "(train, validation, test) that add up to 1."
        )
    return problems


def _hashed_parts(order: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """The part of each example by where its hash lies."""
    return np.searchsorted(_edges(fractions), to_unit(order), side="right")


def joined(
    groups: UInt64[np.ndarray, " n"], pairs: Integer[np.ndarray, "p 2"]
) -> UInt64[np.ndarray, " n"]:
    """Groups in which the images of every pair are together, with all that is in either's group.

    Args:
      groups: the same number for the images of a group.
      pairs: rows of two images each.
    """
    from scipy import sparse  # a tenth of a second, for those alone who need it

    numbers, codes = np.unique(groups, return_inverse=True)
    links = codes.reshape(-1)[pairs]
    matrix = sparse.coo_matrix(
        (np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(len(numbers),) * 2
    )
    count, component = sparse.csgraph.connected_components(matrix, directed=False)
    least = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, component, numbers)
    return least[component][codes.reshape(-1)]


def _edges(fractions: Sequence[float]) -> np.ndarray:
    """Upper ends of train's and validation's share; one that reaches 1 takes in everything."""
    edges = np.cumsum(fractions)[:2]
    return np.where(edges > 1 - 1e-9, np.inf, edges)


def _stratified_parts(order: np.ndarray, leaf: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """The part of each example when every class is divided by itself."""
    totals = np.bincount(leaf, minlength=1)
    shuffled = np.argsort(order)
    # Sixteen bits, where they are enough, let NumPy sort by radix: linear in the rows.
    classes = leaf[shuffled].astype(np.uint16 if len(totals) <= 1 << 16 else np.int64)
    by_class = shuffled[np.argsort(classes, kind="stable")]
    ends = np.cumsum(_class_part_counts(totals, fractions), axis=1)
    starts = np.cumsum(totals) - totals
    classes = leaf[by_class]
    rank = np.arange(len(leaf)) - starts[classes]
    part = np.empty(len(leaf), np.int8)
    part[by_class] = (rank >= ends[classes, 0]).astype(np.int8) + (rank >= ends[classes, 1])
    return part


def _class_part_counts(totals: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Examples of each class in each part, `k 3`: largest remainders, then one for each part."""
    exact = totals[:, None] * fractions
    counts = np.floor(exact + 1e-9).astype(np.int64)
    by_remainder = np.argsort(counts - exact, axis=1, kind="stable")
    missing = totals - counts.sum(axis=1)
    for place in range(2):
        np.add.at(counts, (np.arange(len(totals)), by_remainder[:, place]), missing > place)
    wanted = [part for part in _PRIORITY if fractions[part] > 0]
    needed = np.zeros_like(counts)
    for place, part in enumerate(wanted):
        needed[:, part] = totals > place
    for part in wanted:
        short = np.flatnonzero(counts[:, part] < needed[:, part])
        donor = np.argmax(counts[short] - needed[short], axis=1)
        counts[short, donor] -= 1
        counts[short, part] += 1
    return counts


def _official_parts(
    order: np.ndarray, official: np.ndarray | None, fractions: Sequence[float]
) -> np.ndarray:
    """The data set's own part of each example, with a validation part made if it has none."""
    unknown = len(order) if official is None else int((official < 0).sum())
    if official is None or unknown:
        raise UserError(
            f'config.split.method: found "official", but {unknown} of {len(order)} examples have '
            'no official part. Use "hash" or "stratified", or give every image a part when '
            "the data set is built."
        )
    part = official.astype(np.int8)
    train, validation = fractions[0], fractions[1]
    if not (part == 1).any() and validation > 0:
        share = validation / (train + validation)
        part[(part == 0) & (to_unit(order) < share)] = 1
    return part
