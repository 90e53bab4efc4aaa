"""What XLA's fusion on a CPU is kept from: computing a value again for each of its readers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def computed_once(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The same array, which a CPU computes once and keeps; so its cotangent, for the block before.

    For the sum that runs beside residual branches, after each block. XLA fuses additions into every
    reader. Backwards, block n of a network would then add up the cotangents of all blocks behind it
    again, from hundreds of arrays: work and compile time that grow with the square of the depth. A
    conditional is not fused, and no compiler sees that this one always goes the same way;
    `jax.lax.optimization_barrier` is gone on a CPU before fusion begins. Other devices bound the
    size of their fusions and get nothing here.
    """
    return jax.lax.platform_dependent(x, cpu=_conditionally, default=lambda x: x)


def _conditionally(x: Array) -> Array:
    return jax.lax.cond(never_by(x), jnp.zeros_like, lambda x: x, x)


def never_by(x: Float[Array, "..."]) -> Bool[Array, ""]:
    """False, in a way that needs `x` first and that no compiler sees through."""
    first = x.ravel()[0]
    return jnp.isnan(first) & (first == first)
