"""Figures: written for any number of classes, in the tree's order, at a bounded size."""

import struct
import subprocess
import sys

import numpy as np
import pytest

from plankton_jax.analysis import figures
from plankton_jax.analysis.tables import ClassRow
from plankton_jax.metrics import class_metrics, wilson_interval


def _confusion(classes: int) -> np.ndarray:
    confusion = np.random.default_rng(0).integers(0, 3, (classes, classes))
    confusion[classes // 2] = 0
    return confusion + np.diag(np.arange(classes))


def _rows(classes: int) -> list[ClassRow]:
    confusion = _confusion(classes)
    found = class_metrics(confusion)
    low, high = wilson_interval(found["true_positives"], found["support"])
    return [
        ClassRow(
            taxon=f"name_with $signs$ {number}" + "x" * number,
            ancestors=(),
            n_train=7**number % 100_000 if number else 0,
            n_test=int(found["support"][number]),
            n_predicted=int(found["predicted"][number]),
            precision=found["precision"][number],
            recall=found["recall"][number],
            f1=found["f1"][number],
            recall_low=low[number],
            recall_high=high[number],
        )
        for number in range(classes)
    ]


def _pixels(path) -> tuple[int, int]:
    """Width and height from the header of a PNG."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


@pytest.mark.parametrize("classes", [1, 5, 40])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_confusion_figure_is_written_for_any_tree(tmp_path, classes, depth):
    names = [f"class_{number} $a$" for number in range(classes)]
    groups = [tuple(f"{level}/{i % (level + 2)}" for level in range(depth)) for i in range(classes)]
    path = tmp_path / "figures" / "confusion.png"
    figures.confusion_figure(_confusion(classes), names, path, groups=groups)
    assert min(_pixels(path)) > 100 * classes**0.5
    assert [file.name for file in path.parent.iterdir()] == ["confusion.png"]


@pytest.mark.parametrize("classes", [2, 30])
def test_accuracy_figure_is_written(tmp_path, classes):
    path = tmp_path / "accuracy.png"
    figures.accuracy_by_class_figure(_rows(classes), path, "validation")
    assert _pixels(path)[1] > 30 * classes


def test_classes_are_put_in_the_order_of_the_tree():
    paths = [("a", "x"), ("b", "x"), ("a", "y"), ("b", "z"), ("a", "x"), ("b", "x")]
    assert figures._tree_order(paths) == [0, 4, 2, 1, 5, 3]
    assert figures._tree_order([()] * 3) == [0, 1, 2]
    assert figures._runs([("a",), ("a",), ("b",), ("a",)]) == [(0, 1), (2, 2), (3, 3)]


def test_long_names_lose_their_middle():
    short = figures.short_name("nectophore_" * 10 + "end")
    assert (
        len(short) <= figures.LONGEST_NAME and short.startswith("necto") and short.endswith("end")
    )
    assert figures.short_name("Calanus") == "Calanus"


def test_figures_leave_the_global_state_of_matplotlib_alone():
    code = (
        "import sys, plankton_jax.analysis; assert 'jax' not in sys.modules\n"
        "import plankton_jax.analysis.tables; assert 'matplotlib' not in sys.modules\n"
        "import plankton_jax.analysis.figures; assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
