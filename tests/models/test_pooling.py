"""Pooling against XLA's windowed reductions and against values worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from plankton_jax.models.pooling import average_pool, max_pool


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def reduce_window(x, start, combine, size, stride, padding):
    """XLA's windowed reduction over rows and columns."""
    pads = "SAME" if padding == "same" else ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0))
    return lax.reduce_window(x, start, combine, (1, size, size, 1), (1, stride, stride, 1), pads)


def reference_max(x, size, stride, padding):
    return reduce_window(x, -jnp.inf, lax.max, size, stride, padding)


def reference_average(x, size, stride, padding, *, count_include_pad):
    sums = reduce_window(x, 0.0, lax.add, size, stride, padding)
    if count_include_pad:
        return sums / size**2
    return sums / reduce_window(jnp.ones_like(x), 0.0, lax.add, size, stride, padding)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(function, x, cotangent):
    value, pull = jax.vjp(function, x)
    return value, *pull(cotangent)


def assert_same(ours, theirs, x):
    shape = jax.eval_shape(theirs, x).shape
    cotangent = normal(3, *shape)
    found, expected = (value_and_gradient(f, x, cotangent) for f in (ours, theirs))
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


WINDOWS = {
    "height": st.integers(3, 9),
    "width": st.integers(3, 9),
    "size": st.sampled_from([1, 2, 3]),
    "stride": st.sampled_from([1, 2, 3]),
    "padding": st.sampled_from([0, 1, "same"]),
}


@settings(max_examples=12)
@given(**WINDOWS)
def test_maxima_and_their_gradients_equal_xla(height, width, size, stride, padding):
    padding = min(padding, size // 2) if padding != "same" else padding
    options = {"size": size, "stride": stride, "padding": padding}
    assert_same(
        functools.partial(max_pool, **options),
        functools.partial(reference_max, **options),
        normal(0, 2, height, width, 3),
    )


@settings(max_examples=12)
@given(**WINDOWS, counted=st.booleans())
def test_means_and_their_gradients_equal_xla(height, width, size, stride, padding, counted):
    padding = min(padding, size // 2) if padding != "same" else padding
    options = {"size": size, "stride": stride, "padding": padding, "count_include_pad": counted}
    assert_same(
        functools.partial(average_pool, **options),
        functools.partial(reference_average, **options),
        normal(0, 2, height, width, 3),
    )


def test_the_gradient_goes_to_the_first_of_equal_values():
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x, 2, 2)))(jnp.ones((1, 4, 4, 1)))
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(gradient[0, ..., 0], expected)


def test_padding_never_wins_and_nan_always_does():
    assert float(jnp.max(max_pool(jnp.full((1, 3, 3, 1), -5.0), 3, 2, 1))) == -5.0
    for row, column in np.ndindex(2, 2):
        x = jnp.ones((1, 2, 2, 1)).at[0, row, column, 0].set(jnp.nan)
        assert jnp.isnan(max_pool(x, 2, 2))[0, 0, 0, 0]


def test_same_padding_of_an_odd_map_is_torchs_ceil_mode():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    means = average_pool(x, 2, 2, "same", count_include_pad=False)
    np.testing.assert_allclose(means[0, ..., 0], [[2.0, 3.5], [6.5, 8.0]])
    np.testing.assert_allclose(max_pool(x, 2, 2, "same")[0, ..., 0], [[4.0, 5.0], [7.0, 8.0]])


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_the_dtype_stays(pool):
    assert pool(jnp.ones((1, 4, 4, 1), jnp.bfloat16), 3, 2, 1).dtype == jnp.bfloat16
