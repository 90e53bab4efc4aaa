"""The flat head: one linear layer on the pooled features, logits of the leaves."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.models.features import Features
from plankton_jax.models.initialisers import Initialiser, normal
from plankton_jax.models.regularisation import dropout, fold_in_name
from plankton_jax.taxonomy import Taxonomy


class LogitLayer(nnx.Module):
    """A linear layer whose products are in `dtype`, sums and results in float32."""

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        kernel_init: Initialiser | None = None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kernel_init = kernel_init or normal(0.02)
        self.kernel = nnx.Param(kernel_init(rngs.params(), (features, num_classes)))
        self.bias = nnx.Param(jnp.zeros((num_classes,)))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b k"]:
        kernel = self.kernel[...].astype(self.dtype)
        logits = jnp.matmul(x.astype(self.dtype), kernel, preferred_element_type=jnp.float32)
        return logits + self.bias[...].reshape(1, -1)


class LinearHead(nnx.Module):
    """Dropout and a linear layer. It knows no tree: its one level is the leaves.

    A distilled backbone has a second linear layer on its distillation token; the logits are the
    mean of both, in training as in inference (DeiT without a teacher).
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
        del taxonomy
        self.drop_rate = drop_rate
        self.linear = LogitLayer(backbone.feature_dim, num_classes, dtype=dtype, rngs=rngs)
        self.has_distilled = getattr(backbone, "distilled", False)
        if self.has_distilled:
            self.distilled = LogitLayer(backbone.feature_dim, num_classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, features: Features, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[Float[Array, "b k"]]:
        """The leaf logits, alone in a tuple."""
        key = key if train else None
        pooled = dropout(features.pooled, self.drop_rate, fold_in_name(key, "pooled"))
        logits = self.linear(pooled)
        if features.distilled is None or not self.has_distilled:
            return (logits,)
        distilled = dropout(features.distilled, self.drop_rate, fold_in_name(key, "distilled"))
        return ((logits + self.distilled(distilled)) / 2.0,)
