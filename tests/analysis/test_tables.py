"""Tables of an evaluation, against scikit-learn on the same rows."""

import csv
import io
import json

import numpy as np
import pytest
import rich.console
import scipy.special
import sklearn.metrics

from plankton_jax.analysis import predictions as predictions_module
from plankton_jax.analysis import tables
from plankton_jax.analysis.predictions import Provenance, read_predictions, write_predictions
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

TREE = Taxonomy.from_paths(
    ("root", "group", "taxon"),
    [
        ("living", "copepods", "Calanus [big]"),
        ("not", "detritus", "fibre"),
        ("living", "copepods", "Oithona"),
        ("living", "jellies", "ephyra"),
        ("not", "artefact", "bubble"),
    ],
)
TRAINING_COUNTS = np.array([1000, 30, 5, 0, 2])


def _written(path, count):
    """Labels and logits of `count` rows; "ephyra" is never predicted, "bubble" never true."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 4, count)
    logits = [generator.normal(size=(count, k)).astype(np.float32) for k in (2, 4, 5)]
    logits[2][:, 3] = -20
    provenance = Provenance(TREE, "test", "run", 1, "vit", "", TRAINING_COUNTS, "data", "CC0")
    write_predictions(path, provenance, [str(i) for i in range(count)], label, logits)
    return label, logits


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions_module, "ROWS_PER_GROUP", 64)
    label, logits = _written(tmp_path / "test.parquet", 200)
    return read_predictions(tmp_path / "test.parquet"), label, logits


def test_summary_equals_scikit_learn(table):
    predictions, label, logits = table
    found = json.loads(json.dumps(tables.summary(predictions)))
    assert (found["split"], found["examples"]) == ("test", 200)
    assert [level["name"] for level in found["levels"]] == list(TREE.level_names)
    for level, scores, nodes in zip(found["levels"], logits, TREE.ancestors, strict=True):
        true, predicted = nodes[label], scores.argmax(1)
        expected = {
            "micro_accuracy": sklearn.metrics.accuracy_score(true, predicted),
            "macro_f1": sklearn.metrics.f1_score(true, predicted, average="macro"),
            "weighted_f1": sklearn.metrics.f1_score(true, predicted, average="weighted"),
            "log_loss": sklearn.metrics.log_loss(
                true,
                scipy.special.softmax(scores.astype(np.float64), axis=1),
                labels=np.arange(scores.shape[1]),
            ),
        }
        for name, value in expected.items():
            assert level[name] == pytest.approx(value, abs=1e-6), name


def test_class_table_equals_scikit_learn(table):
    predictions, label, logits = table
    rows = tables.class_table(predictions)
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        label, logits[2].argmax(1), labels=np.arange(5), zero_division=0
    )
    assert [row.taxon for row in rows] == list(TREE.leaf_names)
    assert [row.n_train for row in rows] == TRAINING_COUNTS.tolist()
    assert [row.n_test for row in rows] == support.tolist()
    np.testing.assert_allclose([row.precision for row in rows], precision)
    np.testing.assert_allclose([row.recall for row in rows], recall)
    np.testing.assert_allclose([row.f1 for row in rows], f1)
    assert all(row.recall_low <= row.recall <= row.recall_high for row in rows)
    assert rows[3].ancestors == ("living", "jellies")
    missing = tables.classes_without_images(rows)
    assert missing == {"train": ("ephyra",), "test": ("bubble",)}
    expected = sklearn.metrics.balanced_accuracy_score(label, np.where(label < 4, label, 0))
    assert expected == 1.0 and tables.mean_recall(rows) == pytest.approx(recall[:4].mean())


def test_csv_leaves_blank_what_is_of_nothing(table, tmp_path):
    rows = tables.class_table(table[0])
    tables.write_class_table(rows, TREE.level_names, tmp_path / "classes.csv")
    with (tmp_path / "classes.csv").open(newline="") as file:
        found = {row["taxon"]: row for row in csv.DictReader(file)}
    assert list(found) == list(TREE.leaf_names)
    assert found["Oithona"]["group"] == "copepods"
    assert float(found["fibre"]["recall"]) == pytest.approx(rows[1].recall, abs=1e-6)
    assert found["ephyra"]["precision"] == "" and found["ephyra"]["recall"] == "0.000000"
    assert found["bubble"]["recall"] == found["bubble"]["recall_low"] == ""
    assert found["bubble"]["precision"] == "0.000000"


def test_printed_tables_hold_every_class_and_level(table):
    console = rich.console.Console(file=io.StringIO(), width=140)
    tables.print_class_table(tables.class_table(table[0]), TREE.level_names, console)
    tables.print_level_table(tables.summary(table[0]), console)
    text = console.file.getvalue()
    for name in (*TREE.leaf_names, *TREE.level_names, "copepods", "1,000", "log loss"):
        assert name in text
    assert text.count("copepods") == 1  # a group is named once


def test_an_empty_table_is_refused(tmp_path):
    _written(tmp_path / "empty.parquet", 0)
    with pytest.raises(UserError, match="no examples"):
        tables.summary(read_predictions(tmp_path / "empty.parquet"))
