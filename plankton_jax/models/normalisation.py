"""Layer normalisation whose statistics are float32 whatever the network computes in."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class LayerNorm(nnx.LayerNorm):
    """Ba et al. 2016, computed in float32 with the result in `dtype`.

    The variance is the mean of squared deviations: Flax's fast E[x^2] - E[x]^2 loses digits.
    """

    def __init__(
        self, features: int, *, epsilon: float, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        super().__init__(features, epsilon=epsilon, use_fast_variance=False, rngs=rngs)
        self.result_dtype = dtype

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return super().__call__(x.astype(jnp.float32)).astype(self.result_dtype)
