"""Files of a source, and what tells that one of them is left out. Reads nothing by itself."""

import dataclasses
import pathlib
from typing import BinaryIO, Protocol

SETTING = "config.data.source"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
MAX_FILE_BYTES = 64 << 20
MAX_TABLE_BYTES = 2 << 30
"""Of a table or text that comes with images, as it is listed and once it is decompressed."""
IGNORED_NAMES = ("thumbs.db", "desktop.ini", "__macosx")

NOT_AN_IMAGE = "not an image"
NOT_REGULAR = "not a regular file"
LINK_OUTSIDE = "symbolic link that points outside"
LINK_BROKEN = "symbolic link that points nowhere"
LINK_FOLDER = "symbolic link to a folder"
PATH_OUTSIDE = "path that leads outside the archive"
NAME_TWICE = "name occurs twice in the archive"
NAME_NOT_UTF8 = "name is not UTF-8"
FILE_TOO_LARGE = f"file over {MAX_FILE_BYTES >> 20} MiB"


@dataclasses.dataclass(slots=True)
class Entry:
    """A file of a source.

    Attributes:
      path: relative to the source, with "/" between its parts.
      size: bytes.
      stamp: when it was changed last, in nanoseconds; 0 within an archive.
      problem: why it is left out; "" when it is an image by its name.
      member: number of the file within a zip archive, or where its bytes begin in a tar archive.
      corrupt: whether it turned out that it cannot be unpacked.
    """

    path: str
    size: int = 0
    stamp: int = 0
    problem: str = ""
    member: int = -1
    corrupt: bool = False


class CorruptMemberError(Exception):
    """A member of an archive cannot be unpacked; the argument says why."""


class Source(Protocol):
    """A folder or an archive, listed once.

    Attributes:
      path: where it is.
      entries: its files.
    """

    path: pathlib.Path
    entries: list[Entry]

    def fingerprint(self) -> str:
        """Changes when the files do."""
        ...

    def read(self, entry: Entry) -> bytes:
        """The bytes of a file; may be called from several threads."""
        ...

    def open(self, entry: Entry) -> BinaryIO:
        """A large file, to be read piece by piece and closed."""
        ...

    def close(self) -> None:
        """Lets go of open files."""
        ...


def problem_of(path: str, size: int) -> str:
    """What tells from name and size that a file is left out."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return NAME_NOT_UTF8
    if not path.lower().endswith(IMAGE_SUFFIXES):
        return NOT_AN_IMAGE
    return FILE_TOO_LARGE if size > MAX_FILE_BYTES else ""


def is_ignored(path: str) -> bool:
    """Files that systems leave behind in folders."""
    return any(part.startswith(".") or part.lower() in IGNORED_NAMES for part in path.split("/"))


def read_table_file(source: Source, entry: Entry) -> bytes:
    """The bytes of a file that is no image.

    Raises:
      CorruptMemberError: it cannot be unpacked or is too large.
      OSError: it cannot be opened.
    """
    if entry.size > MAX_TABLE_BYTES:
        raise CorruptMemberError(f"over {MAX_TABLE_BYTES >> 30} GiB")
    return source.read(entry)
