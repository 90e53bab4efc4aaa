"""The predictions table: read back as written, readable by others, and never half there."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plankton_jax.analysis import predictions as module
from plankton_jax.analysis.predictions import (
    PredictionsWriter,
    Provenance,
    read_predictions,
    write_predictions,
)
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

# Level and class names as real trees have them: dots, slashes, spaces, letters beyond ASCII.
TREE = Taxonomy.from_paths(
    ("level.1", "taxon/name"),
    [("living", "Calocalanus pavo"), ("not", "détritus"), ("living", "nauplii__Crustacea")],
)


@pytest.fixture
def provenance():
    return Provenance(
        taxonomy=TREE,
        split="test",
        run="v5",
        step=120,
        model="vit",
        config_hash="ab" * 32,
        training_counts=np.array([5, 0, 70]),
        dataset="synthetic",
        licence="CC0",
    )


def _rows(count: int, seed: int = 0, embedding: int = 4):
    generator = np.random.default_rng(seed)
    return (
        [f"{seed}/image {i}.png" for i in range(count)],
        generator.integers(0, 3, count).astype(np.int32),
        [generator.normal(size=(count, k)).astype(np.float32) for k in (2, 3)],
        generator.normal(size=(count, embedding)).astype(np.float16),
    )


def _read_all(table):
    batches = list(table.batches())
    ids = [name for rows in batches for name in rows.ids]
    label = np.concatenate([rows.label for rows in batches])
    logits = [np.concatenate([rows.logits[level] for rows in batches]) for level in (0, 1)]
    return ids, label, logits, batches


def test_what_was_written_is_read(tmp_path, provenance, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_GROUP", 32)
    path = tmp_path / "predictions" / "test.parquet"
    parts = [_rows(count, seed) for seed, count in enumerate((20, 1, 20, 0, 7))]
    with PredictionsWriter(path, provenance, embedding_size=4) as writer:
        for part in parts:
            writer.write(*part)
    table = read_predictions(path)
    assert table.num_examples == 48 and table.embedding_size == 4
    ids, label, logits, batches = _read_all(table)
    assert len(batches) == 2
    assert ids == [name for part in parts for name in part[0]]
    np.testing.assert_array_equal(label, np.concatenate([part[1] for part in parts]))
    for level in (0, 1):
        np.testing.assert_array_equal(
            logits[level], np.concatenate([part[2][level] for part in parts])
        )
    np.testing.assert_array_equal(
        np.concatenate([rows.embedding for rows in batches]),
        np.concatenate([part[3] for part in parts]),
    )
    found = table.provenance
    assert found.to_json() == provenance.to_json()
    np.testing.assert_array_equal(found.taxonomy.ancestors, TREE.ancestors)
    assert [file.name for file in path.parent.iterdir()] == ["test.parquet"]


def test_others_can_read_it(tmp_path, provenance):
    path = tmp_path / "t.parquet"
    ids, label, logits, embedding = _rows(5)
    write_predictions(path, provenance, ids, label, logits, embedding)
    table = pq.read_table(path)
    assert table.column_names == [
        "id",
        "label",
        "logits_level.1",
        "logits_taxon/name",
        "embedding",
    ]
    assert table.schema.field("logits_taxon/name").type == pa.list_(pa.float32(), 3)
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 4)
    np.testing.assert_array_equal(np.stack(table["logits_taxon/name"].to_pylist()), logits[1])
    metadata = json.loads(table.schema.metadata[b"plankton_jax"])
    assert metadata["classes"] == [list(names) for names in TREE.node_names]
    assert metadata["training_counts"] == [5, 0, 70]


def test_without_embeddings_and_without_rows(tmp_path, provenance):
    ids, label, logits, _ = _rows(3)
    write_predictions(tmp_path / "a.parquet", provenance, ids, label, logits)
    (rows,) = read_predictions(tmp_path / "a.parquet").batches(ids=False)
    assert rows.embedding is None and rows.ids == []
    with PredictionsWriter(tmp_path / "b.parquet", provenance):
        pass
    empty = read_predictions(tmp_path / "b.parquet")
    assert empty.num_examples == 0 and list(empty.batches()) == []


def test_large_embeddings_are_clipped(tmp_path, provenance):
    ids, label, logits, _ = _rows(1)
    write_predictions(
        tmp_path / "t.parquet", provenance, ids, label, logits, np.array([[1e6, -1e6]])
    )
    (rows,) = read_predictions(tmp_path / "t.parquet").batches()
    np.testing.assert_array_equal(rows.embedding, [[65504, -65504]])


def test_an_error_leaves_the_table_that_was_there(tmp_path, provenance):
    path = tmp_path / "t.parquet"
    write_predictions(path, provenance, *_rows(3))
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="network"):
        with PredictionsWriter(path, provenance, 4) as writer:
            writer.write(*_rows(2))
            raise RuntimeError("network")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_arrays_of_another_shape_are_refused(tmp_path, provenance):
    ids, label, logits, embedding = _rows(3)
    with pytest.raises(ValueError, match="logits_level.1"):
        write_predictions(tmp_path / "t.parquet", provenance, ids, label, logits[::-1], embedding)
    with pytest.raises(ValueError, match="2 labels"):
        write_predictions(tmp_path / "t.parquet", provenance, ids, label[:2], logits, embedding)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_read_are_named(tmp_path, provenance):
    path = tmp_path / "test.parquet"
    with pytest.raises(UserError, match="no such file"):
        read_predictions(path)
    write_predictions(path, provenance, *_rows(2000))
    with pytest.raises(UserError, match="In that folder: test.parquet"):
        read_predictions(tmp_path / "tset.parquet")
    whole = path.read_bytes()
    for content in (b"", b"PAR1 and nothing else", whole[: len(whole) // 2], whole[:-3]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a whole predictions table"):
            read_predictions(path)
    path.write_bytes(whole[:50] + bytes(2000) + whole[2050:])
    with pytest.raises(UserError, match=r"not a whole predictions table|labels"):
        list(read_predictions(path).batches())


def _with_metadata(path, **changes):
    table = pq.read_table(path)
    value = json.loads(table.schema.metadata[b"plankton_jax"]) | changes
    pq.write_table(table.replace_schema_metadata({"plankton_jax": json.dumps(value)}), path)


def test_files_of_another_origin_are_refused(tmp_path, provenance):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(UserError, match="not one of plankton_jax"):
        read_predictions(path)
    for change, message in (
        ({"format_version": 2}, "format version 2"),
        ({"taxonomy": Taxonomy.flat(["a", "b"]).to_json()}, "columns"),
        ({"taxonomy": {}}, "levels"),
    ):
        write_predictions(path, provenance, *_rows(3))
        _with_metadata(path, **change)
        with pytest.raises(UserError, match=message):
            read_predictions(path)


def test_labels_beyond_the_tree_are_refused(tmp_path, provenance):
    path = tmp_path / "t.parquet"
    ids, _, logits, _ = _rows(2)
    write_predictions(path, provenance, ids, np.array([0, 3]), logits)
    with pytest.raises(UserError, match=r"labels 0\.\.3"):
        list(read_predictions(path).batches())
