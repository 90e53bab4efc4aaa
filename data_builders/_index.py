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
from plankton_jax.data.geometry import decode_grey
from plankton_jax.taxonomy import Taxonomy

INDEX_FILE = "index.arrow"
TAXONOMY_FILE = "taxonomy.json"
METADATA_FILE = "metadata.json"
REJECTED_FILE = "rejected.csv"
DUPLICATES_FILE = "duplicates.csv"
FORMAT_VERSION = 1
STATISTICS_SAMPLE = 2_000


def id_hash(identifier: str) -> int:
    """The 64-bit number that places an example in a split; a function of its id alone."""
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "little")


class Index:
    """The columns of the index, gathered while the records are written."""

    def __init__(self, num_leaves: int):
        self._num_leaves = num_leaves
        self._texts: dict[str, list[str]] = {"id": [], "group": [], "split": []}
        self._numbers = {name: array("i") for name in ("leaf", "height", "width", "bytes")}
        self._digests = bytearray()

    def __len__(self) -> int:
        return len(self._texts["id"])

    def num_classes(self) -> int:
        """Classes that have an image so far."""
        return len(set(self._numbers["leaf"]))

    def add(self, record: Record) -> None:
        """Appends the row of one record.

        Raises:
          ValueError: the builder made a record that cannot be: no leaf of the tree, no pixels.
        """
        if not 0 <= record.leaf < self._num_leaves or record.height < 1 or record.width < 1:
            raise ValueError(
                f"record {record.id!r}: leaf {record.leaf} of {self._num_leaves}, "
                f"{record.height} x {record.width} pixels"
            )
        for name, texts in self._texts.items():
            texts.append(getattr(record, name))
        for name in ("leaf", "height", "width"):
            self._numbers[name].append(getattr(record, name))
        self._numbers["bytes"].append(len(record.image))
        self._digests += hashlib.sha256(record.image).digest()

    def table(self) -> pa.RecordBatch:
        """The index as one record batch, in the order of its file's columns."""
        ids = self._texts["id"]
        if len(set(ids)) != len(ids):
            raise ValueError("two records have the same id")
        hashes = np.fromiter(map(id_hash, ids), np.uint64, len(ids))
        columns = {
            "id": pa.array(ids, pa.string()),
            **{name: pa.array(np.asarray(values)) for name, values in self._numbers.items()},
            "group": pa.array(self._texts["group"], pa.string()),
            "split": pa.array(self._texts["split"], pa.string()),
            "hash": pa.array(hashes),
        }
        return pa.RecordBatch.from_pydict(columns)

    def duplicates(self) -> list[tuple[str, str]]:
        """(id, id of the first image with the same content) of each image that repeats one."""
        digests = np.frombuffer(bytes(self._digests), np.dtype("V32"))
        _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
        first_row = first[inverse.reshape(-1)]
        ids = self._texts["id"]
        repeats = np.flatnonzero(first_row != np.arange(len(ids)))
        return [(ids[row], ids[first_row[row]]) for row in repeats]

    def fingerprint(self, taxonomy: Taxonomy) -> str:
        """sha256 over the tree, every column and every image's content, as hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(taxonomy.to_json(), sort_keys=True).encode())
        for name, texts in self._texts.items():
            digest.update(f"\n{name}\n".encode() + "\0".join(texts).encode())
        for name, numbers in self._numbers.items():
            digest.update(f"\n{name}\n".encode() + np.asarray(numbers).astype("<i4").tobytes())
        digest.update(b"\ncontent\n" + self._digests)
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
