"""The flat head of a network with an auxiliary classifier (Szegedy et al. 2016, section 4)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.errors import UserError
from plankton_jax.heads.linear import LinearHead, LogitLayer
from plankton_jax.models.features import Features
from plankton_jax.taxonomy import Taxonomy


class AuxiliaryHead(LinearHead):
    """A linear head, and in training a second one on the auxiliary features.

    The loss "auxiliary_cross_entropy" trains both; in inference there are the leaves alone.
    """

    def __init__(
        self,
        backbone: Any,
        num_classes: int,
        *,
        taxonomy: Taxonomy | None = None,
        drop_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {"taxonomy": taxonomy, "drop_rate": drop_rate, "dtype": dtype, "rngs": rngs}
        super().__init__(backbone, num_classes, **options)
        features = getattr(backbone, "auxiliary_dim", 0)
        if not features:
            raise UserError(
                'config.model.head: found "auxiliary"; the backbone has no auxiliary classifier; '
                'allowed: plankton_jax.models.inception_v3.with_auxiliary, or the head "linear".'
            )
        self.auxiliary = LogitLayer(features, num_classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, features: Features, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[Float[Array, "b k"], ...]:
        """The leaf logits; in training the auxiliary classifier's before them."""
        logits = super().__call__(features, train=train, key=key)
        if not train or features.auxiliary is None:
            return logits
        return (self.auxiliary(features.auxiliary), *logits)
