"""The base of published data sets: a tree that comes with them, and archives that are fetched or
given. Reads the archives; fetches those that are missing into the download folder.
"""

import copy
import functools
import inspect
import pathlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from data_builders._download import Archive, fetch
from data_builders._entries import (
    NOT_AN_IMAGE,
    SETTING,
    Entry,
    Source,
)
from data_builders._files_builder import FilesBuilder, directory_name
from data_builders._sources import open_source
from data_builders.base import Record
from plankton_jax.data.counter import text_hash
from plankton_jax.errors import UserError, raise_all
from plankton_jax.taxonomy import Taxonomy, normalised_name

TWICE = "id that occurred before"


class PublishedBuilder(FilesBuilder):
    """A subclass gives its archives and, from a file's path, its class.

    Attributes:
      archives: what is fetched when `config.data.source` is not set; empty: only by hand.
      tree: name of the table of the tree, beside the builder.
    """

    accepts = frozenset({"source"})
    archives: ClassVar[tuple[Archive, ...]] = ()
    tree: ClassVar[str] = "tree.csv"
    _expected: int | None = None

    def directory_name(self) -> str:
        """The variant; for a source of one's own also its name and a hash of what is in it."""
        if not self.options.source:
            if not self.published():
                raise UserError(f"{SETTING}: not set. {self.by_hand()}")
            return self.options.variant or "published"
        marks = [self._open(path).fingerprint() if path.is_dir() else _stamp(path)
                 for path in self.given()]  # fmt: skip
        return directory_name(self.options.source, self.options.variant, *marks)

    def by_hand(self) -> str:
        """A sentence on where the images are to be had and what `source` is to name."""
        return ""

    def published(self) -> tuple[Archive, ...]:
        """The archives of this variant."""
        return self.archives

    def tree_path(self) -> pathlib.Path:
        """The table of the tree."""
        return pathlib.Path(inspect.getfile(type(self))).parent / self.tree

    def taxonomy(self) -> Taxonomy:
        return self._taxonomy

    def class_and_id(self, entry: Entry) -> tuple[str, str]:
        """The name of an image's class ("" for none) and its id, by default the last two parts of
        its path."""
        *_, folder, name = ("", *entry.path.split("/"))
        return folder, f"{folder}/{name}"

    def problem(self, entry: Entry) -> str:
        """Why an image that belongs is left out, as far as the listing and its tables tell."""
        del entry
        return ""

    def complete(self, record: Record, entry: Entry) -> Record:
        """The record with what else is known of it."""
        del entry
        return record

    def record(self, source: Source, entry: Entry, data: bytes, size: tuple[int, int]) -> Record:
        del source
        name, identifier = self.class_and_id(entry)
        leaf = self._leaves[normalised_name(name)] if name else -1
        return self.complete(Record(identifier, leaf, data, *size), entry)

    def check_sources(self) -> None:
        """Lists every archive and looks for classes that the tree does not have."""
        problems = []
        for source in self.sources():
            usable = (entry for entry in source.entries if not entry.problem)
            names = {self.class_and_id(entry)[0] for entry in usable} - {""}
            source.close()
            unknown = sorted(name for name in names if normalised_name(name) not in self._leaves)
            if unknown:
                shown = ", ".join(f'"{name}"' for name in unknown[:20])
                problems.append(
                    f"{SETTING} {source.path}: class folders that the data set's tree does not "
                    f"have: {shown}. Give the archive of {self.name} as it was published, or use "
                    "config.data.dataset=image_folder."
                )
        raise_all(problems)

    def num_records(self) -> int | None:
        """Those of the archives that were opened, and in proportion to their sizes of the rest."""
        return self._expected

    def belongs(self, entry: Entry) -> bool:
        """Whether an image file of a source is one of the data set's by its path."""
        del entry
        return True

    def given(self) -> list[pathlib.Path]:
        """The archives or folders that `source` names."""
        source = pathlib.Path(self.options.source or "")
        named = [source / archive.name for archive in self.published()]
        there = [path for path in named if path.is_file()]
        return there if source.is_dir() and there else [source]

    def sources(self) -> Iterator[Source]:
        """Opened one after the other: the listings of all archives together may be large."""
        if self.options.source:
            paths = self.given()
        else:
            paths = [fetch(a, self.download_dir, self.notify) for a in self.published()]
        found, opened = 0, 0
        ids = _Ids()
        sizes = [path.stat().st_size if path.is_file() else 1 for path in paths]
        for path, size in zip(paths, sizes, strict=True):
            source = self._open(path)
            self.look_at(source)
            # Links and the like are kept for what they are listed with; tables and texts are not.
            source.entries = [
                entry
                for entry in source.entries
                if (entry.problem or self.belongs(entry)) and entry.problem != NOT_AN_IMAGE
            ]
            for entry in source.entries:
                entry.problem = entry.problem or self.problem(entry)
            usable = [entry for entry in source.entries if not entry.problem]
            for place in ids.repeated([self.class_and_id(entry)[1] for entry in usable]):
                usable[place].problem = TWICE
            found += sum(not entry.problem for entry in usable)
            opened += size
            self._expected = round(found * sum(sizes) / max(opened, 1))
            yield source
        if not found:
            raise UserError(
                f"{self.where}: holds no image of {self.name} in the layout in "
                f"which it was published. {self.by_hand()}"
            )

    def _open(self, path: pathlib.Path) -> Source:
        """A source; a folder, which its fingerprint lists, is listed once."""
        if not path.is_dir():
            try:
                return open_source(str(path))
            except UserError as error:
                if self.options.source:
                    raise
                hint = f"Once {path} is removed, the same command fetches it again."
                raise UserError(*(f"{problem} {hint}" for problem in error.problems)) from error
        if path not in self._folders:
            self._folders[path] = open_source(str(path))
        listed = copy.copy(self._folders[path])
        listed.entries = list(listed.entries)  # what is chosen from them is another's no more
        return listed

    @functools.cached_property
    def _folders(self) -> dict[pathlib.Path, Source]:
        return {}

    def look_at(self, source: Source) -> None:
        """Called with the whole listing, tables included, before `belongs` chooses from it."""

    @functools.cached_property
    def _taxonomy(self) -> Taxonomy:
        return Taxonomy.from_csv(self.tree_path())

    @functools.cached_property
    def _leaves(self) -> dict[str, int]:
        return {normalised_name(name): i for i, name in enumerate(self._taxonomy.leaf_names)}


class _Ids:
    """The ids so far by their hashes, eight bytes each: millions of them are not kept as text.

    Among ten million ids two hashes are equal by chance in one of half a million data sets.
    """

    def __init__(self) -> None:
        self._hashes = np.zeros(0, np.uint64)

    def repeated(self, identifiers: Sequence[str]) -> list[int]:
        """The places of ids that occurred before, here or in what was asked earlier."""
        hashes = np.fromiter(map(text_hash, identifiers), np.uint64, len(identifiers))
        again = np.isin(hashes, self._hashes)
        later = np.ones(len(hashes), bool)
        later[np.unique(hashes, return_index=True)[1]] = False
        self._hashes = np.concatenate((self._hashes, hashes))
        return np.flatnonzero(again | later).tolist()


def _stamp(path: pathlib.Path) -> str:
    """Name, size and date of a file."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{SETTING} {path}: is not there.") from error
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"
