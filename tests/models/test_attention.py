"""Attention with its own gradient, against the same written in NumPy and differentiated by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plankton_jax.models.attention import attend

LEADING = (2, 3, 4)
BIASES = [None, (1, 1, 1, 7, 7), (1, 3, 4, 7, 7), (1, 1, 4, 7, 7), (4, 7, 7), (2, 3, 4, 7, 7)]


def plainly(qkv, bias):
    query, key, value = qkv
    scores = jnp.einsum("...nk,...mk->...nm", query, key) / 8**0.5
    weights = jax.nn.softmax(scores if bias is None else scores + bias, axis=-1)
    return jnp.einsum("...nm,...mk->...nk", weights, value)


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    return draw(3, *LEADING, 7, 8), draw(*LEADING, 7, 8), draw


@pytest.mark.parametrize("shape", BIASES)
def test_values_and_gradients_are_those_of_the_plain_form(arrays, shape):
    qkv, weight, draw = arrays
    bias = None if shape is None else draw(*shape)
    with jax.numpy_rank_promotion("allow"):
        found = attend(qkv, bias)
        np.testing.assert_allclose(found, plainly(qkv, bias), rtol=1e-5, atol=1e-6)
        ours = jax.grad(lambda *given: jnp.sum(attend(*given) * weight), (0, 1))(qkv, bias)
        theirs = jax.grad(lambda *given: jnp.sum(plainly(*given) * weight), (0, 1))(qkv, bias)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    if bias is not None:
        assert ours[1].shape == bias.shape
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-5)


def test_against_numpy_in_float64(arrays):
    qkv = np.asarray(arrays[0], np.float64)
    scores = qkv[0] @ np.swapaxes(qkv[1], -1, -2) / 8**0.5
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(attend(arrays[0]), weights @ qkv[2], rtol=1e-5, atol=1e-6)


def test_bfloat16_keeps_its_type_and_softmax_in_float32(arrays):
    qkv, weight, _ = arrays
    narrow = qkv.astype(jnp.bfloat16)
    found = attend(narrow)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), attend(qkv), atol=0.05)
    ours = jax.grad(lambda x: jnp.sum(attend(x).astype(jnp.float32) * weight))(narrow)
    theirs = jax.grad(lambda x: jnp.sum(attend(x) * weight))(qkv)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(jnp.float32), theirs, atol=0.15)
