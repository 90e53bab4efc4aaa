"""A head that cannot contradict its tree: one softmax of the leaves, every level read off it."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from plankton_jax.heads.hierarchical import require_levels
from plankton_jax.heads.linear import LinearHead
from plankton_jax.metrics import marginal_logits
from plankton_jax.models.features import Features
from plankton_jax.taxonomy import Taxonomy


class CoherentHead(LinearHead):
    """A linear head whose coarser levels are sums of leaf probabilities, in training too.

    So a loss of all levels trains one set of leaf logits, and a node is never less probable than
    the nodes below it together.
    """

    def __init__(
        self, backbone: Any, num_classes: int, *, taxonomy: Taxonomy | None = None, **options: Any
    ):
        tree = require_levels(taxonomy, "coherent", num_classes)
        super().__init__(backbone, num_classes, taxonomy=tree, **options)
        self.ancestors = tuple(map(tuple, tree.ancestors.tolist()))

    def __call__(
        self, features: Features, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[Float[Array, "b k"], ...]:
        """Logits of every level, coarse to fine."""
        (leaves,) = super().__call__(features, train=train, key=key)
        return marginal_logits(leaves, np.array(self.ancestors, np.int32))
