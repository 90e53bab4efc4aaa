"""The files of a built data set beside its records: what they must hold, and what is said when they
do not. Reads them and touches nothing else.
"""

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa

from plankton_jax.errors import UserError
from plankton_jax.files import read_json
from plankton_jax.taxonomy import Taxonomy

FORMAT_VERSION = 1
INDEX_FILE = "index.arrow"
TAXONOMY_FILE = "taxonomy.json"
METADATA_FILE = "metadata.json"
SHARDS_FILE = "dataset_info.json"
FEATURES_FILE = "features.arrow"
NUMBER_COLUMNS = {
    "leaf": pa.int32(),
    "height": pa.int32(),
    "width": pa.int32(),
    "bytes": pa.int32(),
    "hash": pa.uint64(),
}
TEXT_COLUMNS = {"id": pa.string(), "group": pa.string(), "split": pa.string()}

REBUILD = "Build the data set again."


def read_metadata(directory: pathlib.Path) -> dict[str, Any]:
    """Name, fingerprint, counts and pixel statistics."""
    path = directory / METADATA_FILE
    metadata = read_json(path, REBUILD)
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"data set file {path}: found format_version {version!r}; this version reads "
            f"{FORMAT_VERSION}. {REBUILD}"
        )
    kinds = {"name": str, "fingerprint": str, "num_examples": int, "mean": float, "std": float}
    wrong = [
        f"data set file {path}: found {name} = {metadata.get(name)!r}; a {kind.__name__} is "
        f"needed. {REBUILD}"
        for name, kind in kinds.items()
        if not isinstance(metadata.get(name), (kind, int) if kind is float else kind)
    ]
    if wrong:
        raise UserError(*wrong)
    if metadata["std"] <= 0:
        raise UserError(
            f"data set file {path}: std is {metadata['std']}: all images are of one and the same "
            "grey level, and there is nothing to be learned from them. Give other images."
        )
    return metadata


def read_taxonomy(directory: pathlib.Path) -> Taxonomy:
    """The tree of classes."""
    path = directory / TAXONOMY_FILE
    value = read_json(path, REBUILD)
    try:
        return Taxonomy.from_json(value)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"data set file {path}: is not a taxonomy. {REBUILD}") from error


def map_index(path: pathlib.Path) -> pa.RecordBatch:
    """The index as one record batch over the mapped file."""
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            batches = reader.num_record_batches
            batch = reader.get_batch(0) if batches == 1 else None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"data set file {path}: cannot be read ({error}). {REBUILD}") from error
    if batch is None:
        raise UserError(f"data set file {path}: found {batches} record batches, not 1. {REBUILD}")
    columns = NUMBER_COLUMNS | TEXT_COLUMNS
    found = dict(zip(batch.schema.names, batch.schema.types, strict=True))
    wrong = [
        f"data set file {path}: column {name} is {found.get(name, 'missing')}; {kind} is needed. "
        f"{REBUILD}"
        for name, kind in columns.items()
        if found.get(name) != kind or batch.column(name).null_count
    ]
    if wrong:
        raise UserError(*wrong)
    return batch


def map_features(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The numbers that came with the images, by name, mapped; none where there is no such file."""
    if not path.is_file():
        return {}
    try:
        with pa.memory_map(str(path)) as source:
            batch = pa.ipc.open_file(source).get_batch(0)
        return {name: batch.column(name).to_numpy() for name in batch.schema.names}
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"data set file {path}: cannot be read ({error}). {REBUILD}") from error


def find_shards(directory: pathlib.Path) -> list[tuple[pathlib.Path, int]]:
    """Path and number of records of each shard, from TFDS's own description of the data set."""
    path = directory / SHARDS_FILE
    info = read_json(path, REBUILD)
    try:
        (split,) = info["splits"]
        lengths = [int(length) for length in split["shardLengths"]]
        if info["fileFormat"] != "array_record":
            raise ValueError(f"file format is {info['fileFormat']}")
        stem = f"{info['name']}-{split['name']}.array_record"
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"data set file {path}: does not describe one split in array_record shards "
            f"({error}). {REBUILD}"
        ) from error
    paths = [directory / f"{stem}-{i:05d}-of-{len(lengths):05d}" for i in range(len(lengths))]
    missing = [shard.name for shard in paths if not shard.is_file()]
    if missing:
        raise UserError(
            f"data set {directory}: {len(missing)} of {len(paths)} shards are missing, first "
            f"{missing[0]}. {REBUILD}"
        )
    return list(zip(paths, lengths, strict=True))
