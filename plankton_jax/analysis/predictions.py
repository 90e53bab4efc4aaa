"""The predictions table: one Parquet file with a row for each image of an evaluated part.

Columns: `id` (string), `label` (int32, the leaf), `logits_<level>` (fixed-size list of float32, one
column for each level, coarse to fine) and, where asked for, `embedding` (fixed-size list of
float16). What the rows mean stands in the file's metadata, as JSON under the key `plankton_jax`.
Written and read a row group at a time, so that millions of rows need little memory.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plankton_jax.errors import UserError
from plankton_jax.files import replacing
from plankton_jax.names import UNLABELLED
from plankton_jax.taxonomy import Taxonomy

FORMAT_VERSION = 1
METADATA_KEY = b"plankton_jax"
ROWS_PER_GROUP = 16_384
FLOAT16_LARGEST = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True, eq=False)
class Provenance:
    """What a table of predictions came from.

    Attributes:
      taxonomy: the tree that labels and logits refer to.
      split: the part that was evaluated, e.g. "test".
      run, step: name of the run directory, training step of the checkpoint.
      model, config_hash: name of the network, sha256 of the run's settings.
      training_counts: int64 `leaves`; training images of each class, the training prior.
      dataset, licence: name and licence of the data set.
      views: flips and quarter turns of each image that the probabilities are the mean of.
      decoder: how nodes follow from the logits of all levels; see `plankton_jax.decoding`.
      head: name of the network's head; older tables do not say.
    """

    taxonomy: Taxonomy
    split: str
    run: str
    step: int
    model: str
    config_hash: str
    training_counts: np.ndarray
    dataset: str
    licence: str
    views: int = 1
    decoder: str = "argmax"
    head: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; `levels` and `classes` repeat the tree for readers without this package."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {
            "format_version": FORMAT_VERSION,
            "taxonomy": self.taxonomy.to_json(),
            "levels": list(self.taxonomy.level_names),
            "classes": [list(names) for names in self.taxonomy.node_names],
            "training_counts": [int(count) for count in self.training_counts],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        # Older tables do not name what has a default.
        fields = {
            field.name: value[field.name]
            for field in dataclasses.fields(cls)
            if field.name in value or field.default is dataclasses.MISSING
        }
        fields["taxonomy"] = Taxonomy.from_json(value["taxonomy"])
        fields["training_counts"] = np.asarray(value["training_counts"], np.int64)
        return cls(**fields)


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of the table, as arrays.

    `ids` (empty unless asked for), `label` (int32 `b`, the true leaf), `logits` (for each level,
    coarse to fine, float32 `b k`), `embedding` (float16 `b d`; None if absent or not asked for).
    """

    ids: list[str]
    label: np.ndarray
    logits: tuple[np.ndarray, ...]
    embedding: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """A checked table on disk; its rows stay there. `embedding_size` is 0 when it has none."""

    path: pathlib.Path
    provenance: Provenance
    num_examples: int
    embedding_size: int

    @property
    def taxonomy(self) -> Taxonomy:
        """The tree that labels and logits refer to."""
        return self.provenance.taxonomy

    def batches(self, *, ids: bool = True, embedding: bool = True) -> Iterator[Rows]:
        """All rows, a row group at a time, in the order they were written.

        Raises:
          UserError: the file is damaged or has labels that the tree does not have.
        """
        columns = ["label", *_logits_columns(self.taxonomy)]
        columns += ["id"] if ids else []
        columns += ["embedding"] if embedding and self.embedding_size else []
        with _open(self.path) as file:
            for group in range(file.num_row_groups):
                try:
                    table = file.read_row_group(group, columns=columns, use_threads=False)
                except (OSError, pa.ArrowException) as error:
                    raise _damaged(self.path, error) from error
                yield self._rows(table)

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of ids and labels, whatever their order: equal where the images are the same."""
        pairs = [
            f"{identifier}\0{label}"
            for rows in self.batches(embedding=False)
            for identifier, label in zip(rows.ids, rows.label.tolist(), strict=True)
        ]
        return hashlib.sha256("\n".join(sorted(pairs)).encode()).hexdigest()

    def _rows(self, table: pa.Table) -> Rows:
        names, label = table.column_names, table["label"].to_numpy()
        least = -1 if self.provenance.split == UNLABELLED else 0
        if table.num_rows and not (least <= label.min() and label.max() < self.taxonomy.num_leaves):
            raise UserError(
                f"predictions {self.path}: labels {label.min()}..{label.max()} found; the tree in "
                f"its metadata allows 0..{self.taxonomy.num_leaves - 1}. Evaluate the run again."
            )
        return Rows(
            ids=table["id"].to_pylist() if "id" in names else [],
            label=label,
            logits=tuple(_matrix(table[name]) for name in _logits_columns(self.taxonomy)),
            embedding=_matrix(table["embedding"]) if "embedding" in names else None,
        )


class PredictionsWriter:
    """Writes a predictions table batch by batch; it appears under its name once it is complete.

    Use it in a `with` block: if the block ends in an error nothing is left behind. With
    `embedding_size` 0 the table gets no embeddings.
    """

    def __init__(self, path: pathlib.Path, provenance: Provenance, embedding_size: int = 0):
        self._path = pathlib.Path(path)
        self._schema = _schema(provenance, embedding_size)
        self._pending: list[pa.RecordBatch] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        split = [f"{name}.list.element" for name in self._schema.names[2:]]
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(replacing(self._path))
            self._writer = stack.enter_context(
                pq.ParquetWriter(
                    temporary,
                    self._schema,
                    compression="zstd",
                    use_dictionary=False,
                    use_byte_stream_split=split,  # pyright: ignore[reportArgumentType]
                )
            )
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _finish(self, error: type[BaseException] | None, *_: Any) -> None:
        if error is None:
            self._flush(0)

    def write(
        self,
        ids: Sequence[str],
        label: np.ndarray,
        logits: Sequence[np.ndarray],
        embedding: np.ndarray | None = None,
    ) -> None:
        """Appends rows.

        Args:
          ids, label, logits: ids, true leaves, and for each level, coarse to fine, `b k`.
          embedding: `b d`, exactly when the writer was made for embeddings. Stored as float16;
            what is too large for it is clipped to +-65504.

        Raises:
          ValueError: an array has another shape than the table's columns.
        """
        arrays: list[np.ndarray] = [np.asarray(level, np.float32) for level in logits]
        if embedding is not None:
            clipped = np.clip(np.asarray(embedding), -FLOAT16_LARGEST, FLOAT16_LARGEST)
            arrays.append(clipped.astype(np.float16))
        fields = list(self._schema)[2:]
        expected = [(len(ids), field.type.list_size) for field in fields]
        if len(label) != len(ids) or [array.shape for array in arrays] != expected:
            found = [array.shape for array in arrays]
            raise ValueError(
                f"{self._schema.names[2:]} take arrays of {expected} and {len(ids)} labels; "
                f"found {found} and {len(label)} labels"
            )
        columns = [pa.array(list(ids), pa.string()), pa.array(np.asarray(label, np.int32))]
        columns += [
            pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), type=field.type)
            for array, field in zip(arrays, fields, strict=True)
        ]
        self._pending.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        rows = sum(batch.num_rows for batch in self._pending)
        if rows >= ROWS_PER_GROUP:
            self._flush(rows % ROWS_PER_GROUP)

    def _flush(self, rest: int) -> None:
        """Writes what is pending but for the last `rest` rows, so that row groups are full."""
        table = pa.Table.from_batches(self._pending, self._schema)
        whole = table.num_rows - rest
        if whole:
            self._writer.write_table(table.slice(0, whole), row_group_size=ROWS_PER_GROUP)
        self._pending = table.slice(whole).to_batches()


def write_predictions(
    path: pathlib.Path,
    provenance: Provenance,
    ids: Sequence[str],
    label: np.ndarray,
    logits: Sequence[np.ndarray],
    embedding: np.ndarray | None = None,
) -> None:
    """Writes a whole table at once; see `PredictionsWriter.write` for the arguments."""
    with PredictionsWriter(path, provenance, 0 if embedding is None else embedding.shape[1]) as out:
        out.write(ids, label, logits, embedding)


def read_predictions(path: str | pathlib.Path) -> Predictions:
    """Opens a predictions table: reads and checks what its footer says, and no rows.

    Raises:
      UserError: the file is missing, cut short, of another origin or of another format version.
    """
    path = pathlib.Path(path)
    with _open(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    text = (schema.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise UserError(
            f"predictions {path}: a Parquet file, but not one of plankton_jax (its metadata has no "
            f'key "{METADATA_KEY.decode()}"). Give a file that `plankton_jax.evaluate` wrote.'
        )
    try:
        value = json.loads(text)
        version = value["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"predictions {path}: format version {version} found; this version of plankton_jax "
                f"reads {FORMAT_VERSION}. Evaluate the run again."
            )
        provenance = Provenance.from_json(value)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    size = schema.field("embedding").type.list_size if "embedding" in schema.names else 0
    if not schema.equals(_schema(provenance, size)):
        raise _damaged(path, "its columns are not those that its metadata describes")
    return Predictions(path, provenance, rows, size)


def _open(path: pathlib.Path) -> pq.ParquetFile:
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.parquet")))
        hint = f"In that folder: {there}." if there else "Evaluate the run first."
        raise UserError(f"predictions {path}: there is no such file. {hint}")
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: pathlib.Path, why: object) -> UserError:
    return UserError(
        f"predictions {path}: not a whole predictions table ({why}). Evaluate the run again."
    )


def _logits_columns(taxonomy: Taxonomy) -> list[str]:
    return [f"logits_{level}" for level in taxonomy.level_names]


def _schema(provenance: Provenance, embedding_size: int) -> pa.Schema:
    """The columns and the metadata of a table."""
    taxonomy = provenance.taxonomy
    fields = [pa.field("id", pa.string()), pa.field("label", pa.int32())]
    for name, nodes in zip(_logits_columns(taxonomy), taxonomy.node_names, strict=True):
        fields.append(pa.field(name, pa.list_(pa.float32(), len(nodes))))
    if embedding_size:
        fields.append(pa.field("embedding", pa.list_(pa.float16(), embedding_size)))
    return pa.schema(fields, {METADATA_KEY: json.dumps(provenance.to_json()).encode()})


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A fixed-size-list column as an array `b k`."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(parts) if parts else np.zeros(0, column.type.value_type.to_pandas_dtype())
    return flat.reshape(len(column), column.type.list_size)
