"""How the predicted levels agree with the truth and with the tree, from a predictions table.

One pass over the rows; everything else is made from counts. Definitions are in the docstrings of
`Hierarchy`. Reads a predictions table and touches nothing else.
"""

import dataclasses
import functools

import numpy as np

from plankton_jax import decoding
from plankton_jax.analysis.predictions import Predictions
from plankton_jax.errors import UserError
from plankton_jax.metrics import class_metrics
from plankton_jax.taxonomy import Taxonomy


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchy:
    """Counts of a part under a decoder.

    Attributes:
      taxonomy: the tree.
      confusion: int64 `k k` of each level, coarse to fine; rows are the true nodes.
      all_right: int64 `sides`, images of each true first-level node with every level right.
      consistent: int64 `sides`, images whose predicted nodes are a path of the tree.
      shared, predicted: sums of the nodes in both, and in the predicted, sets: all predicted nodes
        with all that is above them (Kiritchenko et al. 2006).
      mistakes, height: images with a wrong leaf, and the sum of the heights, in levels, of the
        lowest node that the wrong and the true leaf share.
      edges: int64 `k k2` of each two neighbouring levels: images that were given the nodes (u, v).
    """

    taxonomy: Taxonomy
    confusion: tuple[np.ndarray, ...]
    all_right: np.ndarray
    consistent: np.ndarray
    shared: int
    predicted: int
    mistakes: int
    height: int
    edges: tuple[np.ndarray, ...]

    @property
    def support(self) -> np.ndarray:
        """Images of each first-level node: int64 `sides`."""
        return self.confusion[0].sum(axis=1)

    def coherence_accuracy(self, side: int | None = None) -> float:
        """The share of images with every level right, of one true side or of all."""
        return _share(self.all_right, self.support, side)

    def consistency(self, side: int | None = None) -> float:
        """The share of images whose predicted nodes are a path of the tree."""
        return _share(self.consistent, self.support, side)

    @property
    def hierarchical(self) -> tuple[float, float, float]:
        """Hierarchical precision, recall and F1 (Kiritchenko et al. 2006), micro averages."""
        true = self.taxonomy.depth * int(self.support.sum())
        precision, recall = self.shared / max(self.predicted, 1), self.shared / max(true, 1)
        return precision, recall, 2 * precision * recall / max(precision + recall, 1e-300)

    @property
    def mistake_height(self) -> float:
        """The mean height of the lowest common node of a wrong leaf and the true one: 1 where
        they share a parent, the tree's depth where nothing is shared; NaN without mistakes."""
        return self.height / self.mistakes if self.mistakes else float("nan")

    def level_rows(self, level: int, side: int | None = None) -> dict[str, float]:
        """The report's four metrics of a level in 0..1, macro F1 and micro accuracy.

        `accuracy` and `recall` are macro, `precision` and `macro_f1` too, `f1` is weighted by
        support, all as scikit-learn has them over the images whose true first-level node is `side`
        (None: all). A prediction outside of the side's nodes is an error there, and no class of its
        own.
        """
        confusion = self.confusion[level]
        true = np.ones(len(confusion), bool)
        if side is not None:
            true = np.zeros(len(confusion), bool)
            true[self.taxonomy.ancestors[level][self.taxonomy.ancestors[0] == side]] = True
        counts = np.where(true[:, None], confusion, 0)
        found = class_metrics(counts)
        support = found["support"]
        there, total = support > 0, support.sum()
        if not total:
            names = ("accuracy", "f1", "macro_f1", "precision", "recall", "micro")
            return dict.fromkeys(names, float("nan"))
        return {
            "accuracy": float(found["recall"][there].mean()),
            "f1": float((found["f1"] * support).sum() / total),
            "macro_f1": float(found["f1"][there].mean()),
            "precision": float(found["precision"][there].mean()),
            "recall": float(found["recall"][there].mean()),
            "micro": float(np.trace(counts) / total),
        }


def _share(counts: np.ndarray, support: np.ndarray, side: int | None) -> float:
    """Of one side's images, or of all."""
    if side is not None:
        counts, support = counts[side : side + 1], support[side : side + 1]
    return float(counts.sum() / support.sum()) if support.sum() else float("nan")


@functools.lru_cache(maxsize=16)
def measure(predictions: Predictions, decoder: str | None = None) -> Hierarchy:
    """The counts of all rows; kept, for every table and figure asks for them.

    Args:
      decoder: one of `names.DECODERS`; None: the one of the run's head.

    Raises:
      UserError: the table has no rows, or is damaged.
    """
    if not predictions.num_examples:
        raise UserError(
            f"predictions {predictions.path}: no examples, so there is nothing to measure. "
            "Evaluate a part of the data that has images."
        )
    tree = predictions.taxonomy
    decoder = decoder or predictions.provenance.decoder
    sizes = [len(nodes) for nodes in tree.node_names]
    confusion = [np.zeros((size, size), np.int64) for size in sizes]
    edges = [np.zeros(pair, np.int64) for pair in zip(sizes, sizes[1:], strict=False)]
    right, consistent = np.zeros(sizes[0], np.int64), np.zeros(sizes[0], np.int64)
    totals = np.zeros(4, np.int64)
    for rows in predictions.batches(ids=False, embedding=False):
        nodes = decoding.decode(decoder, rows.logits, tree, rows.label)
        true = tree.ancestors[:, rows.label].T
        side = true[:, 0]
        for level, counts in enumerate(confusion):
            counts += _pairs(true[:, level], nodes[:, level], counts.shape)
        for level, counts in enumerate(edges):
            counts += _pairs(nodes[:, level], nodes[:, level + 1], counts.shape)
        right += np.bincount(side[(nodes == true).all(axis=1)], minlength=sizes[0])
        consistent += np.bincount(side[decoding.is_path(nodes, tree)], minlength=sizes[0])
        totals += _of_paths(nodes, true, tree)
    return Hierarchy(
        tree, tuple(confusion), right, consistent, *totals.tolist(), edges=tuple(edges)
    )


def _pairs(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """How often each pair occurs."""
    flat = first.astype(np.int64) * shape[1] + second
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)


def _of_paths(nodes: np.ndarray, true: np.ndarray, tree: Taxonomy) -> np.ndarray:
    """Sums over rows: nodes in both sets, nodes predicted, wrong leaves, heights of mistakes."""
    shared = predicted = 0
    for level in range(tree.depth):
        # The ancestors at this level of every predicted node from here on, without repeats.
        above = np.stack(
            [_ancestor(tree, finer, level, nodes[:, finer]) for finer in range(level, tree.depth)],
            axis=1,
        )
        ordered = np.sort(above, axis=1)
        predicted += len(nodes) + int((np.diff(ordered, axis=1) != 0).sum())
        shared += int((above == true[:, level, None]).any(axis=1).sum())
    paths = tree.ancestors[:, nodes[:, -1]].T
    together = (paths == true).sum(axis=1)
    wrong = nodes[:, -1] != true[:, -1]
    height = (tree.depth - together)[wrong].sum()
    return np.array([shared, predicted, wrong.sum(), height], np.int64)


def _ancestor(tree: Taxonomy, level: int, coarser: int, nodes: np.ndarray) -> np.ndarray:
    """The nodes of a coarser level above nodes of a level."""
    lookup = np.zeros(len(tree.node_names[level]), np.int64)
    lookup[tree.ancestors[level]] = tree.ancestors[coarser]
    return lookup[nodes]
