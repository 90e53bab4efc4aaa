"""What of a data set is written so far, so that a build that is stopped goes on where it was.

Shards are filled one after the other in a folder of their own. When one is full, its part of the
index is written beside it, and then the journal, which alone says what counts. A build that begins
anew with the same source takes up what the journal names and throws away the rest. Touches its
folder alone.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Sequence

import pyarrow as pa

from data_builders import _index
from data_builders._shards import Record, ShardWriter, serialise
from plankton_jax.files import replacing

JOURNAL_FILE = "journal.json"
MAX_SHARD_BYTES = 256 << 20
MAX_SHARD_RECORDS = 1 << 18


@dataclasses.dataclass(slots=True)
class Rejected:
    """Something in a source that is left out.

    Attributes:
      path: within the source.
      reason: few different ones; they are counted.
      fatal: whether the source is to be refused for it, once all of it has been looked at.
    """

    path: str
    reason: str
    fatal: bool = False


@dataclasses.dataclass(slots=True)
class _Part:
    """A whole shard: its records and bytes, and its file's size."""

    records: int
    bytes: int
    file_size: int


class Staging:
    """The shards and index of an unfinished data set.

    Attributes:
      position: items of the source taken so far; at first those that are safe, behind which the
        build goes on.
      rejected: what was left out so far.
    """

    def __init__(self, directory: pathlib.Path, num_leaves: int, features: Sequence[str]):
        """Takes up what is in `directory`, if anything is."""
        self._directory = directory
        self._num_leaves, self._features = num_leaves, tuple(features)
        directory.mkdir(parents=True, exist_ok=True)
        self._parts, self.rejected, self.position = _read_journal(directory)
        keep = {JOURNAL_FILE, *(name(n) for n in range(len(self._parts))
                                for name in (_shard_name, _index_name))}  # fmt: skip
        for path in directory.iterdir():
            if path.name not in keep:
                path.unlink()
        self._begin()

    def __len__(self) -> int:
        """Records so far."""
        return sum(part.records for part in self._parts) + len(self._index)

    def add(self, item: Record | Rejected) -> None:
        """Takes the next item of the source.

        Raises:
          RuntimeError: the shard cannot be written; the text is the operating system's.
        """
        if isinstance(item, Rejected):
            self.rejected.append(item)
        else:
            serialised = serialise(item)
            full = self._writer.num_bytes + len(serialised) > MAX_SHARD_BYTES
            if len(self._index) and (full or len(self._index) >= MAX_SHARD_RECORDS):
                self.save()
            self._writer.write(serialised)
            self._index.add(item)
        self.position += 1

    def save(self) -> None:
        """Makes all items so far safe."""
        self._writer.close()
        if len(self._index):
            number = len(self._parts)
            shard = self._directory / _shard_name(number)
            _index.write_index(self._directory / _index_name(number), self._index.batch())
            size = shard.stat().st_size
            self._parts.append(_Part(len(self._index), self._writer.num_bytes, size))
        self._write_journal()

    def adopt(self, other: "Staging") -> None:
        """Takes over all that `other` has saved, behind what is here; `other` is removed."""
        for number in range(len(other._parts)):
            for name in (_shard_name, _index_name):
                place = self._directory / name(len(self._parts) + number)
                (other._directory / name(number)).rename(place)
        self._parts += other._parts
        self.rejected += other.rejected
        self.position += other.position
        self._write_journal()
        other.remove()

    def _write_journal(self) -> None:
        journal = {
            "position": self.position,
            "parts": [dataclasses.asdict(part) for part in self._parts],
            "rejected": [dataclasses.astuple(item) for item in self.rejected],
        }
        with replacing(self._directory / JOURNAL_FILE) as temporary:
            temporary.write_text(json.dumps(journal), encoding="utf-8")
        self._begin()

    def index(self) -> pa.RecordBatch:
        """The index of all that is saved, with content hashes and features.

        Column by column: features of a million images are hundreds of megabytes, which are not to
        lie in memory twice, mapped and copied.
        """
        empty = _index.IndexPart(self._num_leaves, self._features).batch()
        if not self._parts:
            return empty
        paths = [self._directory / _index_name(number) for number in range(len(self._parts))]
        columns = [
            pa.concat_arrays([_read_batch(path).column(place) for path in paths])
            for place in range(empty.num_columns)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=empty.schema)

    def shards(self) -> tuple[list[int], int]:
        """Records of every shard, and bytes of all."""
        return [part.records for part in self._parts], sum(part.bytes for part in self._parts)

    def move_shards(self, paths: Sequence[pathlib.Path]) -> None:
        """Gives every shard its final name; what is left is removed with `remove`."""
        for number, path in enumerate(paths):
            (self._directory / _shard_name(number)).rename(path)

    def stop(self, *, keep: bool) -> None:
        """Ends a build that did not come to its end; removes everything unless a shard is whole."""
        self._writer.close()
        if not (keep and self._parts):
            self.remove()

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _begin(self) -> None:
        self._writer = ShardWriter(self._directory / _shard_name(len(self._parts)))
        self._index = _index.IndexPart(self._num_leaves, self._features)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}"


def _index_name(number: int) -> str:
    return f"index-{number:05d}.arrow"


def _read_batch(path: pathlib.Path) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(0)


def _read_journal(directory: pathlib.Path) -> tuple[list[_Part], list[Rejected], int]:
    """The parts that are whole, in order, what was rejected, and the items done; nothing when there
    is a doubt."""
    try:
        journal = json.loads((directory / JOURNAL_FILE).read_text(encoding="utf-8"))
        parts = [_Part(**part) for part in journal["parts"]]
        rejected = [Rejected(*item) for item in journal["rejected"]]
        position = int(journal["position"])
        for number, part in enumerate(parts):
            if (directory / _shard_name(number)).stat().st_size != part.file_size:
                return [], [], 0
            if _read_batch(directory / _index_name(number)).num_rows != part.records:
                return [], [], 0
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return [], [], 0
    return parts, rejected, position
