"""Lists and reads the files of a folder or an archive, and refuses what leads out of it.

Reads the source; writes nothing.
"""

import contextlib
import hashlib
import io
import os
import pathlib
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from data_builders._entries import (
    LINK_BROKEN,
    LINK_FOLDER,
    LINK_OUTSIDE,
    NAME_TWICE,
    NOT_REGULAR,
    PATH_OUTSIDE,
    SETTING,
    CorruptMemberError,
    Entry,
    Source,
    is_ignored,
    problem_of,
)
from plankton_jax.errors import UserError

ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that unpack no more of a file than is asked for."""


def open_source(path: str | None) -> Source:
    """Lists a folder, a zip archive or a tar archive.

    Raises:
      UserError: nothing there, none of these, not allowed to be read.
    """
    if not path:
        raise UserError(
            f"{SETTING}: not set. Set it to a folder with one folder of images a class, or to a "
            "zip archive of such a folder."
        )
    root = pathlib.Path(path).expanduser()
    try:
        if root.is_dir():
            return FolderSource(root)
        if root.is_file():
            return TarSource(root) if _is_tar(root) else ZipSource(root)
    except OSError as error:
        raise UserError(f"{SETTING} {path}: cannot be read ({error}).") from error
    if root.exists():
        raise UserError(f"{SETTING} {path}: is neither a folder nor an archive.")
    there = next((parent for parent in root.absolute().parents if parent.exists()), root)
    raise UserError(f"{SETTING} {path}: is not there. What exists of the path is {there}.")


class FolderSource:
    """All files below a folder, sorted by path."""

    def __init__(self, root: pathlib.Path):
        self.path = root
        self._root = root.resolve()
        self.entries = sorted(self._list(self._root, ""), key=lambda entry: entry.path)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for entry in self.entries:
            line = f"{entry.path}\0{entry.size}\0{entry.stamp}\0{entry.problem}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def read(self, entry: Entry) -> bytes:
        return (self._root / entry.path).read_bytes()

    def open(self, entry: Entry) -> BinaryIO:
        return (self._root / entry.path).open("rb")

    def close(self) -> None:
        """Nothing is held open."""

    def _list(self, folder: pathlib.Path, prefix: str) -> Iterator[Entry]:
        with os.scandir(folder) as files:
            for file in files:
                if is_ignored(file.name):
                    continue
                path = prefix + file.name
                if file.is_symlink():
                    yield self._link(path)
                elif file.is_dir():
                    yield from self._list(folder / file.name, path + "/")
                else:
                    yield self._regular(path, file.stat())

    def _regular(self, path: str, status: os.stat_result) -> Entry:
        problem = problem_of(path, status.st_size)
        if not stat.S_ISREG(status.st_mode):
            problem = NOT_REGULAR
        return Entry(path, status.st_size, status.st_mtime_ns, problem)

    def _link(self, path: str) -> Entry:
        """Follows a link to a file within the folder; folders are met by their own name."""
        try:
            target = (self._root / path).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
            return Entry(path, problem=LINK_BROKEN)
        if not target.is_relative_to(self._root):
            return Entry(path, problem=LINK_OUTSIDE)
        if target.is_dir():
            return Entry(path, problem=LINK_FOLDER)
        return self._regular(path, target.stat())


class ZipSource:
    """All members of a zip archive, sorted by path; nothing is unpacked to disk."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        status = path.stat()
        self._fingerprint = f"{status.st_size} {status.st_mtime_ns}"
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise UserError(
                f"{SETTING} {path}: is neither a folder nor a whole zip or tar archive "
                f"({error}). "
                "Copy or download it again."
            ) from error
        self._lock = threading.Lock()
        self._members = self._archive.infolist()
        if any(member.flag_bits & 1 for member in self._members):
            raise UserError(f"{SETTING} {path}: is encrypted. Give an archive without a password.")
        methods = {member.compress_type for member in self._members} - set(ZIP_METHODS)
        if methods:
            raise UserError(
                f"{SETTING} {path}: holds files compressed by method {min(methods)} of the zip "
                "format; read are those stored as they are (0) or compressed by deflate (8). "
                "Unpack it and give the folder, or make the archive anew with deflate."
            )
        self.entries = sorted(self._list(), key=lambda entry: entry.path)

    def fingerprint(self) -> str:
        return self._fingerprint

    def read(self, entry: Entry) -> bytes:
        member = self._members[entry.member]
        try:
            # A member may hold far more than it says: no more than that is unpacked.
            with self._opened().open(member) as file:
                data = file.read(entry.size)
            if len(data) != entry.size:
                raise EOFError(f"{len(data)} bytes, {entry.size} by the archive's listing")
            return data
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise CorruptMemberError(str(error)) from error

    def open(self, entry: Entry) -> BinaryIO:
        try:
            return cast("BinaryIO", self._opened().open(self._members[entry.member]))
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise CorruptMemberError(str(error)) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._archive.close()

    def _opened(self) -> zipfile.ZipFile:
        """The archive, opened again where it was closed."""
        with self._lock:
            if self._archive.fp is None:
                self._archive = zipfile.ZipFile(self.path)
            return self._archive

    def _list(self) -> Iterator[Entry]:
        seen: set[str] = set()
        for number, member in enumerate(self._members):
            # Some programs on Windows write backslashes into archives.
            path = _without_dots(member.filename.replace("\\", "/"))
            outside = _leads_outside(path)
            if not outside and (member.is_dir() or path.endswith("/") or is_ignored(path)):
                continue
            problem = problem_of(path, member.file_size)
            if outside:
                problem = PATH_OUTSIDE
            elif stat.S_ISLNK(member.external_attr >> 16):
                problem = LINK_OUTSIDE
            elif path in seen:
                problem = NAME_TWICE
            seen.add(path)
            yield Entry(path, member.file_size, problem=problem, member=number)


class TarSource:
    """All members of an uncompressed tar archive in its order; nothing is unpacked to disk."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        status = path.stat()
        self._fingerprint = f"{status.st_size} {status.st_mtime_ns}"
        self.entries = list(self._list(status.st_size))
        self._descriptor = -1  # opened when the first file is read
        self._lock = threading.Lock()

    def fingerprint(self) -> str:
        return self._fingerprint

    def read(self, entry: Entry) -> bytes:
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = os.open(self.path, os.O_RDONLY)
        data = os.pread(self._descriptor, entry.size, entry.member)
        if len(data) != entry.size:
            raise CorruptMemberError("the archive ends before it")
        return data

    def open(self, entry: Entry) -> BinaryIO:
        return io.BufferedReader(_Section(self.path, entry.member, entry.size))

    def close(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _list(self, file_size: int) -> Iterator[Entry]:
        seen: set[str] = set()
        try:
            with tarfile.open(self.path, "r:") as archive:
                listed: Any = archive
                while (member := archive.next()) is not None:
                    listed.members.clear()  # a million of them would take a gigabyte
                    path = _without_dots(member.name)
                    if member.isdir() or (is_ignored(path) and not _leads_outside(path)):
                        continue
                    problem = problem_of(path, member.size)
                    if _leads_outside(path):
                        problem = PATH_OUTSIDE
                    elif member.islnk() or member.issym():
                        problem = LINK_OUTSIDE
                    elif not member.isreg():
                        problem = NOT_REGULAR
                    elif path in seen:
                        problem = NAME_TWICE
                    seen.add(path)
                    if member.offset_data + member.size > file_size:
                        raise tarfile.ReadError("it ends in the middle of a member")
                    yield Entry(path, member.size, problem=problem, member=member.offset_data)
        except tarfile.TarError as error:
            raise UserError(
                f"{SETTING} {self.path}: is no whole tar archive ({error}). Copy or download it "
                "again; one that is compressed has to be decompressed first."
            ) from error


class _Section(io.RawIOBase):
    """A range of a file's bytes, as a file."""

    def __init__(self, path: pathlib.Path, start: int, size: int):
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _is_tar(path: pathlib.Path) -> bool:
    """Whether the file begins as a tar archive does, or is named as one and begins as no zip."""
    with path.open("rb") as file:
        begin = file.read(262)
    named = ".tar" in path.name or path.suffix == ".tgz"
    return begin[257:] == b"ustar" or (named and begin[:2] != b"PK")


def _without_dots(path: str) -> str:
    """The path without a leading `./`."""
    while path.startswith("./"):
        path = path[2:]
    return path


def _leads_outside(path: str) -> bool:
    """Whether a member's path would leave the folder that the archive is unpacked in."""
    return path.startswith("/") or ".." in path.split("/") or path[1:3] == ":/"
