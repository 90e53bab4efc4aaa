"""What a built data set knows of its records without reading them: the index and its companions.

Row i of `index.arrow` describes record i of the shards. Writes into the directory it is given and
touches nothing else.
"""

import csv
import hashlib
import json
import pathlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from data_builders._shards import Record
from plankton_jax.data.counter import text_hash
from plankton_jax.data.geometry import decode_grey
from plankton_jax.taxonomy import Taxonomy

INDEX_FILE = "index.arrow"
TAXONOMY_FILE = "taxonomy.json"
METADATA_FILE = "metadata.json"
REJECTED_FILE = "rejected.csv"
DUPLICATES_FILE = "duplicates.csv"
FORMAT_VERSION = 1
FEATURES_FILE = "features.arrow"
STATISTICS_SAMPLE = 2_000
FEATURE_PREFIX = "feature:"
_ROWS_AT_ONCE = 1 << 16


class IndexPart:
    """The columns of a part of the index, gathered while its records are written.

    Beside the columns of the file there are `digest`, a sha256 of each image's bytes, and the
    features, which get a file of their own.
    """

    def __init__(self, num_leaves: int, features: Sequence[str] = ()):
        self._num_leaves = num_leaves
        self._texts: dict[str, list[str]] = {"id": [], "group": [], "split": []}
        self._numbers = {name: array("i") for name in ("leaf", "height", "width", "bytes")}
        self._digests = bytearray()
        self._feature_names = tuple(features)
        self._features = array("d")

    def __len__(self) -> int:
        return len(self._texts["id"])

    def add(self, record: Record) -> None:
        """Appends the row of one record.

        Raises:
          ValueError: the builder made a record that cannot be: no leaf of the tree, no pixels.
        """
        if not -1 <= record.leaf < self._num_leaves or record.height < 1 or record.width < 1:
            raise ValueError(
                f"record {record.id!r}: leaf {record.leaf} of {self._num_leaves}, "
                f"{record.height} x {record.width} pixels"
            )
        if len(record.features) != len(self._feature_names):
            raise ValueError(f"record {record.id!r}: {len(record.features)} features")
        for name, texts in self._texts.items():
            texts.append(getattr(record, name))
        for name in ("leaf", "height", "width"):
            self._numbers[name].append(getattr(record, name))
        self._numbers["bytes"].append(len(record.image))
        self._digests += hashlib.sha256(record.image).digest()
        self._features.extend(record.features)

    def batch(self) -> pa.RecordBatch:
        """The part as one record batch."""
        ids = self._texts["id"]
        hashes = np.fromiter(map(text_hash, ids), np.uint64, len(ids))
        features = np.asarray(self._features, np.float64)
        features = features.reshape(len(ids), len(self._feature_names))
        columns = {
            "id": pa.array(ids, pa.string()),
            **{
                name: pa.array(np.asarray(values, np.int32))
                for name, values in self._numbers.items()
            },
            "group": pa.array(self._texts["group"], pa.string()),
            "split": pa.array(self._texts["split"], pa.string()),
            "hash": pa.array(hashes),
            "digest": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(32), len(ids), [None, pa.py_buffer(bytes(self._digests))]
            ),
            **{
                FEATURE_PREFIX + name: pa.array(np.ascontiguousarray(features[:, column]))
                for column, name in enumerate(self._feature_names)
            },
        }
        return pa.RecordBatch.from_pydict(columns)


def split_index(index: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch, np.ndarray]:
    """The columns of the index's file, those of the features, and the digests, `V32`.

    Raises:
      ValueError: two records have the same id.
    """
    features = [name for name in index.schema.names if name.startswith(FEATURE_PREFIX)]
    columns = [name for name in index.schema.names if name not in ("digest", *features)]
    hashes = index.column("hash").to_numpy()
    values, counts = np.unique(hashes, return_counts=True)
    suspects = np.flatnonzero(np.isin(hashes, values[counts > 1]))
    ids = index.column("id").take(pa.array(suspects)).to_pylist()
    if len(set(ids)) != len(ids):
        raise ValueError("two records have the same id")
    digests = np.frombuffer(index.column("digest").buffers()[1], "V32", index.num_rows)
    named = index.select(features).rename_columns(
        [n.removeprefix(FEATURE_PREFIX) for n in features]
    )
    return index.select(columns), named, digests


def find_duplicates(index: pa.RecordBatch, digests: np.ndarray) -> list[tuple[str, str]]:
    """(id, id of the first image with the same content) of each image that repeats one."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    first_row = first[inverse.reshape(-1)]
    repeats = np.flatnonzero(first_row != np.arange(len(digests)))
    ids = index.column("id")
    return list(
        zip(
            ids.take(pa.array(repeats)).to_pylist(),
            ids.take(pa.array(first_row[repeats])).to_pylist(),
            strict=True,
        )
    )


def fingerprint(
    taxonomy: Taxonomy, index: pa.RecordBatch, features: pa.RecordBatch, digests: np.ndarray
) -> str:
    """sha256 over the tree, every column and every image's content, as hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(taxonomy.to_json(), sort_keys=True).encode())
    for name in ("id", "group", "split"):
        digest.update(f"\n{name}\n".encode())
        column = index.column(name)
        for start in range(0, len(column), _ROWS_AT_ONCE):
            texts = column.slice(start, _ROWS_AT_ONCE).to_pylist()
            digest.update(("\0" if start else "").encode() + "\0".join(texts).encode())
    for name in ("leaf", "height", "width", "bytes"):
        numbers = index.column(name).to_numpy().astype("<i4")
        digest.update(f"\n{name}\n".encode() + numbers.tobytes())
    digest.update(b"\ncontent\n" + digests.tobytes())
    for name in features.schema.names:
        digest.update(f"\n{name}\n".encode() + features.column(name).to_numpy().tobytes())
    return digest.hexdigest()


def write_index(path: pathlib.Path, table: pa.RecordBatch) -> None:
    """Writes an Arrow IPC file of one uncompressed record batch, which can be memory-mapped."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_batch(table)


def write_csv(path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a comma-separated table in UTF-8."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes a JSON object that a person can read."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def statistics_rows(table: pa.RecordBatch) -> list[int]:
    """The rows whose pixels `mean` and `std` are taken from: the smallest id hashes, ascending."""
    order = np.argsort(table.column("hash").to_numpy(), kind="stable")
    return np.sort(order[:STATISTICS_SAMPLE]).tolist()


def pixel_statistics(images: Iterable[bytes]) -> tuple[float, float]:
    """Mean and standard deviation of the grey values, in 0..1.

    Every image weighs the same whatever its size, as it does once all are resized to one square.
    """
    means, squares = [], []
    for image in images:
        mean, deviation = cv2.meanStdDev(decode_grey(image))
        means.append(mean.item() / 255)
        squares.append((mean.item() ** 2 + deviation.item() ** 2) / 255**2)
    mean = float(np.mean(means))
    return mean, float(np.sqrt(max(float(np.mean(squares)) - mean**2, 0.0)))


def feature_statistics(features: pa.RecordBatch) -> dict[str, list[float]]:
    """Mean and standard deviation of every feature, of its finite values; 0 and 1 without any."""
    statistics = {}
    for name in features.schema.names:
        values = features.column(name).to_numpy().astype(np.float64)
        values = values[np.isfinite(values)]
        mean = float(values.mean()) if len(values) else 0.0
        statistics[name] = [mean, float(values.std()) or 1.0] if len(values) else [0.0, 1.0]
    return statistics
