"""A folder or archive of class folders as a data set; see README.md beside this file.

Reads the source; writes nothing but what its base class writes.
"""

import collections
import functools
from collections.abc import Sequence

from data_builders._entries import SETTING, Entry, Source
from data_builders._files_builder import FilesBuilder, directory_name
from data_builders._sources import FolderSource, open_source
from data_builders.base import Record
from data_builders.image_folder import _tree
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

NO_CLASS_FOLDER = "not in a class folder"


class Builder(FilesBuilder):
    """Class folders at any nesting, as they lie on disk or in an archive."""

    licence = "that of the source folder"
    accepts = frozenset({"source", "taxonomy_csv"})

    def directory_name(self) -> str:
        """The source's name and a hash of its path, its files' names, sizes and dates, the tree."""
        tree = [] if self._given_taxonomy is None else [repr(self._given_taxonomy.to_json())]
        return directory_name(self.options.source or "", self._source.fingerprint(), *tree)

    def taxonomy(self) -> Taxonomy:
        return self._tree[0]

    def num_records(self) -> int:
        return len(self._images)

    def sources(self) -> Sequence[Source]:
        return [self._source]

    def record(self, source: Source, entry: Entry, data: bytes, size: tuple[int, int]) -> Record:
        below = entry.path.removeprefix(self._top)
        # A folder grows: with classes beside those of today the path below it stays, and so does
        # the part of the split that an image is in. What wraps an archive says nothing.
        identifier = entry.path if isinstance(source, FolderSource) else below
        return Record(identifier, self._tree[1][below.rpartition("/")[0]], data, *size)

    @functools.cached_property
    def _top(self) -> str:
        """The folder that holds all class folders, with its "/"."""
        return _tree.common_top(entry.path for entry in self._images)

    @functools.cached_property
    def _source(self) -> Source:
        source = open_source(self.options.source)
        for entry in source.entries:
            if not entry.problem and "/" not in entry.path:
                entry.problem = NO_CLASS_FOLDER
        return source

    @functools.cached_property
    def _images(self) -> list[Entry]:
        return [entry for entry in self._source.entries if not entry.problem]

    @functools.cached_property
    def _given_taxonomy(self) -> Taxonomy | None:
        if self.options.taxonomy_csv is None:
            return None
        try:
            return Taxonomy.from_csv(self.options.taxonomy_csv)
        except UserError as error:
            raise UserError(
                *(f"config.data.taxonomy_csv: {problem}" for problem in error.problems)
            ) from error

    @functools.cached_property
    def _tree(self) -> tuple[Taxonomy, dict[str, int]]:
        """The taxonomy and the leaf of each folder that holds images."""
        where = f"{SETTING} {self.options.source}"
        if not self._images:
            raise UserError(f"{where}: {_no_images(self._source.entries)}")
        paths = [entry.path for entry in self._images]
        folders = sorted({path.removeprefix(self._top).rpartition("/")[0] for path in paths})
        if self._given_taxonomy is None:
            tree, leaves = _tree.from_folders(folders, where)
        else:
            tree, leaves = _tree.match(folders, self._given_taxonomy, where)
        if len(set(leaves.values())) < 2:
            raise UserError(
                f'{where}: holds images of one class only, "{folders[0]}". A classifier needs two '
                "or more class folders with images."
            )
        return tree, leaves


def _no_images(entries: list[Entry]) -> str:
    """What to say of a source without a single image in a class folder."""
    if not entries:
        return "is empty. Needed: one folder of images (jpg, png, tif, bmp) a class."
    counts = collections.Counter(entry.problem for entry in entries)
    found = ", ".join(f"{count} {problem}" for problem, count in counts.items())
    return (
        f"no images in class folders. Found: {found}. Needed: one folder of images (jpg, png, tif, "
        "bmp) a class."
    )
