"""Losses against SciPy's log-softmax, and against PyTorch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from plankton_jax.config import LossConfig
from plankton_jax.errors import UserError
from plankton_jax.losses import auxiliary_cross_entropy, cross_entropy, make_loss


def _inputs(seed: int, batch: int = 5, classes: int = 7):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 5, (batch, classes)).astype(np.float32)
    labels = np.stack([np.zeros(batch), generator.integers(0, classes, batch)], 1).astype(np.int32)
    return logits, labels


@given(st.integers(0, 1000), st.floats(0, 0.9))
def test_cross_entropy_equals_scipy(seed, smoothing):
    logits, labels = _inputs(seed)
    target = np.full(logits.shape, smoothing / logits.shape[1])
    target[np.arange(len(labels)), labels[:, -1]] += 1 - smoothing
    expected = -(target * scipy.special.log_softmax(logits.astype(np.float64), axis=1)).sum(1)
    found = cross_entropy((logits,), labels, label_smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_and_gradient_equal_torch(smoothing):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    logits, labels = _inputs(0)
    ours = jax.grad(
        lambda z: jnp.mean(cross_entropy((z,), jnp.asarray(labels), label_smoothing=smoothing))
    )(jnp.asarray(logits))
    tensor = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        tensor, torch.tensor(labels[:, -1]).long(), label_smoothing=smoothing
    )
    loss.backward()
    value = jnp.mean(cross_entropy((logits,), labels, label_smoothing=smoothing))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(ours, tensor.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_large_logits_stay_finite():
    logits = jnp.asarray([[1e4, -1e4]], jnp.float32)
    assert np.isfinite(cross_entropy((logits,), jnp.asarray([[1]]))).all()


def test_auxiliary_logits_that_are_missing_are_told():
    logits, labels = _inputs(2)
    with pytest.raises(UserError, match='config.loss.name: .*the head "auxiliary"'):
        auxiliary_cross_entropy((logits,), labels)


def test_a_function_of_the_configuration_is_the_loss():
    def mine(level_logits, labels):
        return jnp.sum(level_logits[-1], axis=-1)

    assert make_loss(LossConfig(name=mine)) is mine
    smoothed = make_loss(LossConfig(label_smoothing=0.3))
    logits, labels = _inputs(1)
    np.testing.assert_allclose(
        smoothed((logits,), labels), cross_entropy((logits,), labels, label_smoothing=0.3)
    )
