"""Heads on one tree against each other, from runs that were evaluated: no network is run.

    python benchmarks/heads.py --name ndsb_heads --runs runs/ndsb_flat runs/ndsb_bcnn ...

Of each run, under its head's own decoder and under the most probable path: accuracy of each level,
images with every level right (in all and by true first level), images with a consistent
prediction, each with its 95 % Wilson interval in %, and macro F1 of the leaves. Writes
`results/NAME.<device>.json`.
"""

import argparse
import pathlib
from typing import Any

import numpy as np
from _results import row, versions, write_results

from plankton_jax.analysis.hierarchy import Hierarchy, measure
from plankton_jax.analysis.predictions import read_predictions
from plankton_jax.metrics import from_confusion, wilson_interval


def share(name: str, successes: int, trials: int) -> dict[str, Any]:
    """A row of a proportion in %, with its interval."""
    low, high = wilson_interval(successes, trials)
    ends = [round(100 * float(end), 2) for end in (low, high)]
    return row(name, "%", round(100 * successes / trials, 2)) | {"interval": ends}


def rows_of(name: str, found: Hierarchy) -> list[dict[str, Any]]:
    """All rows of one run under one decoder."""
    tree, total = found.taxonomy, int(found.support.sum())
    rows = [
        share(f"{name}, {level} accuracy", int(np.trace(counts)), total)
        for level, counts in zip(tree.level_names, found.confusion, strict=True)
    ]
    rows.append(share(f"{name}, every level right", int(found.all_right.sum()), total))
    for side, side_name in enumerate(tree.node_names[0]):
        right, support = int(found.all_right[side]), int(found.support[side])
        rows.append(share(f"{name}, every level right, truly {side_name}", right, support))
    rows.append(share(f"{name}, consistent", int(found.consistent.sum()), total))
    leaves = from_confusion(found.confusion[-1], 0, 0.0)
    f1 = round(100 * float(leaves["macro_f1"]), 2)
    return [*rows, row(f"{name}, {tree.level_names[-1]} macro F1", "%", f1)]


def main() -> None:
    """Reads the runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="of the file of results")
    parser.add_argument("--runs", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    rows = []
    for run in options.runs:
        predictions = read_predictions(run / "predictions" / f"{options.split}.parquet")
        own = predictions.provenance.decoder
        rows += rows_of(f"{run.name}, {own}", measure(predictions))
        rows += rows_of(f"{run.name}, path", measure(predictions, "path"))
    notes = {"examples": predictions.num_examples, "split": options.split}
    write_results(options.name, rows, versions(("jax", "flax", "optax")), notes=notes)


if __name__ == "__main__":
    main()
