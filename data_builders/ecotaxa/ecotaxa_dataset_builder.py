"""Exports and import bundles of EcoTaxa; see README.md beside this file.

Reads the archive or folder; writes nothing but what its base class writes.
"""

import collections
import dataclasses
import functools
import pathlib
import posixpath
from collections.abc import Iterator

from data_builders._entries import SETTING, CorruptMemberError, Entry, Source, read_table_file
from data_builders._files_builder import FilesBuilder, directory_name
from data_builders._sources import open_source
from data_builders.base import Record
from data_builders.ecotaxa import _tree, _tsv
from plankton_jax.errors import UserError, near_miss
from plankton_jax.taxonomy import Taxonomy

NOT_THERE = "image named in a table is not there"
NO_ID = "no object_id"
NO_LABEL = "no category"
FURTHER = "further image of an object"
NO_TABLE = "no table of EcoTaxa"
TWICE = "named twice in the tables"
SUFFIXES = (".tsv", ".txt")


class Builder(FilesBuilder):
    """Objects with a category, their tree, position, time and numbers."""

    licence = "that of the export's projects"
    accepts = frozenset({"source", "features", "statuses"})

    def directory_name(self) -> str:
        """Differs with the source, the statuses and whether numbers are stored."""
        unknown = [status for status in self._statuses if status not in _tsv.STATUSES]
        if unknown:
            raise UserError(
                f'config.data.statuses: found "{unknown[0]}". '
                f"{near_miss(unknown[0], _tsv.STATUSES)}"
            )
        marks = (*self._statuses, str(self.options.features), self._source.fingerprint())
        return directory_name(self.options.source or "", *marks)

    def taxonomy(self) -> Taxonomy:
        return self._taxonomy

    def num_records(self) -> int:
        return len(self._rows)

    def features(self) -> tuple[str, ...]:
        """Position and time, and on request every numeric column of the objects."""
        tables = dict.fromkeys(row.columns for row in self._rows.values())
        return tuple(dict.fromkeys(name for columns in tables for name in columns))

    def sources(self) -> Iterator[Source]:
        source = self._source
        source.entries = self._entries
        yield source

    def record(self, source: Source, entry: Entry, data: bytes, size: tuple[int, int]) -> Record:
        del source
        row = self._rows[entry.path]
        numbers = dict(zip(row.columns, row.numbers, strict=True))
        return Record(
            row.object_id,
            self._leaves[row.category, row.hierarchy],
            data,
            *size,
            group=row.group,
            features=tuple(numbers.get(name, float("nan")) for name in self._features),
        )

    @functools.cached_property
    def _features(self) -> tuple[str, ...]:
        return self.features()

    @property
    def _statuses(self) -> tuple[str, ...]:
        return self.options.statuses or _tsv.STATUSES[:1]

    @functools.cached_property
    def _source(self) -> Source:
        return open_source(self.options.source)

    @functools.cached_property
    def _leaves(self) -> dict[_tree.Pair, int]:
        leaves = {name: leaf for leaf, name in enumerate(self._taxonomy.leaf_names)}
        return {pair: leaves[name] for pair, name in self._names.items()}

    @functools.cached_property
    def _names(self) -> dict[_tree.Pair, str]:
        """The class of every category and hierarchy that there is."""
        return _tree.class_names((row.category, row.hierarchy) for row in self._rows.values())

    @functools.cached_property
    def _taxonomy(self) -> Taxonomy:
        where = f"{SETTING} {self.options.source}"
        classes = set(self._names.values())
        if len(classes) < 2:
            counts = collections.Counter(entry.problem for entry in self._entries if entry.problem)
            left_out = ", ".join(f"{count} {problem}" for problem, count in counts.items())
            others = any(problem.startswith("status ") for problem in counts)
            hint = " Set config.data.statuses to take others, as ('validated','predicted')."
            raise UserError(
                f"{where}: images of {len(classes)} categories with status "
                f"{' or '.join(self._statuses)}; two are needed. Left out: {left_out or 'nothing'}."
                + (hint if others else "")
            )
        return _tree.taxonomy_of(self._names, where)

    @functools.cached_property
    def _tables(self) -> tuple[list[Entry], dict[str, _tsv.Row]]:
        """The images in the order of the tables, those left out with a problem, and their rows."""
        there = {entry.path: entry for entry in self._source.entries}
        tables = [e for e in self._source.entries if e.path.lower().endswith(SUFFIXES)]
        entries: list[Entry] = []
        rows: dict[str, _tsv.Row] = {}
        objects: set[tuple[str, str]] = set()
        ids: set[str] = set()
        problems: list[str] = []
        for table in tables:
            folder = pathlib.PurePosixPath(table.path).parent
            try:
                found = sorted(
                    _tsv.read_rows(read_table_file(self._source, table), self.options.features),
                    key=lambda row: (row.object_id, row.rank),
                )
            except _tsv.NotATable as error:
                problems.append(f"{table.path}: {error}")
                if table.path.lower().endswith(".tsv"):  # a text may be anything
                    entries.append(Entry(table.path, problem=f"{NO_TABLE}: {error}"))
                continue
            except (_tsv.UnreadableTable, CorruptMemberError, OSError) as error:
                raise UserError(
                    f"{SETTING} {self.options.source}: {table.path} cannot be read whole "
                    f"({error}). Mend that line, or export the project again."
                ) from error
            for row in found:
                path = posixpath.normpath(folder / row.image) if row.image else ""
                entry = there.get(path)
                problem = entry.problem if entry is not None else NOT_THERE
                if not problem:
                    problem = self._problem(row, path, rows, objects)
                if not problem and row.object_id in ids:  # of another sample, or the id is further
                    row = dataclasses.replace(row, object_id=f"{row.group}/{row.object_id}")
                    problem = FURTHER if row.object_id in ids else ""
                if problem or entry is None:
                    entries.append(Entry(f"{table.path}: {row.object_id}", problem=problem))
                    continue
                entries.append(entry)
                rows[path] = row
                objects.add((row.group, row.object_id))
                ids.add(row.object_id)
        if not rows and all(entry.problem.startswith(NO_TABLE) for entry in entries):
            read = f" Those that are none: {'; '.join(problems[:5])}." if problems else ""
            raise UserError(
                f"{SETTING} {self.options.source}: holds no table of EcoTaxa (ecotaxa*.tsv).{read} "
                "Give an export or an import bundle, or the folder it unpacks to."
            )
        return entries, rows

    def _problem(
        self, row: _tsv.Row, path: str, rows: dict[str, _tsv.Row], objects: set[tuple[str, str]]
    ) -> str:
        """Why an image that is there is left out, or nothing."""
        if row.status is not None and row.status not in self._statuses:
            return f"status {row.status}" if row.status else "no status"
        if not row.object_id:
            return NO_ID
        if not row.category and not row.hierarchy:
            return NO_LABEL
        if path in rows:
            return TWICE
        return FURTHER if (row.group, row.object_id) in objects else ""

    @property
    def _entries(self) -> list[Entry]:
        return self._tables[0]

    @property
    def _rows(self) -> dict[str, _tsv.Row]:
        return self._tables[1]
