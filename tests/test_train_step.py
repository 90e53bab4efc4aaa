"""The training step: against the same step written out by hand, and its properties."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plankton_jax import optim
from plankton_jax.config import OptimConfig
from plankton_jax.losses import cross_entropy
from plankton_jax.train_step import (
    TrainState,
    evaluated,
    make_eval_step,
    make_train_step,
    mean_over_views,
    normalise,
)

ANCESTORS = np.array([[0, 0, 1], [0, 1, 2]], np.int32)
MEAN, STD = (0.4,), (0.2,)


def apply(params, model_state, images, measurements, *, train, key):
    """A linear network with a running mean and dropout, to see each of them arrive."""
    assert measurements.shape == (images.shape[0], 0)
    flat = images.reshape(images.shape[0], -1)
    if train:
        model_state = {"mean": 0.9 * model_state["mean"] + 0.1 * jnp.mean(flat)}
        keep = jax.random.bernoulli(key, 0.5, flat.shape)
        flat = jnp.where(keep, flat / 0.5, 0.0)
    bias = jnp.broadcast_to(params["bias"][None], (flat.shape[0], 3))
    return (flat @ params["kernel"] + bias,), model_state


@pytest.fixture
def params():
    generator = np.random.default_rng(0)
    return {
        "kernel": jnp.asarray(generator.normal(0, 0.1, (16, 3)), jnp.float32),
        "bias": jnp.zeros(3, jnp.float32),
    }


@pytest.fixture
def batch():
    generator = np.random.default_rng(1)
    return {
        "image": jnp.asarray(generator.integers(0, 256, (6, 4, 4, 1)), jnp.uint8),
        "measurements": jnp.zeros((6, 0), jnp.float32),
        "leaf": jnp.asarray([0, 1, 2, 0, 1, 2], jnp.int32),
    }


def _state(params, optimizer, ema=False):
    model_state = {"mean": jnp.zeros((), jnp.float32)}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        plateau=optim.plateau_init(OptimConfig()),
        ema={"params": params, "model_state": model_state} if ema else {},
        key=jax.random.key_data(jax.random.key(3)),
    )


def _step(optimizer, moving=None, **options):
    moving = moving or {"kernel": True, "bias": True}
    return make_train_step(
        apply, cross_entropy, optimizer, ANCESTORS, moving, mean=MEAN, std=STD, **options
    )


def test_one_step_equals_the_step_by_hand(params, batch):
    optimizer = optax.sgd(0.5)
    state = _state(params, optimizer)
    found, sums = jax.jit(_step(optimizer))(state, batch)

    images = np.asarray(batch["image"], np.float64).reshape(6, 16)
    flat = (images / 255 - 0.4) / 0.2
    key = jax.random.fold_in(jax.random.key(3), 0)
    flat = np.where(np.asarray(jax.random.bernoulli(key, 0.5, (6, 16))), flat / 0.5, 0.0)
    logits = flat @ np.asarray(params["kernel"], np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    onehot = np.eye(3)[np.asarray(batch["leaf"])]
    gradient = flat.T @ (probabilities - onehot) / 6
    np.testing.assert_allclose(
        found.params["kernel"], params["kernel"] - 0.5 * gradient, rtol=1e-4, atol=1e-6
    )
    expected = -np.log(probabilities[onehot == 1]).sum()
    assert float(sums["loss"]) == pytest.approx(expected, rel=1e-5)
    assert int(sums["count"]) == 6 and int(found.step) == 1
    assert int(sums["correct"]) == (logits.argmax(1) == np.asarray(batch["leaf"])).sum()


def test_what_is_told_as_correct_is_what_the_head_s_decoder_predicts(batch):
    """The likeliest leaf of all is one of the other side."""

    def two_levels(params, model_state, images, measurements, *, train, key):
        sides = jnp.asarray([[1.0, 0.0]] * 6)
        leaves = jnp.asarray([[0.0, 1.0, 5.0]] * 6) + params[None]
        return (sides, leaves), model_state

    optimizer = optax.sgd(0.1)
    state = dataclasses.replace(_state(jnp.zeros(3), optimizer), model_state={})
    for decoder, right in (("argmax", 2), ("routed", 2), ("leaf", 2)):
        labels = {"routed": 1}.get(decoder, 2)
        step = make_train_step(
            two_levels, cross_entropy, optimizer, ANCESTORS, True, mean=MEAN, std=STD,
            decoder=decoder,
        )  # fmt: skip
        _, sums = jax.jit(step)(state, batch)
        assert int(sums["correct"]) == (np.asarray(batch["leaf"]) == labels).sum() == right


def test_model_state_moves_and_average_follows(params, batch):
    optimizer = optax.sgd(0.1)
    step = jax.jit(_step(optimizer, ema_decay=0.99))
    state = _state(params, optimizer, ema=True)
    expected = np.asarray(params["kernel"])
    for number in range(3):
        state, _ = step(state, batch)
        decay = min(0.99, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["kernel"])
    np.testing.assert_allclose(state.ema["params"]["kernel"], expected, rtol=1e-5)
    assert float(state.model_state["mean"]) != 0
    assert evaluated(state)[0] is state.ema["params"]


def test_dropout_differs_between_steps_and_repeats_for_a_step(params, batch):
    optimizer = optax.sgd(0.0)
    step = jax.jit(_step(optimizer))
    state = _state(params, optimizer)
    after, first = step(state, batch)
    _, again = step(state, batch)
    _, second = step(after, batch)
    assert float(first["loss"]) == float(again["loss"]) != float(second["loss"])


def test_frozen_parameters_get_no_gradient(params, batch):
    optimizer = optax.sgd(0.1)
    step = _step(optimizer, moving={"kernel": False, "bias": True})
    found, _ = jax.jit(step)(_state(params, optimizer), batch)
    np.testing.assert_array_equal(found.params["kernel"], params["kernel"])
    assert np.any(np.asarray(found.params["bias"]))


def test_a_plateau_scales_the_update(params, batch):
    optimizer = optax.sgd(0.1)
    state = _state(params, optimizer)
    step = jax.jit(_step(optimizer))
    full, _ = step(state, batch)
    cut = dataclasses.replace(state, plateau=state.plateau._replace(scale=jnp.float32(0.25)))
    quarter, _ = step(cut, batch)
    move = lambda after: np.asarray(after.params["bias"])  # noqa: E731
    np.testing.assert_allclose(move(quarter), 0.25 * move(full), rtol=1e-5)


def test_one_compilation_for_a_shape(params, batch):
    optimizer = optax.adam(0.1)
    step = jax.jit(_step(optimizer, ema_decay=0.9))
    state = _state(params, optimizer, ema=True)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes ints and floats
        for _ in range(3):
            state, _ = step(state, batch)
    assert step._cache_size() == 1


def test_two_devices_give_what_one_gives(params, batch):
    if jax.device_count() < 2:
        pytest.skip("needs two (virtual) devices")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    optimizer = optax.sgd(0.5)
    step = _step(optimizer)
    state = _state(params, optimizer)
    one, one_sums = jax.jit(step)(state, batch)
    two, two_sums = jax.jit(step, in_shardings=(whole, split))(state, batch)
    np.testing.assert_allclose(one.params["kernel"], two.params["kernel"], rtol=1e-5, atol=1e-7)
    assert float(one_sums["loss"]) == pytest.approx(float(two_sums["loss"]), rel=1e-6)
    assert int(one_sums["correct"]) == int(two_sums["correct"])


def test_evaluation_leaves_padding_out_and_reads_all_levels(params, batch):
    step = jax.jit(make_eval_step(apply, ANCESTORS, mean=MEAN, std=STD))
    state = {"mean": jnp.zeros((), jnp.float32)}
    mask = jnp.asarray([True] * 4 + [False] * 2)
    logits, sums = step(params, state, batch | {"mask": mask})
    assert [level.shape for level in logits] == [(6, 2), (6, 3)]
    fine, coarse = np.asarray(logits[1], np.float64), np.asarray(logits[0], np.float64)
    np.testing.assert_allclose(
        np.exp(coarse[:, 0]) / np.exp(coarse).sum(1),
        np.exp(fine[:, :2]).sum(1) / np.exp(fine).sum(1),
        rtol=1e-4,
    )
    totals = [int(np.sum(level)) for level in jax.tree.leaves(sums["confusion"])]
    assert totals == [4, 4]


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_views_are_averaged_in_probability(views):
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.normal(size=(3, 4, 4, 1)), jnp.float32)
    kernel = jnp.asarray(generator.normal(size=(16, 5)), jnp.float32)

    def run(view):
        logits = view.reshape(3, 16) @ kernel
        return (logits[:, :2], logits), view.reshape(3, 16)

    turns = [lambda x, k=k: np.rot90(x, k, (1, 2)) for k in (0, 2, 1, 3)]
    symmetries = [f for turn in turns for f in (turn, lambda x, t=turn: t(x)[:, ::-1])][:views]
    outputs = [
        np.asarray(f(np.asarray(images))).reshape(3, 16) @ np.asarray(kernel) for f in symmetries
    ]
    (coarse, fine), pooled = mean_over_views(run, images, views)
    for found, level in ((coarse, [z[:, :2] for z in outputs]), (fine, outputs)):
        expected = np.mean([np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in level], axis=0)
        probabilities = np.asarray(jax.nn.softmax(found))
        np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
        if views > 1:
            np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)
    # A group of symmetries: an image that is one of the views of another gives the same.
    for symmetry in symmetries:
        turned = jnp.asarray(np.ascontiguousarray(symmetry(np.asarray(images))))
        if views > 1:
            np.testing.assert_allclose(mean_over_views(run, turned, views)[0][1], fine, rtol=1e-4)
    assert pooled.shape == (3, 16)


def test_normalise_repeats_grey_over_channels():
    images = jnp.asarray([[[[0], [255]]]], jnp.uint8)
    found = normalise(images, (0.5, 0.25, 0.0), (0.5, 0.5, 1.0))
    np.testing.assert_allclose(found[0, 0], [[-1.0, -0.5, 0.0], [1.0, 1.5, 1.0]])
