"""Heads on one tree against each other, from runs that were evaluated: no network is run.

    python benchmarks/heads.py --name ndsb_heads --runs runs/ndsb_flat runs/ndsb_bacnn_seed*

Of each run, under its head's own decoder and under the most probable path: accuracy of each level,
macro recall and precision over the classes with images and weighted F1 of each level, images with
every level right (in all and by true first level), images with a consistent prediction, in %, and
macro F1 of the leaves. With the 95 % Wilson interval; of runs whose names
differ by `_seed` and a number behind it alone, the mean with its spread (standard deviation over
the seeds). Writes `results/NAME.<device>.json`.
"""

import argparse
import pathlib
import re
import statistics
from typing import Any

import numpy as np
from _results import row, versions, write_results

from plankton_jax.analysis.hierarchy import Hierarchy, measure
from plankton_jax.analysis.predictions import read_predictions
from plankton_jax.metrics import from_confusion, wilson_interval

AVERAGES = {"macro recall": "recall", "macro precision": "precision", "weighted F1": "f1"}
Numbers = dict[str, tuple[float, int]]
"""By name the share in %, and of how many images; 0 where it is not a proportion."""


def numbers_of(found: Hierarchy) -> Numbers:
    """All numbers of one run under one decoder."""
    tree, total = found.taxonomy, int(found.support.sum())

    def share(successes: Any, trials: Any) -> tuple[float, int]:
        return 100 * int(successes) / int(trials), int(trials)

    numbers = {
        f"{level} accuracy": share(np.trace(counts), total)
        for level, counts in zip(tree.level_names, found.confusion, strict=True)
    }
    for place, level in enumerate(tree.level_names):
        rows = found.level_rows(place)
        for name, key in AVERAGES.items():
            numbers[f"{level} {name}"] = (100 * rows[key], 0)
    numbers["every level right"] = share(found.all_right.sum(), total)
    for side, name in enumerate(tree.node_names[0]):
        right = share(found.all_right[side], found.support[side])
        numbers[f"every level right, truly {name}"] = right
    numbers["consistent"] = share(found.consistent.sum(), total)
    f1 = from_confusion(found.confusion[-1], 0, 0.0)["macro_f1"]
    return numbers | {f"{tree.level_names[-1]} macro F1": (100 * float(f1), 0)}


def rows_of(name: str, runs: list[Numbers]) -> list[dict[str, Any]]:
    """One row a number: of one run with its interval, of several with their spread."""
    rows = []
    for what, (value, trials) in runs[0].items():
        values = [run[what][0] for run in runs]
        line = row(f"{name}, {what}", "%", round(statistics.mean(values), 2))
        if len(runs) > 1:
            line |= {"seeds": len(runs), "spread": round(statistics.stdev(values), 2)}
        elif trials:
            ends = wilson_interval(round(value / 100 * trials), trials)
            line |= {"interval": [round(100 * float(end), 2) for end in ends]}
        rows.append(line)
    return rows


def main() -> None:
    """Reads the runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="of the file of results")
    parser.add_argument("--runs", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    groups: dict[str, list[Numbers]] = {}
    for run in options.runs:
        predictions = read_predictions(run / "predictions" / f"{options.split}.parquet")
        name = re.sub(r"_seed\d+$", "", run.name)
        for decoder in (predictions.provenance.decoder, "path"):
            found = numbers_of(measure(predictions, decoder))
            groups.setdefault(f"{name}, {decoder}", []).append(found)
    rows = [line for name, runs in groups.items() for line in rows_of(name, runs)]
    notes = {"examples": predictions.num_examples, "split": options.split}
    write_results(options.name, rows, versions(("jax", "flax", "optax")), notes=notes)


if __name__ == "__main__":
    main()
