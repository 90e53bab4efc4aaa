"""Scaled dot-product attention with the gradient written out. Pure functions of arrays.

Left to itself, XLA on a CPU moves the transpositions around the products into layouts that its
matrix kernels do not take; forwards and backwards, attention took twice as long.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def attend(
    qkv: Float[Array, "3 *b n k"], bias: Float[Array, "*#b n n"] | None = None
) -> Float[Array, "*b n k"]:
    """Attention of `n` tokens over each other (Vaswani et al. 2017), softmax in float32.

    Args:
      qkv: queries, keys and values, for each image, window and head.
      bias: added to the scores.
    """
    return _forwards(qkv, bias)[0]


def _forwards(qkv: Array, bias: Array | None) -> tuple[Array, Any]:
    query, key, value = qkv
    scores = jnp.matmul(
        query * _scale(qkv), jnp.swapaxes(key, -1, -2), preferred_element_type=jnp.float32
    )
    weights = jax.nn.softmax(scores if bias is None else scores + bias, axis=-1)
    return jnp.matmul(weights.astype(value.dtype), value), (qkv, bias, weights)


def _backwards(kept: Any, gradient: Float[Array, "*b n k"]) -> tuple[Array, Array | None]:
    qkv, bias, weights = kept
    query, key, value = qkv
    dtype = qkv.dtype
    of_value = jnp.matmul(jnp.swapaxes(weights.astype(dtype), -1, -2), gradient)
    of_weights = jnp.matmul(
        gradient, jnp.swapaxes(value, -1, -2), preferred_element_type=jnp.float32
    )
    mean = jnp.sum(of_weights * weights, axis=-1, keepdims=True)
    of_scores = weights * (of_weights - mean)
    narrow, scale = of_scores.astype(dtype), _scale(qkv)
    of_query = jnp.matmul(narrow, key) * scale
    of_key = jnp.matmul(jnp.swapaxes(narrow, -1, -2), query * scale)
    of_bias = None if bias is None else _summed_to(of_scores, bias)
    return jnp.stack((of_query, of_key, of_value)), of_bias


attend.defvjp(_forwards, _backwards)


def _scale(qkv: Array) -> float:
    return qkv.shape[-1] ** -0.5


def _summed_to(values: Array, like: Array) -> Array:
    """The sum over the axes along which `like` was repeated."""
    ahead = values.ndim - like.ndim
    repeated = [axis for axis, size in enumerate(like.shape, ahead) if size == 1]
    repeated = [axis for axis in repeated if values.shape[axis] != 1]
    total = jnp.sum(values, axis=(*range(ahead), *repeated), keepdims=True)
    return total.reshape(like.shape).astype(like.dtype)
