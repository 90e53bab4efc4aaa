"""The predictions table: what a network said of every image of a part.


Parquet with one row an image: `id`, `label` (leaf), `logits_<level>` for every level, coarse to fine,
`embedding`. The file's metadata holds names, tree, class counts of the training part and where the
predictions come from. Written in batches into a temporary file that takes its place at the end.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from plankton_jax.command import replacing
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

FORMAT_VERSION = 1
_KEY = b"plankton_jax"


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What a predictions file says of itself.

    Attributes:
      split: the part that was predicted.
      dataset, licence: name and licence of the data set.
      run, model, step, config_hash: the run directory's name, its network, checkpoint, settings.
      taxonomy: the tree of classes.
      train_counts: images of each leaf in the training part, the prior the network has seen.
    """

    split: str
    dataset: str
    licence: str
    run: str
    model: str
    step: int
    config_hash: str
    taxonomy: Taxonomy
    train_counts: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A predictions table in memory."""

    provenance: Provenance
    ids: list[str]
    label: Int[np.ndarray, " n"]
    level_logits: tuple[Float[np.ndarray, "n k"], ...]
    embedding: Float[np.ndarray, "n d"]

    @property
    def taxonomy(self) -> Taxonomy:
        """The tree of classes."""
        return self.provenance.taxonomy


class PredictionsWriter:
    """Writes batches to `path`. Leaving the `with` block by an error leaves no file."""

    def __init__(self, path: pathlib.Path, provenance: Provenance, embedding_dim: int):
        self._replacing = replacing(path)
        levels = zip(provenance.taxonomy.level_names, provenance.taxonomy.node_names, strict=True)
        fields = [pa.field("id", pa.string()), pa.field("label", pa.int32())]
        fields += [
            pa.field(f"logits_{name}", pa.list_(pa.float32(), len(nodes))) for name, nodes in levels
        ]
        fields.append(pa.field("embedding", pa.list_(pa.float16(), embedding_dim)))
        self._schema = pa.schema(fields, metadata={_KEY: _to_json(provenance)})

    def __enter__(self) -> Self:
        self._writer = pq.ParquetWriter(
            self._replacing.__enter__(), self._schema, compression="zstd"
        )
        return self

    def write(
        self,
        ids: Sequence[str],
        label: Int[np.ndarray, " b"],
        level_logits: Sequence[Float[np.ndarray, "b k"]],
        embedding: Float[np.ndarray, "b d"],
    ) -> None:
        """Appends one batch."""
        lists = [np.asarray(logits, np.float32) for logits in level_logits]
        # float16 ends at 65,504; an embedding beyond it is kept finite
        lists.append(np.clip(embedding, -65504, 65504).astype(np.float16))
        columns = [pa.array(ids, pa.string()), pa.array(label, pa.int32())]
        columns += [
            pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            for values in lists
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
        self._replacing.__exit__(kind, error, trace)


def _to_json(provenance: Provenance) -> str:
    fields = {f.name: getattr(provenance, f.name) for f in dataclasses.fields(provenance)}
    fields["taxonomy"] = provenance.taxonomy.to_json()
    fields["format_version"] = FORMAT_VERSION
    return json.dumps(fields)


def read_provenance(path: pathlib.Path) -> Provenance:
    """What the file says of itself; reads no row.

    Raises:
      UserError: no such file, or not a whole predictions table of this version.
    """
    try:
        fields: dict[str, Any] = json.loads(pq.read_schema(path).metadata[_KEY])
        if fields.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another format version")
        fields["taxonomy"] = Taxonomy.from_json(fields["taxonomy"])
        fields["train_counts"] = tuple(fields["train_counts"])
        return Provenance(**fields)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a predictions table ({error}). Make it again with "
            "python -m plankton_jax.evaluate."
        ) from error


def read_predictions(path: pathlib.Path) -> Predictions:
    """The whole table.

    Raises:
      UserError: as `read_provenance`.
    """
    provenance = read_provenance(path)
    try:
        table = pq.read_table(path).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({error}). Make it again.") from error
    return Predictions(
        provenance,
        table["id"].to_pylist(),
        table["label"].to_numpy(),
        tuple(_matrix(table[f"logits_{name}"]) for name in provenance.taxonomy.level_names),
        _matrix(table["embedding"]),
    )


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of lists of one length as `n k`."""
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # no rows at all
        return np.zeros((0, column.type.list_size), np.float32)
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)
