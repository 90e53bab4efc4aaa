"""Losses: pure functions of level logits and labels that return one number an example.

Every loss is called as `loss(level_logits, labels)`. `level_logits` holds one array `b k` for each
level that the head predicts, coarse to fine; `labels` is `b levels` with the node on every level of
the tree, so `labels[:, -1]` is the leaf. A function of a configuration file with this signature is
as good as one from here. The training step averages over the batch.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from plankton_jax.config import LossConfig
from plankton_jax.errors import UserError
from plankton_jax.metrics import marginal_logits
from plankton_jax.taxonomy import Taxonomy

LevelLogits = tuple[Float[Array, "b k"], ...]
Loss = Callable[[LevelLogits, Int[Array, "b levels"]], Float[Array, " b"]]


def cross_entropy(
    level_logits: LevelLogits, labels: Int[Array, "b levels"], *, label_smoothing: float = 0.0
) -> Float[Array, " b"]:
    """Cross-entropy of the leaf, with the target smoothed over all classes.

    The smoothed target is `(1 - s) onehot + s / k` (Szegedy et al. 2016, section 7).
    """
    log_probabilities = jax.nn.log_softmax(level_logits[-1].astype(jnp.float32), axis=-1)
    leaf = labels[:, -1]
    nll = -jnp.take_along_axis(log_probabilities, leaf[:, None], axis=-1)[:, 0]
    if not label_smoothing:
        return nll
    uniform = -jnp.mean(log_probabilities, axis=-1)
    return (1.0 - label_smoothing) * nll + label_smoothing * uniform


def auxiliary_cross_entropy(
    level_logits: LevelLogits, labels: Int[Array, "b levels"], *, label_smoothing: float = 0.0
) -> Float[Array, " b"]:
    """Cross-entropy of the leaf, and 0.4 times that of the auxiliary classifier's logits.

    The head "auxiliary" gives those first. The weight is torchvision's for Inception v3 (.3 in
    Szegedy et al. 2015).

    Raises:
      UserError: the head gives the logits of one level alone.
    """
    if len(level_logits) < 2:
        raise UserError(
            'config.loss.name: found "auxiliary_cross_entropy"; the head gives no auxiliary logits '
            'in training; allowed: the head "auxiliary" without config.model.freeze_backbone, or '
            'the loss "cross_entropy".'
        )
    auxiliary, *_, leaves = level_logits
    smooth = functools.partial(cross_entropy, labels=labels, label_smoothing=label_smoothing)
    return smooth((leaves,)) + 0.4 * smooth((auxiliary,))


def level_cross_entropy(
    level_logits: LevelLogits,
    labels: Int[Array, "b levels"],
    *,
    weights: Float[Array, " levels"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, " b"]:
    """The weighted sum of the cross-entropies of all levels (branch training: Zhu & Bain 2017).

    Args:
      weights: of the levels, coarse to fine; None: one each.

    Raises:
      UserError: logits of another number of levels than the tree has.
    """
    if len(level_logits) != labels.shape[-1]:
        raise UserError(
            f'config.loss.name: found "level_cross_entropy"; the head gives logits of '
            f"{len(level_logits)} of the tree's {labels.shape[-1]} levels; allowed: a head of all "
            'levels, such as "coherent" or "bcnn", or the loss "cross_entropy".'
        )
    values = [
        cross_entropy((logits,), labels[:, level : level + 1], label_smoothing=label_smoothing)
        for level, logits in enumerate(level_logits)
    ]
    stacked = jnp.stack(values, axis=-1)
    return jnp.sum(stacked if weights is None else stacked * weights[None], axis=-1)


def hierarchical_cross_entropy(
    level_logits: LevelLogits,
    labels: Int[Array, "b levels"],
    *,
    ancestors: Int[np.ndarray, "levels leaves"],
    alpha: float,
) -> Float[Array, " b"]:
    """Cross-entropies of the steps down the tree, each step from the leaf logits, weighted by
    exp(-alpha h) of its lower node's height h (Bertinetto et al. 2020, section 4)."""
    levels = marginal_logits(level_logits[-1].astype(jnp.float32), ancestors)
    logs = [jax.nn.log_softmax(logits, axis=-1) for logits in levels]
    own = [
        jnp.take_along_axis(log, labels[:, level : level + 1], axis=-1)[:, 0]
        for level, log in enumerate(logs)
    ]
    total, depth = jnp.zeros_like(own[0]), len(own)
    for level, log in enumerate(own):
        step = log - own[level - 1] if level else log
        total = total - math.exp(-alpha * (depth - 1 - level)) * step
    return total


def tree_soft_labels(
    level_logits: LevelLogits,
    labels: Int[Array, "b levels"],
    *,
    distances: Float[np.ndarray, "leaves leaves"],
    beta: float,
) -> Float[Array, " b"]:
    """Cross-entropy of the leaves against labels that spread over near classes: in proportion to
    exp(-beta d) at the distance d from the true class (Bertinetto et al. 2020, section 4).

    Args:
      distances: between leaves, 1 across the whole tree; `Taxonomy.leaf_distances`.
    """
    weight = np.exp(-beta * np.asarray(distances, np.float64))
    soft = jnp.asarray(weight / weight.sum(axis=1, keepdims=True), jnp.float32)
    logs = jax.nn.log_softmax(level_logits[-1].astype(jnp.float32), axis=-1)
    return -jnp.sum(soft[labels[:, -1]] * logs, axis=-1)


@dataclasses.dataclass(frozen=True)
class LevelSchedule:
    """A level cross-entropy whose weights change with the step, or are trained.

    Attributes:
      weights: one row of level weights for each phase.
      steps: at which the second and later rows begin (step) or are reached (linear).
      kind: step, linear or learned.
    """

    weights: tuple[tuple[float, ...], ...]
    steps: tuple[int, ...]
    kind: str
    label_smoothing: float = 0.0

    def initial_params(self) -> dict[str, Array]:
        """What is trained of the loss itself."""
        if self.kind != "learned":
            return {}
        return {"level_log_variance": jnp.zeros((len(self.weights[0]),), jnp.float32)}

    def weights_at(self, step: Int[Array, ""] | int) -> Float[Array, " levels"]:
        """The weights of the levels at a step, counted from 0."""
        rows = jnp.asarray(self.weights, jnp.float32)
        if self.kind == "linear" and self.steps:
            knots = jnp.asarray((0, *self.steps), jnp.float32)
            place = jnp.asarray(step, jnp.float32)
            columns = [jnp.interp(place, knots, rows[:, n]) for n in range(rows.shape[1])]
            return jnp.stack(columns)
        phase = jnp.sum(jnp.asarray(step) >= jnp.asarray(self.steps, jnp.int32))
        return rows[phase]

    def at(self, step: Int[Array, ""] | int, params: dict[str, Array]) -> Loss:
        """The loss at a step, given what is trained of it."""

        def loss(level_logits: LevelLogits, labels: Int[Array, "b levels"]) -> Float[Array, " b"]:
            options = {"label_smoothing": self.label_smoothing}
            if self.kind != "learned":
                weights = self.weights_at(step)
                return level_cross_entropy(level_logits, labels, weights=weights, **options)
            log_variance = params["level_log_variance"]
            value = level_cross_entropy(
                level_logits, labels, weights=jnp.exp(-log_variance), **options
            )
            return value + jnp.sum(log_variance) / 2

        return loss


NAMED = {
    "cross_entropy": cross_entropy,
    "auxiliary_cross_entropy": auxiliary_cross_entropy,
    "level_cross_entropy": level_cross_entropy,
    "hierarchical_cross_entropy": hierarchical_cross_entropy,
    "tree_soft_labels": tree_soft_labels,
}


def make_loss(
    config: LossConfig, taxonomy: Taxonomy | None = None, steps_per_epoch: int = 1
) -> Loss | LevelSchedule:
    """The loss a configuration names, or the function it gives.

    Args:
      taxonomy: the tree, for the losses that know it.
      steps_per_epoch: to convert settings given in epochs.

    Raises:
      UserError: level weights that do not fit the tree, or of which a row would never count.
    """
    if callable(config.name):
        return cast(Loss, config.name)
    name, smoothing = str(config.name), config.label_smoothing
    if name == "hierarchical_cross_entropy":
        tree = _tree(taxonomy, name)
        return functools.partial(
            hierarchical_cross_entropy, ancestors=tree.ancestors, alpha=config.tree_alpha
        )
    if name == "tree_soft_labels":
        tree = _tree(taxonomy, name)
        return functools.partial(
            tree_soft_labels, distances=tree.leaf_distances, beta=config.tree_beta
        )
    if name == "level_cross_entropy":
        depth = _tree(taxonomy, name).depth
        rows = config.level_weights or ((1.0,) * depth,)
        wrong = [row for row in rows if len(row) != depth]
        if wrong:
            raise UserError(
                f"config.loss.level_weights: found {wrong[0]}; the tree has {depth} levels; "
                f"allowed: {depth} numbers in each row."
            )
        steps = tuple(round(epoch * steps_per_epoch) for epoch in config.level_epochs)
        if any(second <= first for first, second in itertools.pairwise((0, *steps))):
            raise UserError(
                f"config.loss.level_epochs: found {tuple(config.level_epochs)}, which are the "
                f"steps {steps} of epochs of {steps_per_epoch} steps; allowed: epochs so far apart "
                "that every row of level_weights counts for one step at least."
            )
        rows = tuple(map(tuple, rows))
        return LevelSchedule(rows, steps, config.level_schedule, smoothing)
    return functools.partial(NAMED[name], label_smoothing=smoothing)


def _tree(taxonomy: Taxonomy | None, name: str) -> Taxonomy:
    if taxonomy is None or taxonomy.depth < 2:
        raise UserError(
            f'config.loss.name: found "{name}" for a tree of depth 1; allowed: a data set with a '
            'tree (folders in folders, or config.data.taxonomy_csv), or "cross_entropy".'
        )
    return taxonomy
