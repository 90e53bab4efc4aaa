"""Measurements beside the image: added to the pooled features before any head."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from plankton_jax.models.initialisers import normal


class MeasurementEmbedding(nnx.Module):
    """A hidden layer that turns measurements into something to add to the pooled features.

    It starts as zero, so a pretrained network starts as it was. In float32: there are few numbers.
    """

    def __init__(self, num_measurements: int, feature_dim: int, *, rngs: nnx.Rngs):
        hidden = 64
        self.hidden = nnx.Linear(
            num_measurements, hidden, kernel_init=normal(num_measurements**-0.5), rngs=rngs
        )
        self.output = nnx.Linear(
            hidden, feature_dim, kernel_init=nnx.initializers.zeros_init(), rngs=rngs
        )

    def __call__(self, measurements: Float[Array, "b m"]) -> Float[Array, "b d"]:
        return self.output(jax.nn.gelu(self.hidden(measurements.astype(jnp.float32))))
