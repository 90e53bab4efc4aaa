"""Reads and inspects the files of a source, several at a time, and gives them in their order.

Reads the source; writes nothing.
"""

import collections
import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Sequence

import cv2

from data_builders._entries import CorruptMemberError, Entry, Source
from data_builders._images import UnusableImage, inspect_image

CANNOT_OPEN = "unreadable: cannot be opened"
CHUNK_FILES = 32
CHUNK_BYTES = 8 << 20
MAX_WORKERS = 8

Inspected = tuple[Entry, bytes, tuple[int, int] | str]
"""A file, its bytes, and its height and width or the reason why it is left out."""


def inspect_files(source: Source, entries: Sequence[Entry]) -> Iterator[Inspected]:
    """Every file in its order, some chunks ahead; those with a problem are not read."""
    workers = min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    inspect = functools.partial(_inspect_chunk, source)
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


def _inspect_chunk(source: Source, chunk: list[Entry]) -> list[Inspected]:
    return [_inspect(source, entry) for entry in chunk]


def _inspect(source: Source, entry: Entry) -> Inspected:
    if entry.problem:
        return entry, b"", entry.problem
    try:
        data = source.read(entry)
        return entry, data, inspect_image(data)
    except CorruptMemberError as error:
        entry.corrupt = True
        return entry, b"", f"cannot be unpacked: {error}"
    except UnusableImage as error:
        return entry, b"", str(error)
    except OSError:
        return entry, b"", CANNOT_OPEN


@contextlib.contextmanager
def _silent_opencv() -> Iterator[None]:
    """Keeps OpenCV from printing what is wrong with a file: that goes into rejected.csv."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
