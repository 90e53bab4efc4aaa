"""Reads comma-separated tables that come with images, a piece at a time. Reads the source alone."""

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

import pyarrow as pa
from pyarrow import csv as arrow_csv

from data_builders import _entries
from data_builders._entries import CorruptMemberError, Entry, Source

PIECE_BYTES = 1 << 20


class UnreadableTable(Exception):
    """A table cannot be read; the text names it and says why."""


class MissingColumn(Exception):
    """A table lacks a column.

    Attributes:
      found: the columns that it has.
    """

    def __init__(self, name: str, column: str, found: Sequence[str]):
        super().__init__(f"{name} has no column {column}; it has {', '.join(found)}")
        self.found = tuple(found)


def table_batches(
    source: Source, name: str, columns: Sequence[str] = (), *, nulls: bool = False
) -> Iterator[pa.RecordBatch]:
    """The rows of the table `name` (gzipped if it ends so) of a source, as text.

    About a megabyte of it at a time: tables of a million rows and dozens of columns take more
    memory than the listing of the images. Arrow's own reader of pieces is not used: it reads ahead
    in a thread, which ends the process if the table is left in the middle.

    Args:
      columns: those wanted; none: all.
      nulls: whether empty fields and what stands for a missing number become null; text may be in
        any encoding then.

    Yields:
      Batches of text columns, one at least, which may have no rows; none when the source does not
      have the table.

    Raises:
      MissingColumn: it lacks one.
      UnreadableTable: it cannot be read.
    """
    entry = next((e for e in source.entries if e.path.rpartition("/")[2] == name), None)
    if entry is None:
        return
    try:
        with source.open(entry) as opened:
            file = opened
            if name.endswith(".gz"):
                file = cast("BinaryIO", _BoundedGzip(fileobj=opened))
            yield from _batches(file, entry, columns, nulls)
    except (
        OSError,
        EOFError,
        UnicodeDecodeError,
        zlib.error,
        zipfile.BadZipFile,
        csv.Error,
        CorruptMemberError,
        pa.ArrowException,
    ) as error:
        raise UnreadableTable(f"{entry.path} cannot be read as a table ({error})") from error


def _batches(
    file: BinaryIO, entry: Entry, columns: Sequence[str], nulls: bool
) -> Iterator[pa.RecordBatch]:
    if entry.size > _entries.MAX_TABLE_BYTES:
        raise CorruptMemberError(f"over {_entries.MAX_TABLE_BYTES >> 30} GiB")
    header = next(csv.reader([file.readline().decode("utf-8-sig")]), [])
    if not header:
        raise EOFError("it is empty")
    for column in columns:
        if column not in header:
            raise MissingColumn(entry.path, column, header)
    read = arrow_csv.ReadOptions(column_names=header, use_threads=False)
    convert = arrow_csv.ConvertOptions(
        include_columns=list(columns or header),
        column_types=dict.fromkeys(columns or header, pa.string()),
        strings_can_be_null=nulls,
        check_utf8=not nulls,
    )
    yield pa.RecordBatch.from_pylist([], pa.schema((n, pa.string()) for n in columns or header))
    rest = b""
    while piece := file.read(PIECE_BYTES):
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            yield from _parsed(whole + newline, read, convert)
    yield from _parsed(rest, read, convert)


def _parsed(text: bytes, read: arrow_csv.ReadOptions, convert: arrow_csv.ConvertOptions):
    """Whole lines as batches."""
    if text.strip():
        table = arrow_csv.read_csv(io.BytesIO(text), read_options=read, convert_options=convert)
        yield from table.combine_chunks().to_batches()


class _BoundedGzip(gzip.GzipFile):
    """A gzipped table, read piece by piece, that does not grow without end."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > _entries.MAX_TABLE_BYTES:
            raise OSError(f"over {_entries.MAX_TABLE_BYTES >> 30} GiB once it is decompressed")
        return data
