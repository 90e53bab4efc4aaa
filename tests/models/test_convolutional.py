"""What the convolutional families have in common, on tiny networks of each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden.weights import random_images, random_weights

from plankton_jax.errors import UserError
from plankton_jax.models import (
    apply,
    apply_features,
    create_model,
    efficientnet,
    flatten_paths,
    resnet,
    split_model,
)
from plankton_jax.models.efficientnet import EfficientNetConfig, Stage
from plankton_jax.models.resnet import ResNetConfig
from plankton_jax.weights import from_timm, to_timm

BACKBONES = {
    "resnet": functools.partial(resnet.build, ResNetConfig((2, 1), widths=(8, 16))),
    "resnet_d": functools.partial(
        resnet.build, ResNetConfig((1, 1), True, (4, 4, 8), averages=True, widths=(4, 8))
    ),
    "efficientnet": functools.partial(
        efficientnet.build,
        EfficientNetConfig(
            8,
            (Stage("plain", 2, 8), Stage("fused", 1, 16, 2, 2), Stage("inverted", 1, 16, 2)),
            features=24,
        ),
    ),
}
# Channels of the maps, their strides, and the length of the pooled features.
SHAPES = {
    "resnet": ((64, 8, 16), (2, 4, 8), 16),
    "resnet_d": ((8, 16, 32), (2, 4, 8), 32),
    "efficientnet": ((8, 16), (2, 4), 24),
}
# timm's published results list these, in millions, for 1000 classes.
PUBLISHED = {
    "resnet10t": 5.44,
    "resnet18": 11.69,
    "resnet34": 21.80,
    "resnet50": 25.56,
    "resnet101": 44.55,
    "resnet50d": 25.58,
    "tf_efficientnetv2_b0": 7.14,
    "tf_efficientnetv2_s": 21.46,
    "tf_efficientnetv2_m": 54.14,
    "tf_efficientnetv2_l": 118.52,
    "efficientnetv2_rw_s": 23.94,
}
IMAGES = random_images("tiny convolutional", 6, 16)
families = pytest.mark.parametrize("name", BACKBONES)


@functools.cache
def _network(name, **options):
    """A tiny classifier of random weights: (model, description, parameters, state)."""
    model = create_model(BACKBONES[name], 5, image_size=16, key=jax.random.key(2), **options)
    params, state = from_timm(_weights(model), model)
    return model, split_model(model)[0], params, state


def _weights(model):
    named = to_timm(*split_model(model)[1:], model)
    return random_weights({name: value.shape for name, value in named.items()})


@functools.cache
def _function(name, train=False, **options):
    """f(images, key) -> (leaf logits, state afterwards)."""
    _, graphdef, params, state = _network(name, **options)

    @jax.jit
    def run(images, key):
        (logits,), after = apply(graphdef, params, state, images, train=train, key=key)
        return logits, after

    return run


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    model = nnx.eval_shape(lambda: create_model(name, 1000, key=jax.random.key(0)))
    sizes = [leaf.size for leaf in jax.tree.leaves(split_model(model)[1])]
    assert round(sum(sizes) / 1e6, 2) == PUBLISHED[name]


@families
def test_maps_of_chosen_stages_at_any_size(name):
    model, graphdef, params, state = _network(name, in_channels=1)
    run = functools.partial(apply_features, graphdef, params, state)
    images = np.zeros((2, 20, 13, 1), np.float32)
    dims, strides, pooled = SHAPES[name]
    assert (model.backbone.stage_dims, model.backbone.strides) == (dims, strides)
    assert model.backbone.feature_dim == pooled
    everything = jax.eval_shape(run, images)
    expected = [
        (2, -(-20 // stride), -(-13 // stride), width)
        for width, stride in zip(dims, strides, strict=True)
    ]
    assert [stage.shape for stage in everything.stages] == expected
    assert everything.pooled.shape == (2, pooled)
    chosen = jax.eval_shape(functools.partial(run, indices=(-1, 0)), images)
    assert [stage.shape for stage in chosen.stages] == [expected[-1], expected[0]]
    with pytest.raises(UserError, match=f"{len(dims)} stages"):
        jax.eval_shape(functools.partial(run, indices=(len(dims),)), images)


@families
def test_statistics_move_in_training_only(name):
    state = _network(name)[3]
    same, moved = (
        flatten_paths(_function(name, train)(IMAGES, None)[1]) for train in (False, True)
    )
    before = flatten_paths(state)
    assert before.keys() == same.keys() == moved.keys()
    assert all(np.array_equal(same[path], before[path]) for path in before)
    assert not any(np.array_equal(moved[path], before[path]) for path in before)


@families
def test_drop_path_needs_training_and_a_key(name):
    options = {"drop_path_rate": 0.8}
    run, trained = _function(name, **options), _function(name, True, **options)
    key = jax.random.key(0)
    np.testing.assert_array_equal(run(IMAGES, key)[0], run(IMAGES, None)[0])
    first, second = trained(IMAGES, key)[0], trained(IMAGES, jax.random.key(1))[0]
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(first - trained(IMAGES, None)[0]).max() > 1e-3
    np.testing.assert_array_equal(trained(IMAGES, key)[0], first)


def test_drop_path_rates_grow_over_all_blocks():
    make = functools.partial(create_model, num_classes=5, drop_path_rate=0.4, image_size=16)
    first = make(BACKBONES["resnet"], key=jax.random.key(0)).backbone
    rates = [block.drop_path_rate for block in (*first.layer1, *first.layer2)]
    assert rates == pytest.approx([0.0, 0.2, 0.4])
    # timm's last EfficientNet block is one step short of the rate.
    second = make(BACKBONES["efficientnet"], key=jax.random.key(0)).backbone
    rates = [block.drop_path_rate for stage in second.blocks for block in stage]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


@families
def test_bfloat16_stays_near_float32(name):
    exact = _function(name)(IMAGES, None)[0]
    rough = _function(name, dtype=jnp.bfloat16)(IMAGES, None)[0]
    assert rough.dtype == jnp.float32
    assert 0 < np.abs(exact - rough).max() < 0.03 * np.abs(exact).max()


@families
def test_a_choice_of_pooling_is_refused(name):
    with pytest.raises(UserError, match="config.model.pool"):
        create_model(BACKBONES[name], 5, image_size=16, pool="mean", key=jax.random.key(0))


@families
def test_conversion_is_bit_exact_both_ways(name):
    model, _, params, state = _network(name)
    source = _weights(model)
    counts = {
        key.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
        for key in source
        if key.endswith("running_mean")
    }
    again = from_timm(source | counts, model)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, (params, state)))
    back = to_timm(params, state, model)
    assert back.keys() == source.keys()
    assert all(np.array_equal(back[key], source[key]) for key in source)


@families
def test_weights_for_colour_see_grey_images_as_grey(name):
    grey, graphdef, _, _ = _network(name, in_channels=1)
    params, state = from_timm(_weights(_network(name)[0]), grey)
    images = IMAGES[..., :1]
    found = jax.jit(functools.partial(apply, graphdef))(params, state, images)[0][0]
    expected = _function(name)(images.repeat(3, axis=-1), None)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_initial_values_have_timms_scales():
    """Kernels by He et al. 2015 over outgoing connections; residual branches start as nothing."""
    config = ResNetConfig((1, 1), widths=(64, 128))
    first = functools.partial(resnet.build, config)
    stages = (Stage("fused", 1, 32, 4), Stage("inverted", 1, 32, 4))
    second = functools.partial(efficientnet.build, EfficientNetConfig(32, stages, features=64))
    for build in (first, second):
        made = build(image_size=32, pool=None, rngs=nnx.Rngs(params=1))
        for path, value in flatten_paths(split_model(made)[1]).items():
            if path.endswith("bias"):
                assert not np.any(value), path
            elif path.endswith("scale"):
                ends = build is first and path.startswith("layer") and path.endswith("bn2/scale")
                assert np.all(np.asarray(value) == (0 if ends else 1)), path
            else:
                groups = value.shape[3] if path.endswith("conv_dw/kernel") else 1
                outgoing = value.shape[0] ** 2 * value.shape[3] / groups
                assert np.std(value) == pytest.approx(np.sqrt(2 / outgoing), rel=0.15), path


@pytest.mark.slow
@families
def test_blocks_computed_again_backwards_give_the_same(name):
    results = []
    for again in (False, True):
        _, graphdef, params, state = _network(name, drop_path_rate=0.3, rematerialise=again)

        def loss(params, graphdef=graphdef, state=state):
            key = jax.random.key(1)
            (logits,), moved = apply(graphdef, params, state, IMAGES, train=True, key=key)
            return jnp.mean(jax.nn.logsumexp(logits, axis=-1)), moved

        (_, moved), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        results.append(flatten_paths({"gradients": gradients, "state": moved}))
    plain, again = results
    scale = max(np.abs(value).max() for value in plain.values())
    for path, value in plain.items():
        np.testing.assert_allclose(again[path], value, atol=1e-5 * scale, rtol=0, err_msg=path)
