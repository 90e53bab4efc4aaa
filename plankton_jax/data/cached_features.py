"""Batches of features that a frozen backbone gave once, from files, in the place of images.

The files hold `views` augmented versions of every training image and every validation image as it
is. Which view of an image is drawn is a function of (seed, position), as all that is drawn. NumPy;
reads and writes the folder it is given.
"""

import dataclasses
import functools
import math
import pathlib
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Integer

from plankton_jax.data.batches import UNREADABLE, Batch, BatchMaker
from plankton_jax.data.counter import random_bits, stream_key, to_unit
from plankton_jax.data.slots import Layout, aligned_empty

FEATURE = "feature:"
"""Before the name of a feature in a batch: `b ...`, of the type that the backbone gave."""


@dataclasses.dataclass(frozen=True)
class StoredFeature:
    """One feature of an image: its name, shape (without the batch) and type by name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numpy_dtype(self) -> np.dtype:
        """The type; bfloat16 is one that NumPy itself does not know."""
        return np.dtype(getattr(ml_dtypes, self.dtype, self.dtype))

    @property
    def num_bytes(self) -> int:
        """Of one image."""
        return math.prod(self.shape) * self.numpy_dtype.itemsize


@dataclasses.dataclass(frozen=True)
class FeatureFiles:
    """The files of all features; picklable, opened where they are used.

    Record r < views * n is view r // n of the (r % n)-th training row; behind them comes one record
    for each validation row.

    Attributes:
      directory: holds a file for each feature, `missing` with a byte for each record that is 1
        where the image could not be read, and what `feature_cache` notes of them.
      arrays: what is kept of an image.
      train_rows, validation_rows: sorted rows of the data set's index.
      views: of each training image.
      num_stages: of the backbone, of which not all need to be kept.
    """

    directory: pathlib.Path
    arrays: tuple[StoredFeature, ...]
    train_rows: Integer[np.ndarray, " n"]
    validation_rows: Integer[np.ndarray, " v"]
    views: int
    num_stages: int

    def __len__(self) -> int:
        """Records."""
        return self.views * len(self.train_rows) + len(self.validation_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return FeatureFiles, tuple(fields)

    @property
    def record_bytes(self) -> int:
        """Bytes on disk of one record."""
        return sum(array.num_bytes for array in self.arrays) + 1

    def create(self) -> None:
        """Makes the files, full of zeros, which take no space yet; what is there is kept."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path, num_bytes in self._paths().items():
            with path.open("ab") as file:
                file.truncate(num_bytes * len(self))

    def opened(self, mode: Any = "r") -> tuple[dict[str, np.memmap], np.memmap]:
        """The features by name, mapped into memory, and which records are missing."""
        mapped = {
            array.name: np.memmap(path, array.numpy_dtype, mode, shape=(len(self), *array.shape))
            for array, path in zip(self.arrays, self._paths(), strict=False)
        }
        return mapped, np.memmap(self._missing, np.uint8, mode, shape=(len(self),))

    def is_whole(self) -> bool:
        """Whether every file is there with all its bytes."""
        return all(
            path.is_file() and path.stat().st_size == num_bytes * len(self)
            for path, num_bytes in self._paths().items()
        )

    def training_records(
        self,
        rows: Integer[np.ndarray, " b"],
        positions: Integer[np.ndarray, " b"],
        seed: int,
    ) -> Integer[np.ndarray, " b"]:
        """The records of what is drawn at these positions of the stream."""
        key = stream_key(seed, "feature views")
        draws = to_unit(random_bits(key, positions.astype(np.uint64), 1)[:, 0])
        views = (draws * self.views).astype(np.int64)
        return views * len(self.train_rows) + np.searchsorted(self.train_rows, rows)

    def validation_records(self, rows: Integer[np.ndarray, " b"]) -> Integer[np.ndarray, " b"]:
        """The records of validation images."""
        first = self.views * len(self.train_rows)
        return first + np.searchsorted(self.validation_rows, rows)

    @functools.cached_property
    def mapped(self) -> tuple[dict[str, np.memmap], np.memmap]:
        """`opened` for reading, once in each process."""
        return self.opened()

    @property
    def _missing(self) -> pathlib.Path:
        return self.directory / "missing"

    def _paths(self) -> dict[pathlib.Path, int]:
        """Every file and its bytes a record, those of the arrays first."""
        named = {self.directory / f"{number}.features": a.num_bytes
                 for number, a in enumerate(self.arrays)}  # fmt: skip
        return named | {self._missing: 1}


@dataclasses.dataclass(frozen=True)
class FeatureBatchMaker:
    """Makes any batch of features from its number; picklable.

    Attributes:
      images: makes the batch of images that this one stands for; with an augmentation it is one of
        training.
      files: where features are.
    """

    images: BatchMaker
    files: FeatureFiles

    def __call__(self, number: int) -> Batch:
        return self.fill(number, aligned_empty(self.layout))

    @property
    def layout(self) -> Layout:
        """A batch's large arrays."""
        count = len(self.images.positions(0))
        return {FEATURE + a.name: ((count, *a.shape), a.numpy_dtype) for a in self.files.arrays}

    def fill(self, number: int, arrays: dict[str, np.ndarray]) -> Batch:
        """A batch, of which the arrays of the layout are written in place."""
        positions = self.images.positions(number)
        rows = self.images.sampler(positions)
        records, drawn = np.zeros(len(rows), np.int64), rows >= 0
        if self.images.augmentation is None:
            records[drawn] = self.files.validation_records(rows[drawn])
        else:
            records[drawn] = self.files.training_records(
                rows[drawn], positions[drawn], self.images.seed
            )
        features, missing = self.files.mapped
        unreadable = np.where(drawn & (missing[records] == 1), rows, -1)
        if (unreadable >= 0).any():
            rows, places = self.images.replaced(rows, unreadable)
            records = records[places]
        for name, values in features.items():
            np.take(values, records, axis=0, out=arrays[FEATURE + name], mode="clip")
        return arrays | self.images.beside_images(rows) | {UNREADABLE: unreadable}

    @property
    def dataset(self) -> Any:
        """The data set that rows are of."""
        return self.images.dataset

    def rows(self, number: int) -> Integer[np.ndarray, " n"]:
        """The rows that are drawn for this process's share of a batch."""
        return self.images.rows(number)

    def problem(self, row: int) -> str:
        """What is wrong with a record that cannot be read; empty when it can."""
        return self.images.problem(row)
