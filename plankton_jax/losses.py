"""Losses: pure functions of level logits and labels that return one number an example.

Every loss is called as `loss(level_logits, labels)`. `level_logits` holds one array `b k` for each
level that the head predicts, coarse to fine; `labels` is `b levels` with the node on every level of
the tree, so `labels[:, -1]` is the leaf. A function of a configuration file with this signature is
as good as one from here. The training step averages over the batch.
"""

import functools
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from plankton_jax.config import LossConfig
from plankton_jax.errors import UserError

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


NAMED = {
    "cross_entropy": cross_entropy,
    "auxiliary_cross_entropy": auxiliary_cross_entropy,
}


def make_loss(config: LossConfig) -> Loss:
    """The loss a configuration names, or the function it gives."""
    if callable(config.name):
        return cast(Loss, config.name)
    return functools.partial(NAMED[str(config.name)], label_smoothing=config.label_smoothing)
