"""Tables from a predictions table: metrics of every level, and one row for each class.

Reads a predictions table row group by row group; writes csv files and prints on request.
"""

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plankton_jax.analysis.predictions import Predictions
from plankton_jax.decoding import decode
from plankton_jax.errors import UserError
from plankton_jax.files import replacing
from plankton_jax.metrics import class_metrics, host_sums, wilson_interval
from plankton_jax.metrics import level_metrics as metrics_of_sums

if TYPE_CHECKING:
    from rich.console import Console

NUMBERS = ("n_train", "n_test", "precision", "recall", "f1", "recall_low", "recall_high")


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """One class: how many images it has and how well it is recognised.

    Attributes:
      taxon: the class.
      ancestors: the nodes above it, coarse to fine.
      n_train: its training images.
      n_test: its images in the evaluated part.
      n_predicted: images of the evaluated part that were given this class.
      precision, recall, f1: in 0..1; 0 where there is nothing to divide by.
      recall_low, recall_high: 95 % Wilson interval of the recall; 0 and 1 where `n_test` is 0.
    """

    taxon: str
    ancestors: tuple[str, ...]
    n_train: int
    n_test: int
    n_predicted: int
    precision: float
    recall: float
    f1: float
    recall_low: float
    recall_high: float

    def cells(self) -> dict[str, int | float | None]:
        """The columns `NUMBERS`; None where the class has nothing that the number could be of."""
        defined = {
            "precision": self.n_predicted > 0,
            "recall": self.n_test > 0,
            "f1": self.n_test + self.n_predicted > 0,
            "recall_low": self.n_test > 0,
            "recall_high": self.n_test > 0,
        }
        return {name: getattr(self, name) if defined.get(name, True) else None for name in NUMBERS}


@functools.lru_cache(maxsize=4)
def sums(predictions: Predictions) -> dict[str, Any]:
    """`metrics.host_sums` of all rows, in one pass; kept, for every table and figure needs it.

    Raises:
      UserError: the table has no rows, or is damaged.
    """
    if not predictions.num_examples:
        raise UserError(
            f"predictions {predictions.path}: no examples, so there is nothing to measure. "
            "Evaluate a part of the data that has images."
        )
    ancestors, total = predictions.taxonomy.ancestors, None
    for rows in predictions.batches(ids=False, embedding=False):
        decoded = decode(predictions.provenance.decoder, rows.logits, predictions.taxonomy)
        part = host_sums(rows.logits, rows.label, ancestors, decoded)
        total = part if total is None else _added(total, part)
    assert total is not None
    return total


def _added(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """The sums of two sets of rows taken together."""
    added = {
        name: tuple(a + b for a, b in zip(left[name], right[name], strict=True))
        for name in left
        if name != "count"
    }
    return added | {"count": left["count"] + right["count"]}


def level_metrics(predictions: Predictions) -> list[dict[str, Any]]:
    """`{"name": level, ...}` with the eight metrics, for each level, coarse to fine."""
    return metrics_of_sums(sums(predictions), predictions.taxonomy.level_names)


def summary(predictions: Predictions) -> dict[str, Any]:
    """What an evaluation says as one object: `split`, `examples`, `levels`."""
    return {
        "split": predictions.provenance.split,
        "examples": predictions.num_examples,
        "levels": level_metrics(predictions),
    }


def class_table(predictions: Predictions) -> list[ClassRow]:
    """One row for each class, in label order; classes without any image are there too."""
    taxonomy = predictions.taxonomy
    found = class_metrics(sums(predictions)["confusion"][-1])
    low, high = wilson_interval(found["true_positives"], found["support"])
    return [
        ClassRow(
            taxon=taxonomy.leaf_names[leaf],
            ancestors=taxonomy.path(leaf)[:-1],
            n_train=int(predictions.provenance.training_counts[leaf]),
            n_test=int(found["support"][leaf]),
            n_predicted=int(found["predicted"][leaf]),
            precision=float(found["precision"][leaf]),
            recall=float(found["recall"][leaf]),
            f1=float(found["f1"][leaf]),
            recall_low=float(low[leaf]),
            recall_high=float(high[leaf]),
        )
        for leaf in range(taxonomy.num_leaves)
    ]


def write_class_table(
    rows: Sequence[ClassRow], level_names: Sequence[str], path: pathlib.Path
) -> None:
    """Writes the rows as csv: the leaf, the levels above it, then `NUMBERS`; blank where undefined.

    `level_names` are the tree's, coarse to fine.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["taxon", *level_names[:-1], *NUMBERS])
        for row in rows:
            cells = row.cells().values()
            texts = [f"{cell:.6f}" if isinstance(cell, float) else cell for cell in cells]
            writer.writerow([row.taxon, *row.ancestors, *texts])


def print_level_table(summary: dict[str, Any], console: "Console | None" = None) -> None:
    """Prints what `summary` returns: a row for each level, rates in per cent."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = f"{summary['split']}: {summary['examples']:,} images"
    table = Table(title=title, caption="rates in %; log-loss in nats an image")
    table.add_column("level")
    names = [name for name in summary["levels"][0] if name != "name"]
    for name in names:
        table.add_column(Text(name.replace("_", " ")), justify="right")
    for level in summary["levels"]:
        cells = [
            f"{level[name]:.4f}" if name == "log_loss" else _percent(level[name]) for name in names
        ]
        table.add_row(Text(level["name"]), *cells)
    (console or Console()).print(table)


def print_class_table(
    rows: Sequence[ClassRow], level_names: Sequence[str], console: "Console | None" = None
) -> None:
    """Prints the rows grouped by the tree; undefined numbers are dashes, rates in per cent."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(caption="precision, recall, F1 in %; recall with its 95 % Wilson interval")
    for name in (*level_names[:-1], "taxon"):
        table.add_column(Text(name), overflow="fold", min_width=min(len(name) + 8, 16))
    for name in ("n_train", "n_test", "precision", "recall", "interval", "F1"):
        table.add_column(name, justify="right", no_wrap=True)
    above: tuple[str, ...] = ()
    for row in sorted(rows, key=lambda row: row.ancestors):
        cells = row.cells()
        if above and above != row.ancestors:
            table.add_section()
        # A group is named on its first row alone.
        names = [
            "" if row.ancestors[: depth + 1] == above[: depth + 1] else name
            for depth, name in enumerate(row.ancestors)
        ]
        above = row.ancestors
        table.add_row(
            *(Text(name) for name in (*names, row.taxon)),
            f"{row.n_train:,}",
            f"{row.n_test:,}",
            _percent(cells["precision"]),
            _percent(cells["recall"]),
            f"{_percent(cells['recall_low'])} to {_percent(cells['recall_high'])}"
            if row.n_test
            else "-",
            _percent(cells["f1"]),
            style="" if row.n_train else "dim",
        )
    (console or Console()).print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def classes_without_images(rows: Sequence[ClassRow]) -> dict[str, tuple[str, ...]]:
    """The names of the classes with no training image (`train`) and with none to test on (`test`).

    Their numbers in the other tables are of nothing, or of a class that could not be learned.
    """
    return {
        "train": tuple(row.taxon for row in rows if row.n_train == 0),
        "test": tuple(row.taxon for row in rows if row.n_test == 0),
    }


def mean_recall(rows: Sequence[ClassRow]) -> float:
    """The mean recall over the classes with images in the evaluated part: macro accuracy."""
    return float(np.mean([row.recall for row in rows if row.n_test]))
