"""ZooScan's table of native features, joined to the rows of its labels. Pure."""

import collections
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plankton_jax.data.counter import text_hash

KEY = "objid"


class NotAFeatureTable(Exception):
    """What is wrong with the table; the sentence goes on from its name."""


class Rows:
    """The row of each key in a table of millions, in twelve bytes a key."""

    def __init__(self, keys: Sequence[str]):
        hashes = _hashes(keys)
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._sorted = hashes[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def find(self, key: str) -> int:
        """The first row of the key, or -1."""
        wanted = np.uint64(text_hash(key))  # for each image: half the time of an array of one
        place = int(np.searchsorted(self._sorted, wanted))
        found = place < len(self) and self._sorted[place] == wanted
        return int(self._order[place]) if found else -1

    def find_all(self, keys: Sequence[str]) -> np.ndarray:
        """The first row of each key, or -1: int32 `n`."""
        if not len(self):
            return np.full(len(keys), -1, np.int32)
        wanted = _hashes(keys)
        places = np.minimum(np.searchsorted(self._sorted, wanted), len(self) - 1)
        return np.where(self._sorted[places] == wanted, self._order[places], np.int32(-1))


class FeatureTable:
    """The columns of numbers, each row at the place of its key among the labels.

    Numbers alone are kept, eight bytes each in one array: sixty columns of 1.4 million rows are
    0.7 GB, and what is held beside them for a moment would come on top.

    Attributes:
      names: of the columns in which every field is a number or empty, and that of one of the labels
        is a number.
      missing: rows of the labels that have no features.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], rows: Rows):
        """Reads the table.

        Args:
          batches: of text, with nulls where there is nothing.
          rows: those of the labels. Features of other keys are left out; of a key that is there
            twice the first are taken.

        Raises:
          NotAFeatureTable: it is not there, lacks its key, has a column twice or none of numbers,
            or is of other images.
        """
        batches = iter(batches)
        first = next(batches, None)
        if first is None:
            raise NotAFeatureTable("is not there")
        _check_names(first.schema.names)
        names = [name for name in first.schema.names if name != KEY]
        # Of no rows every column could be one of numbers, and columns of text would be given room.
        first = next((b for b in itertools.chain([first], batches) if b.num_rows), first)
        names = [name for name in names if _numbers(first.column(name)) is not None]
        self._values = np.full((len(rows), len(names)), np.nan)
        numeric, filled = np.ones(len(names), bool), np.zeros(len(names), bool)
        missing = np.ones(len(rows), bool)
        for batch in itertools.chain([first], batches):
            found = rows.find_all(_keys(batch))
            taken = np.unique(found, return_index=True)[1]
            taken = taken[found[taken] >= 0]
            taken = taken[missing[found[taken]]]
            missing[found[taken]] = False
            for place in np.flatnonzero(numeric):
                column = batch.column(names[place])
                numbers = _numbers(column)
                if numbers is None:
                    numeric[place] = False
                    continue
                self._values[found[taken], place] = numbers[taken]
                filled[place] |= not np.isnan(numbers[taken]).all()
        self.missing = int(missing.sum())
        if not numeric.any():
            raise NotAFeatureTable("has no column of numbers")
        if len(rows) and self.missing == len(rows):
            raise NotAFeatureTable(f"has no {KEY} of these images")
        self._columns = np.flatnonzero(numeric & filled)
        self.names = tuple(names[place] for place in self._columns)
        if not self.names:
            raise NotAFeatureTable("has no number of these images")

    def values(self, row: int) -> tuple[float, ...]:
        """The numbers of a row of the labels, NaN where there is none."""
        return tuple(self._values[row, self._columns].tolist())

    def release(self) -> None:
        """Lets go of the numbers."""
        self._values = self._values[:0].copy()


def _hashes(keys: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(text_hash, keys), np.uint64, len(keys))


def _keys(batch: pa.RecordBatch) -> list[str]:
    try:
        return batch.column(KEY).fill_null("").to_pylist()
    except UnicodeDecodeError as error:
        raise NotAFeatureTable(f"has an {KEY} that is not in UTF-8") from error


def _check_names(names: Sequence[str]) -> None:
    if KEY not in names:
        raise NotAFeatureTable(f"has no column {KEY}")
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise NotAFeatureTable(f"has the column {min(twice)} twice")


def _numbers(column: pa.Array) -> np.ndarray | None:
    """A column of text as float64 with NaN for null; None when it is not one of numbers."""
    try:
        numbers = pc.cast(pc.call_function("utf8_trim_whitespace", [column]), pa.float64())
    except pa.ArrowInvalid:
        return None
    return numbers.to_numpy(zero_copy_only=False)
