"""The report's tables 4 to 7 for any runs and any tree, beside its own numbers. Pure; from counts.

A tree of other levels gives tables of other columns. The report's rows are shown for runs on its
data set with its tree, and marked.
"""

import math
from collections.abc import Sequence

from plankton_jax.analysis import published
from plankton_jax.analysis.hierarchy import Hierarchy, measure
from plankton_jax.analysis.predictions import Predictions
from plankton_jax.analysis.text_tables import Table
from plankton_jax.names import own_decoder
from plankton_jax.taxonomy import Taxonomy

METRICS = {"Acc": "accuracy", "F1": "f1", "Pre": "precision", "Rec": "recall"}
OF_HEADS = METRICS | {"Acc": "micro", "F1": "macro_f1"}
REPORT = " (report)"
TRUE_SIDE = " (true side)"


def report_tables(
    runs: Sequence[tuple[str, Predictions]], decoder: str | None = None
) -> list[Table]:
    """All tables of runs on one tree.

    Args:
      runs: names to show and predictions.
      decoder: for all runs; None: the one that each was evaluated with.
    """
    tree = runs[0][1].taxonomy
    report = of_the_report(runs[0][1])
    found = [
        (shown_name(name, predictions, decoder), measure(predictions, decoder))
        for name, predictions in runs
    ]
    beside = _with_true_sides(runs, found, decoder)
    tables = [_levels(beside, tree, report), _agreement(found, tree)]
    if tree.depth > 1:
        tables.insert(1, _sides(beside, tree, report))
        gated = [(name, predictions) for name, predictions in runs if is_gated(predictions)]
        if gated:
            tables.insert(1, _gated(gated, tree, report))
        tables.insert(-1, _coherence(beside, tree, report))
    return tables


def shown_name(name: str, predictions: Predictions, decoder: str | None = None) -> str:
    """The run's name, with the decoder (None: that of its evaluation) where that is not its head's
    own. Older tables do not tell the head."""
    provenance = predictions.provenance
    own = own_decoder(provenance.head) if provenance.head else provenance.decoder
    used = decoder or provenance.decoder
    return name if used == own else f"{name} ({used})"


def _with_true_sides(
    runs: Sequence[tuple[str, Predictions]],
    found: Sequence[tuple[str, Hierarchy]],
    decoder: str | None,
) -> list[tuple[str, Hierarchy]]:
    """Behind each run whose gate decides the side, the same with the true side in its place."""
    beside = []
    for (name, one), (_, predictions) in zip(found, runs, strict=True):
        beside.append((name, one))
        if is_gated(predictions) and (decoder or predictions.provenance.decoder) == "routed":
            beside.append((name + TRUE_SIDE, measure(predictions, "oracle")))
    return beside


def _note(text: str, found: Sequence[tuple[str, Hierarchy]]) -> str:
    if any(name.endswith(TRUE_SIDE) for name, _ in found):
        text += " True side: the first level is given, as if the gate made no mistake."
    return text


def is_gated(predictions: Predictions) -> bool:
    """Whether the head has a gate; older tables tell it by their decoder."""
    provenance = predictions.provenance
    return provenance.head == "sbacnn" if provenance.head else provenance.decoder == "routed"


def of_the_report(predictions: Predictions) -> bool:
    """Whether they are of the report's data set and tree: its two sides, three levels and leaves,
    which the later release of the data set has more of."""
    tree = predictions.taxonomy
    shape = tree.depth == 3 and sorted(tree.node_names[0]) == sorted(published.SIDES)
    whole = tree.num_leaves == published.NUM_LEAVES
    return shape and whole and predictions.provenance.dataset == "zooscan"


def _levels(found: Sequence[tuple[str, Hierarchy]], tree: Taxonomy, report: bool) -> Table:
    rows = [
        (name, *(cell for level in range(tree.depth) for cell in _four(one.level_rows(level))))
        for name, one in found
    ]
    if report:
        rows += [
            (name + REPORT, *(c for level in levels for c in (map(_number, level or (None,) * 4))))
            for name, levels in published.TABLE_4.items()
        ]
    return Table(
        "table_4",
        "Metrics of every level",
        _note(
            "In %. Accuracy, precision and recall are macro averages over the classes with images, "
            "F1 is weighted by support. The report's accuracies of B-, HB- and BA-CNN are micro "
            "averages.",
            found,
        ),
        ("run", *tuple(METRICS) * tree.depth),
        tuple(rows),
        ("", *_for_each_metric(tree.level_names)),
    )


def _for_each_metric(level_names: Sequence[str]) -> tuple[str, ...]:
    return tuple(level for level in level_names for _ in METRICS)


def _gated(runs: Sequence[tuple[str, Predictions]], tree: Taxonomy, report: bool) -> Table:
    """Each head by itself: the gate over all images, a side's heads over the images that truly are
    of that side."""
    rows = []
    for name, predictions in runs:
        alone = measure(predictions, "oracle")
        gate = measure(predictions, "argmax").level_rows(0)
        rows.append((f"{name}: {_gate_name(tree)}", *_four(gate, OF_HEADS)))
        for side, side_name in enumerate(tree.node_names[0]):
            for level in range(1, tree.depth):
                cells = _four(alone.level_rows(level, side), OF_HEADS)
                rows.append((f"{name}: {side_name}, {tree.level_names[level]}", *cells))
    if report:
        rows += [
            (f"SBA-CNN: {name}{REPORT}", *map(_number, cells))
            for name, cells in published.TABLE_5.items()
        ]
    return Table(
        "table_5",
        "Heads behind the gate",
        "In %. The gate over all images; a side's heads over the images that truly are of that "
        "side, choosing among its nodes. Accuracy is a micro average; F1, precision and recall are "
        "macro averages over the classes with images.",
        ("head", *METRICS),
        tuple(rows),
    )


def _gate_name(tree: Taxonomy) -> str:
    return "binary head" if len(tree.node_names[0]) == 2 else "gate"


def _sides(found: Sequence[tuple[str, Hierarchy]], tree: Taxonomy, report: bool) -> Table:
    """As the report has it: a cross below the side that a line is of."""
    sides, first, below = tree.node_names[0], tree.level_names[0], tree.level_names[1:]
    rows = []
    for side, side_name in enumerate(sides):
        crosses = ["X" if name == side_name else "" for name in sides]
        for name, one in found:
            levels = [one.level_rows(level, side) for level in range(1, tree.depth)]
            rows.append((name, *crosses, *(cell for level in levels for cell in _four(level))))
        if report:
            rows += [
                (name + REPORT, *crosses, *(c for level in levels for c in map(_number, level)))
                for (name, of_side), levels in published.TABLE_6.items()
                if of_side == side_name
            ]
    return Table(
        "table_6",
        f"Metrics of the images of each {first}",
        _note(
            "In %, over the images whose true first level is the given one; a prediction elsewhere "
            "in the tree is an error. Averages as in the table of all levels.",
            found,
        ),
        ("run", *sides, *tuple(METRICS) * len(below)),
        tuple(rows),
        ("", *(first,) * len(sides), *_for_each_metric(below)),
    )


def _coherence(found: Sequence[tuple[str, Hierarchy]], tree: Taxonomy, report: bool) -> Table:
    """As the report has it: a line for each side and for all images, a column for each run."""
    sides = tree.node_names[0]
    columns = {
        name: [_percent(one.coherence_accuracy(side)) for side in (*range(len(sides)), None)]
        for name, one in found
    }
    if report:
        order = [published.SIDES.index(side) for side in sides]
        columns |= {
            name + REPORT: [_number(cells[place]) for place in (*order, 2)]
            for name, cells in published.TABLE_7.items()
        }
    rows = zip((*sides, "all"), *columns.values(), strict=True)
    return Table(
        "table_7",
        "Coherence accuracy",
        _note(
            "In %: images with every level right, by their true first level and in total.", found
        ),
        (tree.level_names[0], *columns),
        tuple(rows),
    )


def _agreement(found: Sequence[tuple[str, Hierarchy]], tree: Taxonomy) -> Table:
    rows = []
    for name, one in found:
        micro = [_percent(one.level_rows(level)["micro"]) for level in range(tree.depth)]
        hierarchical = map(_percent, one.hierarchical)
        height = "-" if math.isnan(one.mistake_height) else f"{one.mistake_height:.2f}"
        rows.append((name, *micro, _percent(one.consistency()), *hierarchical, height))
    return Table(
        "agreement",
        "Micro accuracy, and agreement with the tree",
        "In %, but for the last column. Consistent: the predicted nodes are a path of the tree. "
        "hP, hR, hF: hierarchical precision, recall and F1 over sets of nodes with all above them. "
        "Height: of the lowest node that a wrong leaf shares with the true one, in levels.",
        ("run", *(f"{level} micro" for level in tree.level_names), "consistent", "hP", "hR", "hF",
         "height"),
        tuple(rows),
    )  # fmt: skip


def _four(level: dict[str, float], metrics: dict[str, str] = METRICS) -> list[str]:
    return [_percent(level[metric]) for metric in metrics.values()]


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
