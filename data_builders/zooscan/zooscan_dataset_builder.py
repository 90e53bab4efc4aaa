"""ZooScan images in both of their releases; see README.md beside this file.

Reads the archive, which it fetches where it is not given; writes nothing but what its base class
writes.
"""

import csv
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_builders._download import Archive
from data_builders._entries import Entry, Source
from data_builders._published import PublishedBuilder, read_table
from data_builders.base import Record
from plankton_jax.data.counter import text_hash
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import normalised_name

TABLE, FEATURES = "taxa.csv.gz", "features_native.csv.gz"
NO_ROW = f"not in {TABLE}"
OTHER_CLASS = f"class in {TABLE} differs from its folder"
_CLASS_COLUMN = {"v1": "taxon", "v2": "taxon_level1"}
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}
_URL = "https://www.seanoe.org/data/00446/55741/data/{file}"


class Builder(PublishedBuilder):
    """Version 1 of 93 taxa, which the report used, and version 2 of 120 with an official split."""

    licence = "CC-BY-NC-4.0"
    accepts = frozenset({"source", "features"})
    variants = ("v1", "v2")

    def published(self) -> tuple[Archive, ...]:
        file = {"v1": "57398.tar", "v2": "113141.tar"}[self.options.variant]
        return (Archive(file, _URL.format(file=file)),)

    def by_hand(self) -> str:
        (archive,) = self.published()
        return f"Needed: {archive.name} as it was published, or the folder that it unpacks to."

    def tree_path(self):
        return super().tree_path().with_name(f"{self.options.variant}.csv")

    def directory_name(self) -> str:
        return super().directory_name() + ("-features" if self.options.features else "")

    def belongs(self, entry: Entry) -> bool:
        return "imgs" in entry.path.split("/")[:-2]

    def class_and_id(self, entry: Entry) -> tuple[str, str]:
        folder, file = entry.path.split("/")[-2:]
        return folder, file.rpartition(".")[0]

    def look_at(self, source: Source) -> None:
        """Reads the table of labels and, when asked for, that of native features."""
        column = _CLASS_COLUMN[self.options.variant]
        columns = ["objid", column] + (["set"] if self.options.variant == "v2" else [])
        table = read_table(source, TABLE, columns)
        if table is None:
            raise UserError(f"{self.where}: has no {TABLE}. {self.by_hand()}")
        self._rows = _Rows(table.column("objid").to_pylist())
        names = table.column(column).to_pylist()
        normalised = {name: normalised_name(name) for name in set(names)}
        self._classes = [normalised[name] for name in names]
        self._sets = table.column("set").to_pylist() if "set" in columns else None
        if self.options.features:
            self._read_features(source)

    def problem(self, entry: Entry) -> str:
        folder, identifier = self.class_and_id(entry)
        row = self._rows.find(identifier)
        if row < 0:
            return NO_ROW
        return "" if self._classes[row] == normalised_name(folder) else OTHER_CLASS

    def complete(self, record: Record, entry: Entry) -> Record:
        del entry
        if self._sets is not None:
            record.split = _SPLITS.get(self._sets[self._rows.find(record.id)], "")
        if self.options.features:
            found = self._feature_rows.find(record.id)
            values = self._features[found] if found >= 0 else np.full(len(self.features()), np.nan)
            record.features = tuple(values.tolist())
        return record

    def features(self) -> tuple[str, ...]:
        """The numeric columns of the table of native features."""
        if not self.options.features:
            return ()
        self.sources()
        return self._feature_names

    def sources(self) -> list[Source]:
        return self._opened

    @functools.cached_property
    def _opened(self) -> list[Source]:
        return list(super().sources())

    def release(self) -> None:
        self._opened.clear()
        if self.options.features:
            self._features = self._features[:0]

    def more_metadata(self) -> dict[str, Any]:
        """The lineage of every class, from the tree's table."""
        with self.tree_path().open(newline="", encoding="utf-8") as file:
            return {"lineages": {row["taxon"]: row["lineage"] for row in csv.DictReader(file)}}

    def _read_features(self, source: Source) -> None:
        table = read_table(source, FEATURES)
        if table is None or "objid" not in table.column_names:
            raise UserError(
                f"config.data.features: {self.where} has no {FEATURES} with a "
                "column objid. Leave the setting out, or give the archive as it was published."
            )
        twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        if twice:
            raise UserError(
                f"{self.where}: {FEATURES} has the column {twice[0]} twice. Give the archive as it "
                "was published."
            )
        numeric = [
            field.name
            for field in table.schema
            if field.name != "objid"
            and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
        ]
        if not numeric:
            raise UserError(
                f"{self.where}: {FEATURES} has no column of numbers. Leave config.data.features "
                "out, or give the archive as it was published."
            )
        self._feature_names = tuple(numeric)
        self._feature_rows = _Rows([str(objid) for objid in table.column("objid").to_pylist()])
        self._features = np.empty((table.num_rows, len(numeric)), np.float64)
        for place, name in enumerate(numeric):
            self._features[:, place] = table.column(name).cast(pa.float64()).to_numpy()
            table = table.drop_columns([name])  # a table of a gigabyte is not held twice


class _Rows:
    """The row of each key in a table of millions, in twelve bytes a key."""

    def __init__(self, keys: Sequence[str]):
        hashes = np.fromiter(map(text_hash, keys), np.uint64, len(keys))
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._order]

    def find(self, key: str) -> int:
        """The row, or -1."""
        wanted = np.uint64(text_hash(key))
        place = int(np.searchsorted(self._hashes, wanted))
        found = place < len(self._hashes) and self._hashes[place] == wanted
        return int(self._order[place]) if found else -1
