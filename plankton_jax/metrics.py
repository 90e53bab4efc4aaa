"""Metrics from confusion counts, at every level of the tree. Pure functions; no files.

`batch_sums` runs inside the evaluation step, under `jax.jit`, and returns sums and counts alone, so
that batches, devices and hosts add up to one answer (`jax.tree.map(operator.add, a, b)`).
`host_sums` gives the same sums for arrays on the host. `level_metrics` turns either into numbers.
"""

import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from plankton_jax.config import METRICS as METRIC_NAMES
from plankton_jax.names import DECODER_OF_HEAD

TOP = 5

Sums = dict[str, Any]


def level_sizes(ancestors: Int[Array | np.ndarray, "levels leaves"]) -> tuple[int, ...]:
    """The number of nodes of each level; `ancestors` must hold values, not be traced."""
    return tuple(int(size) for size in np.asarray(ancestors).max(axis=1) + 1)


def zero_sums(ancestors: Int[Array | np.ndarray, "levels leaves"]) -> Sums:
    """What `batch_sums` returns for no examples: where adding up starts."""
    sizes = level_sizes(ancestors)
    return {
        "confusion": tuple(jnp.zeros((size, size), jnp.int32) for size in sizes),
        "top5_correct": tuple(jnp.zeros((), jnp.int32) for _ in sizes),
        "log_loss": tuple(jnp.zeros((), jnp.float32) for _ in sizes),
        "count": jnp.zeros((), jnp.int32),
    }


def batch_sums(
    level_logits: tuple[Float[Array, "b k"], ...],
    leaf: Int[Array, " b"],
    mask: Bool[Array, " b"],
    ancestors: Int[Array, "levels leaves"],
    decoder: str = "argmax",
) -> Sums:
    """Sums and counts of a batch, for every level; rows where `mask` is False count for nothing.

    Returns a dict of `confusion` (int32 `k k`, rows are the true nodes), `top5_correct` (int32) and
    `log_loss` (float32, nats), each a tuple with one entry a level, and `count` (int32). The
    prediction is that of `predicted_nodes`. In the top 5 a tie goes to the lower index, as in the
    prediction by argmax. A logit that is not a number makes its row's log-loss so and is never in
    the top 5 of more than 5.
    """
    decoded = predicted_nodes(level_logits, ancestors, decoder)
    leaf = jnp.where(mask, leaf, 0).astype(jnp.int32)
    ones = mask.astype(jnp.int32)
    confusion, top5_correct, log_loss = [], [], []
    levels = zip(level_logits, decoded, jnp.asarray(ancestors), strict=True)
    for logits, predicted, nodes in levels:
        logits = logits.astype(jnp.float32)
        size = logits.shape[-1]
        true = nodes[leaf].astype(jnp.int32)
        confusion.append(jnp.zeros((size, size), jnp.int32).at[true, predicted].add(ones))
        own = jnp.take_along_axis(logits, true[:, None], axis=-1)
        before = jnp.arange(size, dtype=jnp.int32)[None] < true[:, None]
        rank = jnp.sum(~(logits <= own) | ((logits == own) & before), axis=-1)
        top5_correct.append(jnp.sum((rank < TOP) & mask, dtype=jnp.int32))
        nll = jax.nn.logsumexp(logits, axis=-1) - own[:, 0]
        log_loss.append(jnp.sum(jnp.where(mask, nll, 0.0)))
    return {
        "confusion": tuple(confusion),
        "top5_correct": tuple(top5_correct),
        "log_loss": tuple(log_loss),
        "count": jnp.sum(ones, dtype=jnp.int32),
    }


def predicted_nodes(
    level_logits: tuple[Float[Array, "b k"], ...],
    ancestors: Int[Array, "levels leaves"],
    decoder: str,
) -> tuple[Int[Array, " b"], ...]:
    """The node of every level under the decoder of a head: "argmax", "leaf" or "routed" of
    `plankton_jax.decoding`, on the device."""
    if decoder not in ("argmax", *DECODER_OF_HEAD.values()):
        raise ValueError(f"decoder {decoder!r} is of no head")
    ancestors = jnp.asarray(ancestors, jnp.int32)
    if decoder == "leaf":
        leaf = jnp.argmax(level_logits[-1], axis=-1)
        return tuple(nodes[leaf] for nodes in ancestors)
    first = jnp.argmax(level_logits[0], axis=-1).astype(jnp.int32)
    chosen = [first]
    for logits, nodes in zip(level_logits[1:], ancestors[1:], strict=True):
        if decoder == "routed":
            above = jnp.zeros(logits.shape[-1], jnp.int32).at[nodes].set(ancestors[0])
            logits = jnp.where(above[None] == first[:, None], logits, -jnp.inf)
        chosen.append(jnp.argmax(logits, axis=-1).astype(jnp.int32))
    return tuple(chosen)


def host_sums(
    level_logits: tuple[np.ndarray, ...],
    leaf: np.ndarray,
    ancestors: np.ndarray,
    decoded: Int[np.ndarray, "n levels"] | None = None,
) -> Sums:
    """`batch_sums` in NumPy, with int64 counts and float64 sums: no device, no compilation.

    Args:
      decoded: the predicted nodes, for the confusion counts; None: the largest logits of each
        level.
    """
    confusion, top5_correct, log_loss = [], [], []
    for level, (logits, nodes) in enumerate(zip(level_logits, ancestors, strict=True)):
        size = logits.shape[-1]
        true = nodes[leaf].astype(np.int64)
        predicted = logits.argmax(axis=-1) if decoded is None else decoded[:, level]
        pairs = np.bincount(true * size + predicted, minlength=size * size)
        confusion.append(pairs.reshape(size, size))
        own = np.take_along_axis(logits, true[:, None], axis=-1)
        before = np.arange(size)[None] < true[:, None]
        rank = (~(logits <= own) | ((logits == own) & before)).sum(axis=-1)
        top5_correct.append((rank < TOP).sum())
        top = logits.max(axis=-1, keepdims=True).astype(np.float64)
        nll = np.log(np.exp(logits - top).sum(axis=-1)) + (top - own)[:, 0]
        log_loss.append(nll.sum())
    return {
        "confusion": tuple(confusion),
        "top5_correct": tuple(top5_correct),
        "log_loss": tuple(log_loss),
        "count": np.int64(len(leaf)),
    }


def marginal_logits(
    leaf_logits: Float[Array, "b k"], ancestors: Int[Array | np.ndarray, "levels leaves"]
) -> tuple[Float[Array, "b k"], ...]:
    """Logits of every level, coarse to fine, read off those of the leaves.

    The log-probability of a node is the logsumexp of the log-probabilities of the leaves below it,
    so the levels agree with one another by construction. The last level is `leaf_logits` itself.
    `ancestors` must hold values, not be traced: the numbers of nodes are shapes.
    """
    log_probabilities = jax.nn.log_softmax(leaf_logits.astype(jnp.float32), axis=-1)
    sizes = level_sizes(ancestors)
    coarser = [
        _logsumexp_by_node(log_probabilities, np.asarray(nodes), size)
        for nodes, size in zip(np.asarray(ancestors)[:-1], sizes[:-1], strict=True)
    ]
    return (*coarser, leaf_logits)


def _logsumexp_by_node(
    leaves: Float[Array, "b k"], nodes: np.ndarray, size: int
) -> Float[Array, "b n"]:
    """logsumexp of the leaves of each node, shifted by the node's own largest leaf.

    Summed by a product with a 0/1 matrix: a scatter of sums has no fixed order on a GPU.
    """
    lowest = jnp.full((leaves.shape[0], size), -jnp.inf, jnp.float32)
    top = jax.lax.stop_gradient(lowest.at[:, nodes].max(leaves))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    belongs = jnp.asarray(nodes[:, None] == np.arange(size)[None], jnp.float32)
    shifted = jnp.exp(leaves - top[:, nodes])
    return jnp.log(jnp.matmul(shifted, belongs, precision=jax.lax.Precision.HIGHEST)) + top


def level_metrics(sums: Sums, level_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """`{"name": level, **from_confusion(...)}` for each level, coarse to fine, as plain numbers."""
    rows = zip(level_names, sums["confusion"], sums["top5_correct"], sums["log_loss"], strict=True)
    return [
        {"name": name, **{key: float(value) for key, value in from_confusion(*values).items()}}
        for name, *values in rows
    ]


def from_confusion(
    confusion: Int[np.ndarray, "k k"], top5_correct: Any, log_loss_sum: Any
) -> dict[str, np.float64]:
    """The metrics of one level from its counts (rows of `confusion` are the true classes).

    `macro_precision`, `macro_recall` and `macro_f1` are means over the classes that occur in truth
    or among the predictions, a quotient 0/0 counting as 0: scikit-learn's defaults with
    `zero_division=0` and no `labels`. `macro_accuracy` is the mean recall over the classes that
    occur in truth alone (`balanced_accuracy_score`); it differs from `macro_recall` only where a
    class without a single example was predicted. `weighted_f1` weighs by support. `log_loss` is in
    nats. Without any example every metric is NaN.
    """
    confusion = np.asarray(confusion, np.int64)
    total = confusion.sum()
    if total == 0:
        return dict.fromkeys(METRIC_NAMES, np.float64("nan"))
    classes = class_metrics(confusion)
    support = classes["support"]
    occurs = (support > 0) | (classes["predicted"] > 0)
    return {
        "micro_accuracy": np.float64(np.trace(confusion) / total),
        "macro_accuracy": classes["recall"][support > 0].mean(),
        "macro_f1": classes["f1"][occurs].mean(),
        "weighted_f1": np.float64((classes["f1"] * support).sum() / total),
        "macro_precision": classes["precision"][occurs].mean(),
        "macro_recall": classes["recall"][occurs].mean(),
        "top5_accuracy": np.float64(int(top5_correct) / total),
        "log_loss": np.float64(float(log_loss_sum) / total),
    }


def class_metrics(confusion: Int[np.ndarray, "k k"]) -> dict[str, np.ndarray]:
    """Counts and rates of each class, arrays of length k; a quotient 0/0 is 0.

    Returns `support`, `true_positives`, `predicted` (int64); `precision`, `recall`, `f1` (float64).
    """
    confusion = np.asarray(confusion, np.int64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    right = np.diagonal(confusion).copy()
    return {
        "support": support,
        "true_positives": right,
        "predicted": predicted,
        "precision": _quotient(right, predicted),
        "recall": _quotient(right, support),
        "f1": _quotient(2 * right, support + predicted),
    }


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element-wise quotient; 0 where the denominator is 0."""
    return numerator / np.maximum(denominator, 1)


def wilson_interval(
    successes: Any, trials: Any, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high end of the score interval of a proportion, element by element.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927),
    without continuity correction. No trials give (0, 1): nothing is known.
    """
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2.0)
    successes, trials = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    failures = trials - successes
    spread = z * np.sqrt(successes * failures / np.maximum(trials, 1.0) + z**2 / 4.0)
    centre = successes + z**2 / 2.0
    low, high = (centre - spread) / (trials + z**2), (centre + spread) / (trials + z**2)
    # Exactly 0 and 1 at the ends, where rounding would leave 1e-17 of either sign.
    return np.where(successes == 0, 0.0, low), np.where(failures == 0, 1.0, high)
