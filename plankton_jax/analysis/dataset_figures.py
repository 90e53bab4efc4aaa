"""Figures of a data set: examples of every class, its numbers of images, and one image as training
may change it. Writes PNG files.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from plankton_jax.analysis.figures import (
    BLUE,
    DARK,
    FAINT,
    ORANGE,
    quiet,
    save,
    short_name,
    thousands,
)


def contact_sheet(
    classes: Sequence[tuple[str, str, int, Sequence[np.ndarray]]], path: pathlib.Path, columns: int
) -> None:
    """Draws examples of every class, a line each, at one scale for a line.

    Args:
      classes: group, name, number of images, and grey images of each class; in the order to draw.
      path: the PNG to write.
      columns: places for examples in a line.
    """
    cell, label = 0.62, 2.6
    width, height = label + columns * cell, len(classes) * cell
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, width)
    axes.set_ylim(height, 0.0)
    axes.axis("off")
    for line, (group, name, count, images) in enumerate(classes):
        middle = (line + 0.5) * cell
        text = f"{short_name(name)}\n{group}{', ' if group else ''}{count:,}"
        axes.text(label - 0.1, middle, text, fontsize=7, ha="right", va="center", parse_math=False,
                  color=DARK if count else ORANGE)  # fmt: skip
        if line % 2:
            axes.axhspan(line * cell, (line + 1) * cell, color="#f4f4f4", zorder=0, linewidth=0)
        longest = max((max(image.shape) for image in images), default=1)
        scale = 0.92 * cell / longest
        for column, image in enumerate(images):
            centre = label + (column + 0.5) * cell
            half_h, half_w = image.shape[0] * scale / 2, image.shape[1] * scale / 2
            extent = (centre - half_w, centre + half_w, middle + half_h, middle - half_h)
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
    save(figure, path)


def class_count_figure(
    names: Sequence[str],
    counts: dict[str, np.ndarray],
    path: pathlib.Path,
) -> None:
    """Draws the number of images of every class, most first, on a logarithmic axis.

    Args:
      names: of the classes.
      counts: for each part of the split its images of each class; drawn one after the other.
      path: the PNG to write.
    """
    total = np.sum(list(counts.values()), axis=0)
    order = np.argsort(-total, kind="stable")
    height = 0.17 * len(names) + 0.1
    figure = Figure(figsize=(7.5, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    rows = np.arange(len(names))
    colours = {"train": "#8a8a8a", "validation": ORANGE, "test": BLUE}
    offset = 0.26
    for place, (part, values) in enumerate(counts.items()):
        shown = values[order]
        known = np.flatnonzero(shown)
        axes.barh(known + (place - 1) * offset, shown[known] - 0.5, left=0.5, height=offset,
                  color=colours.get(part, "#8a8a8a"), label=part)  # fmt: skip
    shown_names = [short_name(str(names[leaf])) for leaf in order.tolist()]
    labels = [f"{name}  {total[leaf]:,}" for name, leaf in zip(shown_names, order, strict=True)]
    axes.set_yticks(rows, labels, fontsize=7.5, parse_math=False)
    axes.set_xscale("log")
    axes.set_xlim(0.5, max(10.0, float(total.max()) * 1.3))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.set_xlabel("images (log scale)", fontsize=9)
    above = 1.0 + 0.2 / height  # a fifth of an inch, for the numbers of a long figure's upper end
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, above), ncols=3, fontsize=8, frameon=False)
    quiet(axes)
    axes.tick_params(axis="x", labeltop=True)
    save(figure, path)


def _frame(extent: tuple[float, float, float, float]) -> tuple[list[float], list[float]]:
    """A line around a picture, whose ground may be as white as the page."""
    left, right, bottom, top = extent
    return [left, right, right, left, left], [bottom, bottom, top, top, bottom]


def operations_figure(
    lines: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]], path: pathlib.Path
) -> None:
    """Draws lines of captioned squares, one line for each operation or recipe.

    Args:
      lines: name, and captions with grey squares of one size, of each line.
      path: the PNG to write.
    """
    cell, gap, label = 1.0, 0.2, 1.35
    columns = max(len(squares) for _, squares in lines)
    width, height = label + columns * cell, len(lines) * (cell + gap)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, width)
    axes.set_ylim(height, 0.0)
    axes.axis("off")
    for number, (name, squares) in enumerate(lines):
        top = number * (cell + gap)
        axes.text(label - 0.1, top + cell / 2, name, fontsize=8, ha="right", va="center")
        for column, (caption, square) in enumerate(squares):
            left = label + column * cell
            extent = (left, left + 0.95 * cell, top + 0.95 * cell, top)
            axes.imshow(square, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
            axes.plot(*_frame(extent), color=FAINT, linewidth=0.4)
            axes.text(left + 0.475 * cell, top + cell + 0.05, caption, fontsize=6.5, ha="center",
                      va="center", color=DARK)  # fmt: skip
    save(figure, path)
