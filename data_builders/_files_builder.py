"""The base of data sets that are files in folders or archives. Reads the sources."""

import abc
import functools
import hashlib
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from data_builders._entries import SETTING, Entry, Source
from data_builders._inspection import inspect_files
from data_builders.base import PlanktonBuilder, Record, Rejected


class FilesBuilder(PlanktonBuilder):
    """A subclass says which sources there are and what each of their files becomes."""

    @abc.abstractmethod
    def sources(self) -> Iterable[Source]:
        """The folders and archives, each listed when its entries are asked for."""

    @abc.abstractmethod
    def record(
        self, source: Source, entry: Entry, data: bytes, size: tuple[int, int]
    ) -> Record | Rejected:
        """What becomes of an image of `size` (height, width)."""

    def items(self, start: int) -> Iterator[Record | Rejected]:
        for source in self._listed():
            entries = source.entries
            if start >= len(entries):
                start -= len(entries)
            else:
                for entry, data, found in inspect_files(source, entries[start:]):
                    if entry.corrupt:
                        yield Rejected(f"{source.path}: {entry.path}", str(found), fatal=True)
                    elif isinstance(found, str):
                        yield Rejected(entry.path, found)
                    else:
                        yield self.record(source, entry, data, found)
                start = 0
            if not self.keep_sources:
                source.close()

    def num_items(self) -> int:
        return sum(len(source.entries) for source in self._listed())

    def _listed(self) -> Iterable[Source]:
        """The sources; the same again where they are kept."""
        return self._kept if self.keep_sources else self.sources()

    @functools.cached_property
    def _kept(self) -> list[Source]:
        return [*self.sources()]

    @property
    def where(self) -> str:
        """How messages name the source: its setting, or the folder that archives are fetched to."""
        if self.options.source:
            return f"{SETTING} {self.options.source}"
        return f"{self.name} in {self.download_dir}"

    def refusal(self, fatal: Sequence[Rejected]) -> str:
        shown = "; ".join(f"{item.path} ({item.reason})" for item in fatal[:20])
        return (
            f"{self.where}: corrupt archive, {len(fatal)} member(s) cannot be "
            f"unpacked: {shown}{' ...' if len(fatal) > 20 else ''}. Copy or download it again."
        )


def directory_name(path: str, *marks: str) -> str:
    """A name for a built data set: the source's own, and a hash of its path and `marks`."""
    stem = pathlib.Path(path).stem
    digest = hashlib.sha256("\n".join((path, *marks)).encode())
    slug = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:40]
    return f"{slug or 'images'}-{digest.hexdigest()[:12]}"
