"""Small residual networks: shapes, learning, what changes in training and what does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from plankton_jax.errors import UserError
from plankton_jax.models import create_model, list_models
from plankton_jax.models.convnet import CONFIGS, Convnet, ConvnetConfig
from plankton_jax.models.symmetry import over_symmetries

SMALL = ConvnetConfig(stem_width=8, widths=(8, 16), depths=(1, 1))


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def network(**options) -> Convnet:
    return Convnet(SMALL, rngs=nnx.Rngs(0), **options)


def run(module: Convnet, batch: jax.Array, *, train: bool = False, key=None, indices=None):
    """Features and the statistics afterwards, compiled as one function."""
    graph, state = nnx.split(module)
    return call(graph, train, indices, state, batch, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def call(graph, train, indices, state, batch, key):
    copy = nnx.merge(graph, state, copy=True)
    features = copy(batch, train=train, key=key, indices=indices)
    return features, nnx.state(copy, nnx.BatchStat)


def test_the_networks_are_registered():
    assert set(CONFIGS) <= set(list_models())


@pytest.mark.parametrize("name", CONFIGS)
def test_named_networks_give_one_logit_for_each_class(name):
    size, config = CONFIGS[name]

    def logits_of(batch):
        return create_model(name, 7, in_channels=1, key=jax.random.key(0))(batch)

    logits = jax.eval_shape(logits_of, jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32))
    assert [level.shape for level in jax.tree.leaves(logits)] == [(2, 7)]
    assert len(config.widths) == len(config.depths)


def test_a_choice_of_pooling_is_refused():
    with pytest.raises(UserError, match="config.model.pool"):
        create_model("plankton_cnn_tiny", 7, pool="token", key=jax.random.key(0))


@pytest.mark.parametrize(("side", "maps", "channels"), [(32, (8, 4), 1), (38, (10, 5), 3)])
def test_maps_halve_at_every_stage(side, maps, channels):
    module = network(in_channels=channels)
    features, _ = run(module, images(2, side, side, channels))
    assert [stage.shape[1:] for stage in features.stages] == [
        (length, length, width) for length, width in zip(maps, module.stage_dims, strict=True)
    ]
    assert module.strides == (4, 8)
    assert features.pooled.shape == (2, module.feature_dim)
    last = over_symmetries(np.asarray(features.stages[-1]))
    mean, peak = last.mean((1, 2)), last.max((1, 2))
    expected = np.concatenate([mean.mean(1), peak.mean(1), mean.max(1), peak.max(1)], axis=-1)
    np.testing.assert_allclose(features.pooled, expected, rtol=1e-5)


def test_stages_are_chosen_by_index():
    features, _ = run(network(), images(1, 16, 16, 1), indices=(-1,))
    assert [stage.shape for stage in features.stages] == [(1, 2, 2, 16)]
    with pytest.raises(UserError, match="2 stages"):
        run(network(), images(1, 16, 16, 1), indices=(5,))


def test_running_statistics_change_in_training_only():
    module = network()
    before = jax.tree.leaves(nnx.state(module, nnx.BatchStat))
    for train in (False, True):
        _, after = run(module, images(4, 16, 16, 1), train=train)
        changed = [
            not np.array_equal(*pair) for pair in zip(before, jax.tree.leaves(after), strict=True)
        ]
        assert all(changed) if train else not any(changed)


def test_drop_path_is_a_function_of_the_key_and_absent_without_one():
    module = network(drop_path_rate=0.9)
    for stage in module.stages:
        for block in stage:  # The branches start at zero and would not be missed.
            block.second.norm.scale[...] = jnp.ones_like(block.second.norm.scale[...])

    def pooled(key, train=True):
        return np.asarray(run(module, images(8, 16, 16, 1), train=train, key=key)[0].pooled)

    first, again, other = (pooled(jax.random.key(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(pooled(None, train=False), pooled(jax.random.key(0), train=False))


def test_bfloat16_gives_nearly_the_same_features():
    exact = run(network(), images(2, 16, 16, 1))[0].pooled
    rounded = run(network(dtype=jnp.bfloat16), images(2, 16, 16, 1))[0].pooled
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, atol=0.05, rtol=0.05)


def test_it_learns_to_tell_stripes_from_a_grid():
    """Waves of random phase along one axis or along both, in noise: a linear model cannot."""
    module = Convnet(ConvnetConfig(stem_width=8, widths=(16,), depths=(1,)), rngs=nnx.Rngs(0))
    graph, params, state = nnx.split(module, nnx.Param, nnx.BatchStat)
    params = {"backbone": params, "head": jnp.zeros((module.feature_dim, 2))}
    optimiser = optax.sgd(0.05, momentum=0.9)

    def draw(key):
        phase_key, noise_key = jax.random.split(key)
        phase = jax.random.uniform(phase_key, (32, 1, 1), maxval=2 * jnp.pi)
        wave = jnp.sin(jnp.arange(16.0).reshape(1, 16, 1) + phase)
        lines = jnp.broadcast_to(wave, (32, 16, 16))
        labels = jnp.arange(32) % 2
        grid = (lines + lines.swapaxes(1, 2)) / jnp.sqrt(2.0)
        waves = jnp.where(labels[:, None, None] == 1, lines, grid)
        noise = 0.3 * jax.random.normal(noise_key, waves.shape)
        return (waves + noise)[..., None], labels

    @jax.jit
    def step(params, state, opt_state, key):
        batch, labels = draw(key)

        def loss_fn(params):
            backbone = nnx.merge(graph, params["backbone"], state, copy=True)
            logits = backbone(batch, train=True).pooled @ params["head"]
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, nnx.state(backbone, nnx.BatchStat)

        (loss, new_state), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimiser.update(gradient, opt_state)
        return optax.apply_updates(params, updates), new_state, opt_state, loss

    opt_state = optimiser.init(params)
    for number in range(40):
        params, state, opt_state, _ = step(params, state, opt_state, jax.random.key(number))
    batch, labels = draw(jax.random.key(1000))
    trained = nnx.merge(graph, params["backbone"], state)
    pooled = run(trained, batch)[0].pooled
    assert np.mean(np.argmax(pooled @ params["head"], axis=-1) == labels) > 0.95
