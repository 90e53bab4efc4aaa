"""The effective hierarchy: which nodes of neighbouring levels a network predicts together.

The report's figures 16 and 17: a layered graph of the tree's nodes, an edge for every pair (u, v)
that an image was given, as wide as sqrt(N_predicted(u, v) / N_true(u)); pairs that contradict the
tree in another colour. Drawn as SVG and PNG, and as a page of its own that can be explored. Writes
these files.
"""

import dataclasses
import html
import json
import math
import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from plankton_jax.analysis.figures import BLUE, DARK, FAINT, ORANGE, save, short_name
from plankton_jax.analysis.hierarchy import Hierarchy
from plankton_jax.files import replacing

LINE_INCHES, COLUMN_INCHES, LABEL_INCHES = 0.17, 2.6, 2.4
WIDEST_POINTS = 9.0
WIDEST = 1.5
"""The width from which on edges are drawn alike: a rare node may be predicted a hundred times."""
THINNEST_POINTS = 0.25


@dataclasses.dataclass(frozen=True)
class Edge:
    """One pair of nodes that were predicted together.

    Attributes:
      level: of u; v is one level finer.
      u, v: node numbers.
      count: images that were given both.
      width: sqrt(count / images that truly are of u); over 1 where u is predicted too often.
      contradicts: whether v is not below u in the tree.
    """

    level: int
    u: int
    v: int
    count: int
    width: float
    contradicts: bool


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where nodes stand: `places[level][node]` is the height in lines, from the top."""

    places: tuple[np.ndarray, ...]
    lines: int


def edges_of(found: Hierarchy) -> list[Edge]:
    """All pairs that occur, coarse to fine; of a node that no image truly has the width is that
    of one image."""
    edges = []
    for level, counts in enumerate(found.edges):
        true = np.maximum(found.confusion[level].sum(axis=1), 1)
        parents = found.taxonomy.parents[level + 1]
        for u, v in np.argwhere(counts).tolist():
            width = math.sqrt(counts[u, v] / true[u])
            edges.append(Edge(level, u, v, int(counts[u, v]), width, int(parents[v]) != u))
    return edges


def layout_of(found: Hierarchy) -> Layout:
    """Leaves one below the other in the tree's order, every other node in the middle of its own."""
    tree = found.taxonomy
    order = sorted(range(tree.num_leaves), key=lambda leaf: tuple(tree.ancestors[:, leaf]))
    place_of_leaf = np.empty(tree.num_leaves)
    place_of_leaf[order] = np.arange(tree.num_leaves)
    places = []
    for level, names in enumerate(tree.node_names):
        nodes = tree.ancestors[level]
        total = np.bincount(nodes, weights=place_of_leaf, minlength=len(names))
        places.append(total / np.bincount(nodes, minlength=len(names)))
    return Layout(tuple(places), tree.num_leaves)


def write_figures(found: Hierarchy, title: str, stem: pathlib.Path) -> list[pathlib.Path]:
    """Draws the graph into `stem`.svg, .png and .html; the paths."""
    paths = [stem.with_name(stem.name + suffix) for suffix in (".svg", ".png", ".html")]
    for path in paths[:2]:
        save(_figure(found, title), path)
    with replacing(paths[2]) as temporary:
        temporary.write_text(_page(found, title), encoding="utf-8")
    return paths


def _figure(found: Hierarchy, title: str) -> Figure:
    tree, layout = found.taxonomy, layout_of(found)
    height = max(layout.lines * LINE_INCHES, 1.5)
    width = COLUMN_INCHES * (tree.depth - 1) + LABEL_INCHES + 1.0
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(-1.0, width - 1.0)
    axes.set_ylim(layout.lines - 0.5, -0.5)
    axes.axis("off")
    # Wide ones first, so that thin ones stay visible; contradictions on top.
    for edge in sorted(edges_of(found), key=lambda edge: (edge.contradicts, -edge.width)):
        left, right = COLUMN_INCHES * edge.level, COLUMN_INCHES * (edge.level + 1)
        start, stop = layout.places[edge.level][edge.u], layout.places[edge.level + 1][edge.v]
        middle = (left + right) / 2
        points = [(left, start), (middle, start), (middle, stop), (right, stop)]
        codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
        axes.add_patch(
            PathPatch(
                Path(points, codes),
                facecolor="none",
                edgecolor=ORANGE if edge.contradicts else BLUE,
                linewidth=max(WIDEST_POINTS * min(edge.width, WIDEST) / WIDEST, THINNEST_POINTS),
                alpha=0.75 if edge.contradicts else 0.6,
                capstyle="butt",
            )
        )
    for level, names in enumerate(tree.node_names):
        last = level == tree.depth - 1
        x = COLUMN_INCHES * level
        axes.scatter(np.full(len(names), x), layout.places[level], s=9, color=DARK, zorder=3)
        for place, name in zip(layout.places[level].tolist(), names, strict=True):
            axes.text(
                x + (0.08 if last else -0.08), place, short_name(name),
                fontsize=7.0 if last else 8.0, ha="left" if last else "right", va="center",
                color=DARK, parse_math=False, zorder=4,
                bbox=None if last else {"facecolor": "white", "alpha": 0.75, "pad": 0.6,
                                        "edgecolor": "none"},
            )  # fmt: skip
    consistent = f"{100 * found.consistency():.1f}"
    axes.text(
        0.0, -1.6, f"{title}: {int(found.support.sum()):,} images, {consistent} % consistent",
        fontsize=11, ha="left", va="bottom", color=DARK, parse_math=False,
    )  # fmt: skip
    axes.text(0.0, -0.9, "in the tree", color=BLUE, fontsize=8, va="bottom")
    axes.text(0.9, -0.9, "against the tree", color=ORANGE, fontsize=8, va="bottom")
    axes.text(
        2.1, -0.9, f"width: square root of the share of the left node's true number, to {WIDEST}",
        color=FAINT, fontsize=8, va="bottom",
    )  # fmt: skip
    return figure


def _page(found: Hierarchy, title: str) -> str:
    """A page without anything from elsewhere: nodes light up their edges, thin edges can be hidden,
    every edge tells its numbers."""
    tree, layout = found.taxonomy, layout_of(found)
    column, line, margin = 260, 15, 190
    width = margin + column * (tree.depth - 1) + 240
    height = layout.lines * line + 20

    def point(level: int, node: int) -> tuple[float, float]:
        return margin + column * level, 14 + line * float(layout.places[level][node])

    parts = []
    for edge in sorted(edges_of(found), key=lambda edge: (edge.contradicts, -edge.width)):
        (x1, y1), (x2, y2) = point(edge.level, edge.u), point(edge.level + 1, edge.v)
        u, v = tree.node_names[edge.level][edge.u], tree.node_names[edge.level + 1][edge.v]
        true = int(found.confusion[edge.level][edge.u].sum())
        text = f"{u} and {v}: given to {edge.count:,} images; {true:,} images truly are {u}"
        stroke = max(8 * min(edge.width, WIDEST), 0.4)
        parts.append(
            f'<path class="{"against" if edge.contradicts else "within"}" '
            f'data-ends="{edge.level}-{edge.u} {edge.level + 1}-{edge.v}" '
            f'data-width="{edge.width:.4f}" stroke-width="{stroke:.2f}"'
            f' d="M{x1:.1f} {y1:.1f}C{(x1 + x2) / 2:.1f} {y1:.1f} {(x1 + x2) / 2:.1f} {y2:.1f} '
            f'{x2:.1f} {y2:.1f}"><title>{html.escape(text)}</title></path>'
        )
    for level, names in enumerate(tree.node_names):
        last = level == tree.depth - 1
        for node, name in enumerate(names):
            x, y = point(level, node)
            true = int(found.confusion[level][node].sum())
            given = int(found.confusion[level][:, node].sum())
            right = int(found.confusion[level][node, node])
            text = f"{name}: {true:,} images, predicted {given:,} times, {right:,} of them right"
            parts.append(
                f'<g class="node" tabindex="0" data-node="{level}-{node}">'
                f'<circle cx="{x}" cy="{y:.1f}" r="3"/>'
                f'<text x="{x + (7 if last else -7)}" y="{y + 3.5:.1f}" '
                f'text-anchor="{"start" if last else "end"}">{html.escape(name)}</text>'
                f"<title>{html.escape(text)}</title></g>"
            )
    facts = (
        f"{int(found.support.sum()):,} images; every level right: "
        f"{100 * found.coherence_accuracy():.1f} %; consistent: {100 * found.consistency():.1f} %"
    )
    largest = max((edge.width for edge in edges_of(found)), default=1.0)
    return _PAGE.format(
        title=html.escape(title),
        facts=html.escape(facts),
        width=width,
        height=height,
        largest=json.dumps(round(largest, 3)),
        widest=WIDEST,
        body="\n".join(parts),
        within=BLUE,
        against=ORANGE,
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}: effective hierarchy</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 14px system-ui, sans-serif; margin: 1rem 1.5rem; color: #222; background: #fff }}
h1 {{ font-size: 1.2rem; margin: 0 0 .3rem }} p {{ margin: .2rem 0; max-width: 60rem }}
form {{ position: sticky; top: 0; background: #fffd; padding: .4rem 0; z-index: 1 }}
label {{ margin-right: 1.5rem }} svg {{ font-size: 11px; overflow: visible }}
path {{ fill: none; opacity: .6 }} .within {{ stroke: {within} }} .against {{ stroke: {against} }}
.hidden {{ display: none }} .dim path {{ opacity: .06 }} .dim path.lit {{ opacity: .95 }}
.node {{ cursor: pointer; outline: none }} .node:hover text, .node.on text {{ font-weight: 700 }}
.key {{ font-weight: 600 }}
</style></head><body>
<h1>{title}: effective hierarchy</h1>
<p>{facts}.</p>
<p>A line joins two nodes of neighbouring levels that one image was given, as wide as the square
root of their number over the images that truly are of the left node (from {widest} on alike):
<span class="key" style="color:{within}">in the tree</span>,
<span class="key" style="color:{against}">against the tree</span>. Point at a line for its numbers;
click a node to keep its lines lit.</p>
<form onsubmit="return false">
<label>hide lines thinner than <input id="least" type="range" min="0" max="{largest}" step="0.001"
 value="0"> <output id="shown">0</output></label>
<label><input id="only" type="checkbox"> only those against the tree</label></form>
<svg id="graph" width="{width}" height="{height}" role="img" aria-label="effective hierarchy">
{body}
</svg>
<script>
const graph = document.getElementById("graph");
const lines = [...graph.querySelectorAll("path")];
const nodes = [...graph.querySelectorAll(".node")];
const least = document.getElementById("least"), only = document.getElementById("only");
let kept = null;
function hide() {{
  document.getElementById("shown").textContent = Number(least.value).toFixed(3);
  for (const line of lines) line.classList.toggle("hidden",
    Number(line.dataset.width) < Number(least.value) ||
    (only.checked && !line.classList.contains("against")));
}}
function light(name) {{
  graph.classList.toggle("dim", name !== null);
  for (const line of lines)
    line.classList.toggle("lit", line.dataset.ends.split(" ").includes(name));
  for (const node of nodes) node.classList.toggle("on", node.dataset.node === name);
}}
for (const node of nodes) {{
  const name = node.dataset.node;
  node.addEventListener("mouseenter", () => light(name));
  node.addEventListener("mouseleave", () => light(kept));
  const keep = () => {{ kept = kept === name ? null : name; light(kept); }};
  node.addEventListener("click", keep);
  node.addEventListener("keydown", (event) => {{ if (event.key === "Enter") keep(); }});
}}
least.addEventListener("input", hide);
only.addEventListener("change", hide);
</script></body></html>
"""
