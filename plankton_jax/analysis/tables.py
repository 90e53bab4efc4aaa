"""Tables of a predictions table: metrics of every level, and every class on its own.

Pure but for `write_class_table`, which writes a csv.
"""

import csv
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from plankton_jax.analysis.predictions import Predictions
from plankton_jax.command import replacing
from plankton_jax.metrics import class_counts, class_ratios, level_metrics, wilson_interval

_CHUNK = 65_536


def level_sums(predictions: Predictions) -> dict[str, Any]:
    """Confusion counts, top-5 counts and log-loss sums of every level, in float64.

    The same as `metrics.batch_sums` adds up on the device; a tie goes to the lower class index.
    """
    ancestors = predictions.taxonomy.ancestors
    confusion = [np.zeros((len(names),) * 2, np.int64) for names in predictions.taxonomy.node_names]
    top5, log_loss = [0] * len(confusion), [0.0] * len(confusion)
    for level, logits in enumerate(predictions.level_logits):
        for start in range(0, len(logits), _CHUNK):
            part = slice(start, start + _CHUNK)
            true = ancestors[level][predictions.label[part]]
            counts = _part_sums(logits[part].astype(np.float64), true)
            np.add.at(confusion[level], (true, counts[0]), 1)
            top5[level] += counts[1]
            log_loss[level] += counts[2]
    return {"confusion": confusion, "top5_correct": top5, "log_loss_sum": log_loss}


def _part_sums(
    logits: Float[np.ndarray, "n k"], true: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], int, float]:
    """(predicted classes, how many true ones are among the best five, summed log-loss)."""
    own = np.take_along_axis(logits, true[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None, :] < true[:, None]
    above = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    largest = logits.max(axis=1)
    total = np.log(np.exp(logits - largest[:, None]).sum(axis=1)) + largest
    return logits.argmax(axis=1), int((above < 5).sum()), float((total - own[:, 0]).sum())


def summary(predictions: Predictions, sums: dict[str, Any]) -> dict[str, Any]:
    """What `evaluate --json` prints: split, number of examples, metrics of every level."""
    return {
        "split": predictions.provenance.split,
        "examples": len(predictions.label),
        "levels": level_metrics(sums, predictions.taxonomy.level_names),
    }


def class_table(predictions: Predictions, sums: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a leaf, in the order of the tree.

    Columns: the levels' names with the path, `n_train`, `n_test` (images of the part that was
    predicted), `precision`, `recall`, `f1` (0 where undefined), `recall_low` and `recall_high` (95 %
    Wilson interval), and a `note` where training or testing had no image.
    """
    taxonomy, confusion = predictions.taxonomy, sums["confusion"][-1]
    counts = class_counts(confusion)
    precision, recall, f1 = class_ratios(confusion)
    low, high = wilson_interval(counts["correct"], counts["support"])
    rows = []
    for leaf in np.lexsort(taxonomy.ancestors[::-1]).tolist():
        n_train, n_test = predictions.provenance.train_counts[leaf], int(counts["support"][leaf])
        rows.append(
            dict(zip(taxonomy.level_names, taxonomy.path(leaf), strict=True))
            | {
                "n_train": n_train,
                "n_test": n_test,
                "precision": float(precision[leaf]),
                "recall": float(recall[leaf]),
                "f1": float(f1[leaf]),
                "recall_low": float(low[leaf]),
                "recall_high": float(high[leaf]),
                "note": _note(n_train, n_test),
            }
        )
    return rows


def _note(n_train: int, n_test: int) -> str:
    notes = ["no training image"] * (n_train == 0) + ["none to evaluate on"] * (n_test == 0)
    return "; ".join(notes)


def write_class_table(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Writes the rows of `class_table` as csv."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
