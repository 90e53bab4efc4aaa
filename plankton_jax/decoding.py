"""From logits of every level to one node at every level: pure functions of arrays, in NumPy.

The levels of a hierarchical network may contradict the tree. A decoder says what is predicted then:

- argmax: every level by itself, as the report does; the nodes may be no path of the tree.
- routed: the first level by itself, every other among the nodes below the first one (SBA-CNN).
- oracle: the same below the *true* node of the first level; only to see what the gate costs.
- top_down: every level among the children of the one before.
- leaf: the most probable leaf and what is above it.
- path: the path with the largest product of its nodes' probabilities.
- risk: the leaf with the least expected distance in the tree from the true one (Bertinetto et al.
  2020; "conditional risk minimisation"), and what is above it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from plankton_jax.errors import UserError, near_miss
from plankton_jax.names import DECODERS
from plankton_jax.taxonomy import Taxonomy


def decode(
    name: str,
    level_logits: Sequence[Float[np.ndarray, "n k"]],
    taxonomy: Taxonomy,
    labels: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, "n levels"]:
    """The predicted node of every level, coarse to fine.

    Args:
      name: one of `names.DECODERS`.
      level_logits: of every level of the tree.
      labels: the true leaves, for "oracle" alone.

    Raises:
      UserError: an unknown name.
    """
    if name not in DECODERS:
        raise UserError(f'--decoder: found "{name}". {near_miss(name, DECODERS)}')
    if name == "argmax":
        return np.stack([logits.argmax(axis=1) for logits in level_logits], axis=1)
    logs = [_log_softmax(logits) for logits in level_logits]
    if name in ("routed", "oracle"):
        first = logs[0].argmax(axis=1)
        if name == "oracle":
            assert labels is not None, "the oracle knows the true leaves"
            first = taxonomy.ancestors[0][labels]
        return _below_first(logs, first, taxonomy)
    if name == "top_down":
        return _top_down(logs, taxonomy)
    if name == "leaf":
        leaf = logs[-1].argmax(axis=1)
    elif name == "path":
        rows = zip(logs, taxonomy.ancestors, strict=True)
        leaf = np.sum([log[:, nodes] for log, nodes in rows], axis=0).argmax(axis=1)
    else:
        leaf = (np.exp(logs[-1]) @ taxonomy.leaf_distances).argmin(axis=1)
    return taxonomy.ancestors[:, leaf].T.astype(np.int64)


def is_path(nodes: Int[np.ndarray, "n levels"], taxonomy: Taxonomy) -> np.ndarray:
    """Whether each row of nodes is a path of the tree: bool `n`."""
    return (taxonomy.ancestors[:, nodes[:, -1]].T == nodes).all(axis=1)


def _below_first(logs: Sequence[np.ndarray], first: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    chosen = [first]
    for level in range(1, taxonomy.depth):
        above = np.zeros(logs[level].shape[1], np.int64)
        above[taxonomy.ancestors[level]] = taxonomy.ancestors[0]
        chosen.append(_best_of(logs[level], above[None, :] == first[:, None]))
    return np.stack(chosen, axis=1)


def _top_down(logs: Sequence[np.ndarray], taxonomy: Taxonomy) -> np.ndarray:
    chosen = [logs[0].argmax(axis=1)]
    for level in range(1, taxonomy.depth):
        parents = taxonomy.parents[level]
        chosen.append(_best_of(logs[level], parents[None, :] == chosen[-1][:, None]))
    return np.stack(chosen, axis=1)


def _best_of(log: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    return np.where(allowed, log, -np.inf).argmax(axis=1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
