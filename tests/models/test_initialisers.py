"""Initial values follow the distributions they are named after, in and out of a trace."""

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from plankton_jax.models.initialisers import BLOCK, normal, parameter_keys, uniform

KEY = jax.random.key(5)


@pytest.mark.parametrize(
    ("initialise", "distribution"),
    [(normal(0.02), stats.norm(0, 0.02)), (uniform(0.3), stats.uniform(-0.3, 0.6))],
)
def test_values_have_the_distribution(initialise, distribution):
    values = np.asarray(initialise(KEY, (3, BLOCK // 2))).ravel()
    assert stats.kstest(values, distribution.cdf).pvalue > 1e-3
    assert not np.array_equal(values[: BLOCK // 2], values[BLOCK:])  # blocks do not repeat
    traced = jax.jit(lambda key: initialise(key, (3, BLOCK // 2)))(KEY)
    np.testing.assert_allclose(np.asarray(traced).ravel(), values, atol=1e-7)


def test_keys_and_types():
    first, second = (normal(1.0)(jax.random.key(seed), (4, 2), np.float16) for seed in (0, 1))
    assert first.shape == (4, 2) and first.dtype == np.float16
    assert not np.array_equal(first, second)


def test_parameter_keys_are_those_of_flax():
    def draw(key, make):
        rngs = make(key)
        return [jax.random.key_data(key) for key in (rngs.params(), rngs.params(), rngs.params())]

    expected = draw(KEY, lambda key: nnx.Rngs(params=key))
    np.testing.assert_array_equal(draw(KEY, parameter_keys), expected)
    traced = jax.jit(draw, static_argnums=1)(KEY, parameter_keys)
    np.testing.assert_array_equal(traced, expected)
