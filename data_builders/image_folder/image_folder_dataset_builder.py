"""A folder (or a zip archive) of class folders as a data set; see README.md beside this file.

Reads the source, several files at a time; writes nothing but what its base class writes.
"""

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

import cv2

from data_builders._images import UnusableImage, inspect_image
from data_builders._sources import (
    SETTING,
    CorruptMemberError,
    Entry,
    Source,
    ZipSource,
    open_source,
)
from data_builders.base import PlanktonBuilder, Record
from data_builders.image_folder import _tree
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

NO_CLASS_FOLDER = "not in a class folder"
CANNOT_OPEN = "unreadable: cannot be opened"
CHUNK_FILES = 32
CHUNK_BYTES = 8 << 20
MAX_WORKERS = 8

Inspected = tuple[Entry, bytes, tuple[int, int] | str]
"""A file, its bytes, and its height and width or the reason why it is left out."""


class Builder(PlanktonBuilder):
    """Class folders at any nesting, as they lie on disk or in a zip archive."""

    licence = "that of the source folder"
    accepts = frozenset({"source", "taxonomy_csv"})

    def directory_name(self) -> str:
        """The source's name and a hash of its path, its files' names, sizes and dates, the tree."""
        path = pathlib.Path(self.options.source or "")
        digest = hashlib.sha256(f"{path}\n{self._source.fingerprint()}".encode())
        if self._given_taxonomy is not None:
            digest.update(repr(self._given_taxonomy.to_json()).encode())
        slug = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-")[:40]
        return f"{slug or 'images'}-{digest.hexdigest()[:12]}"

    def taxonomy(self) -> Taxonomy:
        return self._tree[0]

    def num_records(self) -> int:
        return len(self._images)

    def records(self) -> Iterator[Record]:
        _, leaf_of_folder = self._tree
        for entry in self._source.entries:
            if entry.problem:
                self.reject(entry.path, entry.problem)
        corrupt: list[str] = []
        top = _tree.common_top(entry.path for entry in self._images)
        for entry, data, result in _inspect_all(self._source, self._images, corrupt):
            if isinstance(result, str):
                self.reject(entry.path, result)
                continue
            below = entry.path.removeprefix(top)
            # A folder grows: with classes beside those of today the path below it stays, and so
            # does the part of the split that an image is in. What wraps an archive says nothing.
            identifier = below if isinstance(self._source, ZipSource) else entry.path
            yield Record(identifier, leaf_of_folder[below.rpartition("/")[0]], data, *result)
        self._source.close()
        if corrupt:
            shown = "; ".join(corrupt[:20]) + (" ..." if len(corrupt) > 20 else "")
            raise UserError(
                f"{SETTING} {self.options.source}: corrupt zip archive, {len(corrupt)} member(s) "
                f"cannot be unpacked: {shown}. Copy or download it again."
            )

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
        prefix = _tree.common_top(paths)
        folders = sorted({path.removeprefix(prefix).rpartition("/")[0] for path in paths})
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


def _inspect_all(source: Source, entries: list[Entry], corrupt: list[str]) -> Iterator[Inspected]:
    """Reads and inspects the files, some chunks ahead, and gives them in their order."""
    workers = min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    inspect = functools.partial(_inspect_chunk, source, corrupt)
    with _silent_opencv(), concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque[concurrent.futures.Future[list[Inspected]]] = collections.deque()
        try:
            for chunk in _chunks(entries):
                waiting.append(pool.submit(inspect, chunk))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Neighbouring files, few and small enough to be held in memory together."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        if chunk and (len(chunk) == CHUNK_FILES or size + entry.size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += entry.size
    if chunk:
        yield chunk


def _inspect_chunk(source: Source, corrupt: list[str], chunk: list[Entry]) -> list[Inspected]:
    return list(itertools.chain.from_iterable(_inspect(source, corrupt, file) for file in chunk))


def _inspect(source: Source, corrupt: list[str], entry: Entry) -> Iterator[Inspected]:
    """One file, or nothing when it is a member of an archive that cannot be unpacked."""
    try:
        data = source.read(entry)
        yield entry, data, inspect_image(data)
    except CorruptMemberError as error:
        corrupt.append(f"{entry.path} ({error})")
    except UnusableImage as error:
        yield entry, b"", str(error)
    except OSError:
        yield entry, b"", CANNOT_OPEN


@contextlib.contextmanager
def _silent_opencv() -> Iterator[None]:
    """Keeps OpenCV from printing what is wrong with a file: that goes into rejected.csv."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
