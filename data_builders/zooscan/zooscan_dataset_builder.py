"""ZooScan images in both of their releases; see README.md beside this file.

Reads the archive, which it fetches where it is not given; writes nothing but what its base class
writes.
"""

import csv
import functools
from typing import Any

import pyarrow as pa

from data_builders._csv_tables import MissingColumn, UnreadableTable, table_batches
from data_builders._download import Archive
from data_builders._entries import Entry, Source
from data_builders._published import PublishedBuilder
from data_builders.base import Record
from data_builders.zooscan._feature_table import FeatureTable, NotAFeatureTable, Rows
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
        try:
            batches = list(table_batches(source, TABLE, columns))
        except MissingColumn as error:
            others = (v for v, c in _CLASS_COLUMN.items() if c != column and c in error.found)
            hint = "".join(f" That is {self.name}/{other}." for other in others)
            raise UserError(f"{self.where}: {error}.{hint} {self.by_hand()}") from error
        except UnreadableTable as error:
            raise UserError(f"{self.where}: {error}. {self.by_hand()}") from error
        if not batches:
            raise UserError(f"{self.where}: has no {TABLE}. {self.by_hand()}")
        table = pa.Table.from_batches(batches)
        self._rows = Rows(table.column("objid").to_pylist())
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
            record.features = self._features.values(self._rows.find(record.id))
        return record

    def features(self) -> tuple[str, ...]:
        """The numeric columns of the table of native features."""
        if not self.options.features:
            return ()
        self.sources()
        return self._features.names

    def sources(self) -> list[Source]:
        return self._opened

    @functools.cached_property
    def _opened(self) -> list[Source]:
        return list(super().sources())

    def release(self) -> None:
        self._opened.clear()
        if self.options.features:
            self._features.release()

    def more_metadata(self) -> dict[str, Any]:
        """The lineage of every class, from the tree's table."""
        with self.tree_path().open(newline="", encoding="utf-8") as file:
            return {"lineages": {row["taxon"]: row["lineage"] for row in csv.DictReader(file)}}

    def _read_features(self, source: Source) -> None:
        try:
            self._features = FeatureTable(table_batches(source, FEATURES, nulls=True), self._rows)
        except (NotAFeatureTable, UnreadableTable) as error:
            what = f"{FEATURES} {error}" if isinstance(error, NotAFeatureTable) else f"{error}"
            raise UserError(
                f"{self.where}: {what}. Give the archive as it was published, or leave "
                "config.data.features out."
            ) from error
        if missing := self._features.missing:
            self.notify(f"{FEATURES} has no features of {missing} of {len(self._rows)} images")
