"""Figures of an evaluation: the confusion matrix and the accuracy of each class. Writes PNG files.

Drawn on figure objects of their own, without pyplot and its global state. All sizes are absolute,
so that text stays readable from five classes to well over a hundred: a figure grows instead.
"""

import pathlib
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator, PercentFormatter

from plankton_jax.analysis.tables import ClassRow, classes_without_images, mean_recall
from plankton_jax.files import replacing

DOTS_PER_INCH = 200
MOST_PIXELS, MOST_DOTS = 1.5e8, 50_000  # in all; along one side, where Agg ends at 65,535
LONGEST_NAME = 40
CELLS_WITH_TEXT = 30  # up to this many classes the numbers stand in the cells
FAINT, DARK = "#b0b0b0", "#333333"
# Two hues of Okabe and Ito's palette, told apart with any colour vision.
BLUE, ORANGE = "#56b4e9", "#d55e00"


def confusion_figure(
    confusion: np.ndarray,
    class_names: Sequence[str],
    path: pathlib.Path,
    groups: Sequence[Sequence[str]] | None = None,
) -> None:
    """Draws a confusion matrix, coloured by the share of each row: recall on the diagonal.

    Args:
      confusion: integers `k k`; rows are the true classes.
      class_names: the k names.
      path: the PNG to write.
      groups: for each class the nodes above it, coarse to fine, as `Taxonomy.path(leaf)[:-1]`.
        Classes are then put in the tree's order, with lines between groups.
    """
    confusion = np.asarray(confusion)
    paths = [tuple(group) for group in groups] if groups is not None else [()] * len(class_names)
    order = _tree_order(paths)
    confusion, paths = confusion[np.ix_(order, order)], [paths[i] for i in order]
    names = [short_name(class_names[i]) for i in order]
    side = _cell_inches(len(names)) * len(names)
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    font = min(9.0, 72.0 * _cell_inches(len(names)) * 0.72)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(
        np.ma.masked_equal(shares, 0.0),
        cmap=colormaps["magma_r"].with_extremes(bad="white"),
        # Small confusions matter: the square root spreads them.
        norm=PowerNorm(0.5, 0.0, 1.0),
        interpolation="nearest",
    )
    _name_axes(axes, names, confusion, font)
    if len(names) <= CELLS_WITH_TEXT:
        _write_cells(axes, confusion, shares, font)
    _mark_groups(figure, axes, paths, font, side)
    _colour_bar(figure, axes, image, side)
    title = _confusion_title(confusion)
    axes.text(0.0, 1.0 + 0.85 / side, title, transform=axes.transAxes, fontsize=12, va="bottom")
    save(figure, path)


def _tree_order(paths: list[tuple[str, ...]]) -> list[int]:
    """Classes by their place in the tree; nodes and leaves keep the order they first occur in."""
    first: dict[tuple[str, ...], int] = {}
    for number, path in enumerate(paths):
        for depth in range(len(path)):
            first.setdefault(path[: depth + 1], number)
    place = [tuple(first[path[: depth + 1]] for depth in range(len(path))) for path in paths]
    return sorted(range(len(paths)), key=lambda number: (place[number], number))


def short_name(name: str) -> str:
    """A name with its middle left out when it is too long for a figure."""
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def _cell_inches(classes: int) -> float:
    """Side of a cell: room for a class's name, and for a number when the classes are few."""
    return 0.55 if classes <= 10 else 0.36 if classes <= CELLS_WITH_TEXT else 0.14


def _name_axes(axes: Axes, names: list[str], confusion: np.ndarray, font: float) -> None:
    """Class names with the numbers of images on both sides; those without any are marked."""
    ticks = range(len(names))
    for set_ticks, counts, rotation in (
        (axes.set_yticks, confusion.sum(axis=1), 0),
        (axes.set_xticks, confusion.sum(axis=0), 90),
    ):
        texts = [f"{name}  {count:,}" for name, count in zip(names, counts, strict=True)]
        set_ticks(ticks, texts, fontsize=font, rotation=rotation, parse_math=False)
    for label, count in zip(axes.get_yticklabels(), confusion.sum(axis=1), strict=True):
        label.set_color(DARK if count else ORANGE)
    axes.tick_params(length=0, pad=3)
    axes.set_ylabel("true class, with its number of images", fontsize=11, labelpad=8)
    axes.set_xlabel("predicted class, with its number of predictions", fontsize=11, labelpad=8)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def _write_cells(axes: Axes, confusion: np.ndarray, shares: np.ndarray, font: float) -> None:
    """The counts inside the cells; smaller where they are long."""
    longest = len(f"{confusion.max()}")
    room = 72.0 * _cell_inches(len(confusion)) * 0.85
    size = min(font, room / (0.62 * longest))
    for row, column in zip(*np.nonzero(confusion), strict=True):
        colour = "white" if shares[row, column] > 0.15 else "black"
        text = f"{confusion[row, column]}"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _mark_groups(
    figure: Figure, axes: Axes, paths: list[tuple[str, ...]], font: float, side: float
) -> None:
    """Lines between the nodes of the two coarsest levels, and their names to the right."""
    offset = 8.0
    for depth in reversed(range(min(2, len(paths[0])))):
        labels = []
        heavy = depth == 0 and len(paths[0]) > 1
        for start, end in _runs([path[: depth + 1] for path in paths]):
            if start:
                width = 1.6 if heavy else 0.7
                axes.axhline(start - 0.5, color=DARK, linewidth=width)
                axes.axvline(start - 0.5, color=DARK, linewidth=width)
            size, place = font + 2 if heavy else font, 1.0 + offset / 72.0 / side
            labels.append(_group_label(axes, paths[start][depth], start, end, place, size, heavy))
        offset += _width_in_points(figure, labels) + 10.0


def _runs(values: list[tuple[str, ...]]) -> list[tuple[int, int]]:
    """First and last position of every stretch of equal values."""
    starts = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
    return list(zip(starts, [start - 1 for start in starts[1:]] + [len(values) - 1], strict=True))


def _group_label(
    axes: Axes, name: str, start: int, end: int, place: float, font: float, upright: bool
) -> Text:
    """A bar beside rows `start` to `end` and the group's name, upright if wanted and room for it.

    `place` is in widths of the matrix.
    """
    rows, across = [start - 0.35, end + 0.35], axes.get_yaxis_transform()
    axes.plot([place] * 2, rows, transform=across, color=FAINT, linewidth=1.5, clip_on=False)
    fits = 72.0 * _cell_inches(round(axes.get_ylim()[0] + 0.5)) * (end - start + 1)
    return axes.annotate(
        short_name(name),
        (place, (start + end) / 2),
        xycoords=across,
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=font,
        va="center",
        rotation=90 if upright and 0.65 * font * len(short_name(name)) < fits else 0,
        parse_math=False,
        annotation_clip=False,
    )


def _width_in_points(figure: Figure, labels: list[Text]) -> float:
    renderer = FigureCanvasAgg(figure).get_renderer()
    return max(label.get_window_extent(renderer).width for label in labels) * 72.0 / figure.dpi


def _colour_bar(figure: Figure, axes: Axes, image: AxesImage, side: float) -> None:
    """A thin bar right above the matrix."""
    bar_axes = axes.inset_axes((0.0, 1.0 + 0.12 / side, min(1.0, 4.5 / side), 0.14 / side))
    bar = figure.colorbar(image, cax=bar_axes, orientation="horizontal")
    bar.set_ticks([0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0])
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}"))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.ax.xaxis.set_ticks_position("top")
    bar.ax.tick_params(labelsize=8, length=2, pad=1)
    bar.outline.set_edgecolor(FAINT)
    bar.ax.set_title("% of the true class (row); white: none", fontsize=9, loc="left", pad=14)


def _confusion_title(confusion: np.ndarray) -> str:
    total, right = int(confusion.sum()), int(np.trace(confusion))
    empty = int((confusion.sum(axis=1) == 0).sum())
    title = f"Confusion of {len(confusion)} classes: {right:,} of {total:,} images right"
    title += f" ({right / total:.1%})" if total else ""
    noun = "class has" if empty == 1 else "classes have"
    return title + (f"\n{empty} {noun} no image here (orange)" if empty else "")


def accuracy_by_class_figure(
    rows: Sequence[ClassRow], path: pathlib.Path, split: str = "test"
) -> None:
    """Draws the accuracy (recall) of each class, best first, beside its number of training images.

    Whiskers are 95 % Wilson intervals. Classes without an image in `split` come last; these and the
    classes without a training image are marked and listed below.
    """
    rows = sorted(rows, key=lambda row: (row.n_test == 0, -row.recall, -row.n_test, row.taxon))
    height = 0.17 * len(rows) + 0.1
    figure = Figure(figsize=(8.5, height))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1.0))
    figure.subplots_adjust(0.0, 0.0, 1.0, 1.0, wspace=0.03)
    _draw_recalls(left, rows, split)
    _draw_training_counts(right, rows)
    left.set_ylim(len(rows) - 0.4, -0.6)
    top = 1.0 + 0.3 / height
    title = f"Accuracy of each class on the {split} images, and how many images it was trained on"
    left.text(0.0, top, title, transform=left.transAxes, fontsize=12, va="bottom")
    note = {"fontsize": 8, "va": "top", "color": ORANGE, "parse_math": False}
    left.text(0.0, -0.55 / height, _missing_note(rows, split), transform=left.transAxes, **note)
    save(figure, path)


def _draw_recalls(axes: Axes, rows: list[ClassRow], split: str) -> None:
    """Bars with whiskers, the mean over classes, and the names on the left."""
    for number, row in enumerate(rows):
        if not row.n_test:
            missing = {"fontsize": 7, "va": "center", "color": ORANGE}
            axes.text(0.01, number, f"no {split} image", bbox={"pad": 0.5, "fc": "white", "lw": 0},
                      **missing)  # fmt: skip
            continue
        axes.barh(number, row.recall, height=0.72, color=BLUE if row.n_train else ORANGE)
        axes.plot([row.recall_low, row.recall_high], [number] * 2, color=DARK, linewidth=1.0)
    names = [f"{short_name(row.taxon)}  {row.n_test:,}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7.5, parse_math=False)
    mean = mean_recall(rows)
    axes.axvline(mean, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.5)
    # Its line stands in the middle of the text, but for the room that the left label needs.
    side = "left" if mean < 0.15 else "right" if mean > 0.85 else "center"
    axes.text(mean, -0.75, f"mean of classes {mean:.1%}", fontsize=8, ha=side, va="bottom")
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.set_xlabel(
        f"accuracy (recall), % of the class's {split} images; lines: 95 % intervals", fontsize=9
    )
    axes.text(-0.01, -0.75, f"class, {split} images", fontsize=8, ha="right", va="bottom")
    quiet(axes)


def _draw_training_counts(axes: Axes, rows: list[ClassRow]) -> None:
    """Training images of each class on a logarithmic axis."""
    counts = np.array([row.n_train for row in rows])
    known = np.flatnonzero(counts)
    axes.set_xscale("log")
    # From half an image on, so that a class with a single one still shows a bar.
    axes.barh(known, counts[known] - 0.5, left=0.5, height=0.72, color="#8a8a8a")
    axes.set_xlim(0.5, max(10.0, counts.max() * 1.5))
    for number in np.flatnonzero(counts == 0).tolist():
        axes.text(0.55, number, "none", fontsize=7, va="center", color=ORANGE)
    axes.set_xlabel("training images (log scale)", fontsize=9)
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.xaxis.set_minor_formatter(NullFormatter())
    quiet(axes)


def thousands(count: float, _: int) -> str:
    return f"{count / 1000:,.0f}k" if count >= 1000 else f"{count:.0f}"


def quiet(axes: Axes) -> None:
    """A grid behind the bars and no box around them."""
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="x", which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _missing_note(rows: list[ClassRow], split: str) -> str:
    """The classes without training images and without images to evaluate on, by name."""
    missing = classes_without_images(rows)
    lines = []
    for part, names in (("training", missing["train"]), (split, missing["test"])):
        if names:
            noun = "class" if len(names) == 1 else "classes"
            lines.append(f"{len(names)} {noun} without a {part} image: {', '.join(names)}")
    return "\n".join(textwrap.fill(line, 120, subsequent_indent="    ") for line in lines)


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes the PNG, or SVG by its suffix, with all that reaches beyond the axes; a very large PNG
    is coarser."""
    width, height = figure.get_size_inches()
    dots = min(
        DOTS_PER_INCH, (MOST_PIXELS / (width * height)) ** 0.5, MOST_DOTS / max(width, height)
    )
    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_figure(
            temporary, format=path.suffix[1:], dpi=dots, bbox_inches="tight", pad_inches=0.15
        )
