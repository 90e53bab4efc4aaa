"""A data set that was built before, opened in a time that does not depend on its size.

The index is mapped into memory, not read; the record shards are opened when the first image is
asked for, in the process that asks. Reads the data set's directory and touches nothing else.
"""

import csv
import functools
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from array_record.python import (
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from jaxtyping import Float64, Int8, Int32, Integer, UInt64
from pyarrow import compute

from plankton_jax.data._files import (
    FEATURES_FILE,
    INDEX_FILE,
    METADATA_FILE,
    REBUILD,
    SHARDS_FILE,
    TAXONOMY_FILE,
    find_shards,
    map_features,
    map_index,
    read_metadata,
    read_taxonomy,
)
from plankton_jax.data.counter import text_hash
from plankton_jax.data.records import bytes_feature
from plankton_jax.data.splits import PARTS
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

# With both options a reader reads record by record in 4 us. With the first alone, or when asked for
# many records at once, it hands each to a thread pool, at 20 us of processor time.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class Dataset:
    """A built data set. Pickles as its directory, so a loader process opens its own.

    Attributes:
      directory: where it lies.
      taxonomy: its tree of classes.
      metadata: name, fingerprint, licence, citation, source, counts.
      leaf, height, width, byte_sizes, hashes: columns of the index, mapped from the file.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        taxonomy: Taxonomy,
        metadata: dict[str, Any],
        index: pa.RecordBatch,
        shards: Sequence[tuple[pathlib.Path, int]],
    ):
        """`shards` are paths and numbers of records; `open_dataset` finds all of these."""
        self.directory = directory
        self.taxonomy = taxonomy
        self.metadata = metadata
        self._index = index
        self.leaf: Int32[np.ndarray, " n"] = self._column("leaf")
        self.height: Int32[np.ndarray, " n"] = self._column("height")
        self.width: Int32[np.ndarray, " n"] = self._column("width")
        self.byte_sizes: Int32[np.ndarray, " n"] = self._column("bytes")
        self.hashes: UInt64[np.ndarray, " n"] = self._column("hash")
        self._paths = [path for path, _ in shards]
        self._ends = np.cumsum([length for _, length in shards]).tolist()
        self._opened = threading.local()

    def __len__(self) -> int:
        return self._index.num_rows

    def __reduce__(self) -> tuple[Any, ...]:
        return open_dataset, (self.directory,)

    @property
    def name(self) -> str:
        return self.metadata["name"]

    @property
    def fingerprint(self) -> str:
        """Changes with any change of the data."""
        return self.metadata["fingerprint"]

    @property
    def mean(self) -> float:
        """Mean grey level, 0..1."""
        return self.metadata["mean"]

    @property
    def std(self) -> float:
        """Standard deviation of grey levels, in units of the full range."""
        return self.metadata["std"]

    @functools.cached_property
    def features(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """The numbers that came with the images, by name; NaN where one is missing."""
        return map_features(self.directory / FEATURES_FILE)

    def ids(self, rows: Integer[np.ndarray, " r"]) -> list[str]:
        """The ids of these rows."""
        return self._index.column("id").take(pa.array(rows)).to_pylist()

    def rows_of(self, ids: Sequence[str]) -> Integer[np.ndarray, " r"]:
        """The rows of these ids, -1 where there is none."""
        options = compute.SetLookupOptions(self._index.column("id"))
        found = compute.call_function("index_in", [pa.array(ids, pa.string())], options)
        return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    def rows_of_pairs(self, name: str) -> Integer[np.ndarray, "p 2"]:
        """Rows of the pairs of images in `NAME.csv` beside the index: duplicates, near_duplicates.

        Raises:
          UserError: there is no such file.
        """
        path = self.directory / f"{name}.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                pairs = [row[:2] for row in csv.reader(file)][1:]
        except OSError as error:
            raise UserError(
                f"config.split.together: there is no {path}. Find them first: python -m "
                f"plankton_jax.data --dataset {self.directory} --leaks"
            ) from error
        rows = self.rows_of([name for pair in pairs for name in pair]).reshape(-1, 2)
        return rows[(rows >= 0).all(axis=1)]

    def group_hashes(self, depth: int = 0) -> UInt64[np.ndarray, " n"] | None:
        """The same number for the images of a group, another for each image without one; None
        where no image has a group.

        Args:
          depth: how many parts of a group's name, between slashes, count; 0: all.
        """
        encoded = self._index.column("group").dictionary_encode()
        names = encoded.dictionary.to_pylist()
        if names in ([], [""]):
            return None
        cut = [name if not depth else "/".join(name.split("/")[:depth]) for name in names]
        numbers = np.array([text_hash(f"group {name}") for name in cut], np.uint64)
        codes = encoded.indices.to_numpy()
        alone = np.array([name == "" for name in names])[codes]
        return np.where(alone, self.hashes, numbers[codes])

    def official_parts(self) -> Int8[np.ndarray, " n"]:
        """The part of the data set's own split that each row is in, as index into
        `splits.PARTS`; -1 where it has none."""
        encoded = self._index.column("split").dictionary_encode()
        names = encoded.dictionary.to_pylist()
        codes = np.array([PARTS.index(name) if name in PARTS else -1 for name in names], np.int8)
        return codes[encoded.indices.to_numpy()]

    def read_images(self, rows: Integer[np.ndarray, " r"]) -> list[bytes]:
        """The image files of these rows, in their order, repeats included.

        Raises:
          UserError: a record is damaged, or is not the one that the index describes.
        """
        order = np.argsort(rows, kind="stable")
        ascending = np.asarray(rows)[order]
        bounds = np.searchsorted(ascending, [0, *self._ends])
        images: list[bytes] = [b""] * len(ascending)
        for shard, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            if first < last:
                self._read_shard(shard, ascending[first:last], order[first:last], images)
        return images

    def _read_shard(
        self, shard: int, rows: np.ndarray, places: np.ndarray, images: list[bytes]
    ) -> None:
        """Reads rows of one shard into their places among `images`."""
        start = self._ends[shard - 1] if shard else 0
        records: list[bytes] = []
        try:
            reader = self._reader(shard)
            for number in (rows - start).tolist():
                reader.seek(number)
                records.append(reader.read())
        except (RuntimeError, IndexError, ValueError) as error:
            # A reader that met one damaged record fails on every other from then on.
            self._opened.readers.pop(shard, None)
            raise UserError(
                f"{self.describe(int(rows[len(records)]))}: shard {self._paths[shard].name} cannot "
                f"be read there ({error}). {REBUILD}"
            ) from error
        sizes = self.byte_sizes[rows].tolist()
        items = zip(records, places.tolist(), sizes, rows.tolist(), strict=True)
        for record, place, size, row in items:
            try:
                image = bytes_feature(record, b"image")
            except ValueError as error:
                raise UserError(f"{self.describe(row)}: {error}. {REBUILD}") from error
            if len(image) != size:
                raise UserError(
                    f"{self.describe(row)}: found an image of {len(image)} bytes where the index "
                    f"has one of {size}: index and shards are out of step. {REBUILD}"
                )
            images[place] = image

    def describe(self, row: int) -> str:
        """Names one record in a message."""
        return f'data set {self.directory}: record "{self.ids(np.array([row]))[0]}" (row {row})'

    def _reader(self, shard: int) -> Any:
        """This thread's reader of a shard: a reader has one place at a time."""
        if not hasattr(self._opened, "readers"):
            self._opened.readers = {}
        readers: dict[int, Any] = self._opened.readers
        if shard not in readers:
            path = self._paths[shard]
            reader = array_record_module.ArrayRecordReader(str(path), _READER_OPTIONS)
            expected = self._ends[shard] - (self._ends[shard - 1] if shard else 0)
            if reader.num_records() != expected:
                raise UserError(
                    f"data set {self.directory}: shard {path.name} has {reader.num_records()} "
                    f"records where {SHARDS_FILE} counts {expected}. {REBUILD}"
                )
            readers[shard] = reader
        return readers[shard]

    def _column(self, name: str) -> np.ndarray:
        return self._index.column(name).to_numpy(zero_copy_only=True)


def open_dataset(directory: str | pathlib.Path) -> Dataset:
    """Opens a built data set; reads nothing that grows with it.

    Raises:
      UserError: the directory is missing, is not a built data set, is damaged, or its files do
        not belong together.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise UserError(f"data set {directory}: no such directory. Build the data set first.")
    needed = (INDEX_FILE, TAXONOMY_FILE, METADATA_FILE, SHARDS_FILE)
    missing = [name for name in needed if not (directory / name).is_file()]
    if missing:
        raise UserError(
            f"data set {directory}: not a built data set, it lacks {', '.join(missing)}. Give the "
            "directory that a builder made, or build the data set again."
        )
    metadata = read_metadata(directory)
    taxonomy = read_taxonomy(directory)
    index = map_index(directory / INDEX_FILE)
    shards = find_shards(directory)
    counts = {
        INDEX_FILE: index.num_rows,
        "the shards": sum(length for _, length in shards),
        METADATA_FILE: metadata["num_examples"],
    }
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise UserError(
            f"data set {directory}: index and shards are out of step; examples: {found}. {REBUILD}"
        )
    return Dataset(directory, taxonomy, metadata, index, shards)
