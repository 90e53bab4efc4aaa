"""Mixup and CutMix: the weights against a plain loop, the step against losses of soft labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from plankton_jax import mixing, optim
from plankton_jax.config import OptimConfig
from plankton_jax.losses import cross_entropy
from plankton_jax.train_step import TrainState, make_train_step

SHAPE = (4000, 12, 16)


def weights(mixup, cutmix, shape=SHAPE, seed=0):
    pixels, label = mixing.draw_weights(jax.random.key(seed), shape, mixup, cutmix)
    assert pixels.shape == (*shape, 1) and label.shape == shape[:1]
    return np.asarray(pixels)[..., 0], np.asarray(label)


def test_mixup_draws_one_weight_an_example_from_beta():
    pixels, label = weights(0.3, 0.0)
    np.testing.assert_array_equal(pixels, np.broadcast_to(label[:, None, None], SHAPE))
    assert stats.kstest(label, stats.beta(0.3, 0.3).cdf).pvalue > 1e-3


def test_cutmix_keeps_all_but_a_rectangle():
    pixels, label = weights(0.0, 1.0)
    assert set(np.unique(pixels)) <= {0.0, 1.0}
    np.testing.assert_allclose(label, pixels.mean(axis=(1, 2)), rtol=1e-6)
    for kept in pixels[:200]:
        cut = kept == 0
        rows, columns = np.flatnonzero(cut.any(1)), np.flatnonzero(cut.any(0))
        if len(rows):
            assert cut[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_rectangles_are_the_paper_s():
    """Against the loop of the paper's text: half sides from the share, cut off at the edges."""
    key, share = jax.random.key(3), jnp.linspace(0, 1, 50)
    found = np.asarray(mixing.rectangles(key, share, 20, 30))
    centres = np.asarray(jax.random.uniform(key, (50, 2)), np.float64) * (20, 30)
    for cut, (row, column), kept in zip(found, centres, np.asarray(share), strict=True):
        half = np.sqrt(1 - kept) * np.array([20, 30]) / 2
        expected = np.zeros((20, 30), bool)
        for i in range(20):
            for j in range(30):
                expected[i, j] = abs(i + 0.5 - row) < half[0] and abs(j + 0.5 - column) < half[1]
        assert (cut != expected).sum() <= 1  # a pixel's middle on an edge, in float32
    assert not found[-1].any()


def test_with_both_a_fair_coin_chooses():
    pixels, label = weights(0.5, 0.5)
    blended = np.ptp(pixels, axis=(1, 2)) == 0
    blended &= (label > 0) & (label < 1)
    assert abs(blended.mean() - 0.5) < 0.04


def test_weights_are_a_function_of_the_key():
    np.testing.assert_array_equal(weights(0.3, 0.4)[1], weights(0.3, 0.4)[1])
    assert (weights(0.3, 0.4)[1] != weights(0.3, 0.4, seed=1)[1]).any()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.2, 0.6)])
def test_the_step_has_the_loss_of_the_mixed_labels(mixup, cutmix):
    """Cross-entropy is linear in the target, so it equals that of the soft label."""
    seen = {}

    def apply(params, model_state, images, measurements, *, train, key):
        seen["images"], seen["measurements"] = images, measurements
        flat = images.reshape(images.shape[0], -1)
        return (flat @ params["kernel"],), model_state

    random = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(random.integers(0, 256, (6, 8, 8, 1)), jnp.uint8),
        "measurements": jnp.asarray(random.normal(size=(6, 2)), jnp.float32),
        "leaf": jnp.asarray([0, 1, 2, 0, 1, 2], jnp.int32),
    }
    params = {"kernel": jnp.asarray(random.normal(0, 0.1, (64, 3)), jnp.float32)}
    optimizer = optax.sgd(0.1)
    step = make_train_step(
        apply, cross_entropy, optimizer, np.array([[0, 1, 2]], np.int32), {"kernel": True},
        mean=(0.0,), std=(1 / 255,), mixup=mixup, cutmix=cutmix,
    )  # fmt: skip
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state={},
        opt_state=optimizer.init(params),
        plateau=optim.plateau_init(OptimConfig()),
        ema={},
        key=jax.random.key_data(jax.random.key(1)),
    )
    with jax.disable_jit():
        _, sums = step(state, batch)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 0), 2**32 - 1)
    pixels, label = mixing.draw_weights(key, (6, 8, 8), mixup, cutmix)
    images = np.asarray(batch["image"], np.float64)
    mixed = pixels * images + (1 - np.asarray(pixels)) * np.roll(images, 1, axis=0)
    np.testing.assert_allclose(np.asarray(seen["images"]), mixed, rtol=1e-5, atol=1e-3)
    share = np.asarray(label)[:, None]
    measured = np.asarray(batch["measurements"])
    np.testing.assert_allclose(
        np.asarray(seen["measurements"]),
        share * measured + (1 - share) * np.roll(measured, 1, axis=0),
        rtol=1e-5,
        atol=1e-6,
    )
    onehot = np.eye(3)[np.asarray(batch["leaf"])]
    soft = share * onehot + (1 - share) * np.roll(onehot, 1, axis=0)
    logits = np.asarray(mixed).reshape(6, -1) @ np.asarray(params["kernel"], np.float64)
    expected = -(soft * jax.nn.log_softmax(logits)).sum()
    assert float(sums["loss"]) == pytest.approx(float(expected), rel=1e-4)
