"""The vision transformers against timm's stored numbers, published sizes and known properties."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from golden.variants import BATCH, VIT_VARIANTS
from golden.weights import checksums, random_images, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from plankton_jax.errors import UserError
from plankton_jax.models import apply, apply_features, create_model, flatten_paths, split_model
from plankton_jax.models.regularisation import drop_path, drop_path_rates, dropout, fold_in_name
from plankton_jax.models.vit import VitConfig, build
from plankton_jax.weights import from_timm, to_timm

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "vit.npz"
CONFIG = VitConfig(width=24, heads=2, depth=2, patch_size=4)
TINY = functools.partial(build, CONFIG)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@functools.cache
def _results(name):
    """A variant with the weights that timm had: features, logits, loss, gradients by timm's names.

    In training mode without a key, which is without randomness.
    """
    variant = VIT_VARIANTS[name]
    original = variant.model(variant.weights_size)
    named = to_timm(*split_model(original)[1:], original)
    model = variant.model()
    graphdef = split_model(model)[0]
    params, state = from_timm(random_weights({k: v.shape for k, v in named.items()}), model)
    images = random_images(name, BATCH, variant.image_size, variant.in_channels)
    labels = np.arange(BATCH) % variant.num_classes

    def objective(params):
        (logits,), _ = apply(graphdef, params, state, images, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), (logits, apply_features(graphdef, params, state, images))

    # Compiled with little optimisation, which takes a third of the time.
    quick = {"xla_backend_optimization_level": 0}
    step = jax.jit(jax.value_and_grad(objective, has_aux=True), compiler_options=quick)
    (loss, (logits, features)), gradients = step(params)
    return features, logits, loss, to_timm(gradients, {}, model)


@pytest.mark.parametrize("name", VIT_VARIANTS)
def test_features_and_logits_equal_timms(name, golden):
    features, logits, loss, _ = _results(name)
    pooled = features.pooled
    if features.distilled is not None:
        pooled = (pooled + features.distilled) / 2.0
    np.testing.assert_allclose(np.stack(features.stages), golden[f"{name}/blocks"], atol=1e-5)
    np.testing.assert_allclose(features.tokens, golden[f"{name}/tokens"], atol=1e-5)
    np.testing.assert_allclose(pooled, golden[f"{name}/pooled"], atol=1e-5)
    np.testing.assert_allclose(logits, golden[f"{name}/logits"], atol=1e-4)
    np.testing.assert_allclose(loss, golden[f"{name}/loss"], atol=1e-5)


@pytest.mark.parametrize("name", VIT_VARIANTS)
def test_gradients_equal_timms(name, golden):
    sums = checksums(_results(name)[3])
    assert sorted(sums) == list(golden[f"{name}/gradient_names"])
    for key, expected in zip(sorted(sums), golden[f"{name}/gradient_checksums"], strict=True):
        bound = 1e-4 * expected[0]
        np.testing.assert_allclose(sums[key], expected, rtol=0, atol=bound, err_msg=key)


# timm's published results list these, in millions, for 1000 classes.
PUBLISHED = {
    "vit_tiny_patch16_224": 5.72,
    "vit_tiny_patch16_384": 5.79,
    "vit_small_patch16_224": 22.05,
    "vit_small_patch16_384": 22.20,
    "vit_small_patch32_224": 22.88,
    "vit_base_patch16_224": 86.57,
    "vit_base_patch16_384": 86.86,
    "vit_base_patch32_224": 88.22,
    "vit_large_patch16_224": 304.33,
    "vit_large_patch16_384": 304.72,
    "deit_tiny_patch16_224": 5.72,
    "deit_small_patch16_224": 22.05,
    "deit_base_patch16_224": 86.57,
    "deit_tiny_distilled_patch16_224": 5.91,
    "deit_small_distilled_patch16_224": 22.44,
    "deit_base_distilled_patch16_224": 87.34,
    "deit3_small_patch16_224": 22.06,
    "deit3_base_patch16_224": 86.59,
    "deit3_large_patch16_224": 304.37,
    "test_vit": 0.37,
}
# Published without a head.
PUBLISHED_BACKBONES = {
    "vit_small_patch14_dinov2": 22.06,
    "vit_base_patch14_dinov2": 86.58,
    "vit_large_patch14_dinov2": 304.37,
}


def _millions(name, part=None):
    """Parameters of the classifier for 1000 classes, or of a part of it."""
    model = nnx.eval_shape(lambda: create_model(name, 1000, key=jax.random.key(0)))
    params = split_model(model)[1]
    leaves = jax.tree.leaves(params[part] if part else params)
    return round(sum(leaf.size for leaf in leaves) / 1e6, 2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    assert _millions(name) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED_BACKBONES)
def test_parameter_count_without_head_is_the_published_one(name):
    assert _millions(name, "backbone") == PUBLISHED_BACKBONES[name]


def test_initial_values_have_timms_scales():
    model = create_model(TINY, 5, image_size=64, key=jax.random.key(1))
    flat = flatten_paths(split_model(model)[1])
    for path, value in flat.items():
        if path.endswith("bias") and "patch_embed" not in path:
            assert not np.any(value), path
        elif path.endswith("scale"):
            assert np.all(np.asarray(value) == 1), path
        elif path.endswith(("qkv/kernel", "fc1/kernel", "fc2/kernel", "pos_embed")):
            assert np.std(value) == pytest.approx(0.02, rel=0.1), path
    assert np.abs(flat["backbone/patch_embed/kernel"]).max() <= 1 / np.sqrt(4 * 4 * 3)
    assert np.abs(flat["backbone/cls_token"]).max() < 1e-5


def test_layer_scale_starts_small_and_prefix_tokens_may_go_without_position():
    config = dataclasses.replace(CONFIG, layer_scale=1e-5, embed_prefix=False)
    model = functools.partial(build, config)(
        image_size=16, pool=None, in_channels=3, rngs=nnx.Rngs(params=0)
    )
    assert model.pos_embed.shape == (1, 16, 24)
    np.testing.assert_array_equal(model.blocks[1].ls2.gamma[...], np.full(24, 1e-5, np.float32))
    np.testing.assert_array_equal(
        model.embed(IMAGES)[:, 0], jnp.broadcast_to(model.cls_token[0], (6, 24))
    )


@functools.cache
def _tiny(config=CONFIG, **options):
    """A tiny network as a function: f(images, train, key) -> leaf logits."""
    make = functools.partial(build, config)
    model = create_model(make, 5, image_size=16, key=jax.random.key(2), **options)
    graphdef, params, state = split_model(model)

    # Not compiled as a whole: single operations of these shapes are compiled once for all tests.
    def run(images, train=False, key=None):
        return apply(graphdef, params, state, images, train=train, key=key)[0][-1]

    return run


IMAGES = random_images("tiny", 6, 16)


@pytest.mark.parametrize("rates", [{"drop_rate": 0.5}, {"drop_path_rate": 0.5}])
def test_randomness_needs_training_and_a_key(rates):
    run = _tiny(**rates)
    plain = run(IMAGES)
    np.testing.assert_array_equal(run(IMAGES, train=True), plain)
    np.testing.assert_array_equal(run(IMAGES, key=jax.random.key(0)), plain)
    first = run(IMAGES, train=True, key=jax.random.key(0))
    assert np.abs(first - plain).max() > 1e-3
    np.testing.assert_array_equal(run(IMAGES, train=True, key=jax.random.key(0)), first)
    assert np.abs(run(IMAGES, train=True, key=jax.random.key(1)) - first).max() > 1e-3


@pytest.mark.parametrize("change", [{}, {"pool": "mean"}, {"distilled": True}])
def test_permuting_the_batch_permutes_the_logits(change):
    run = _tiny(dataclasses.replace(CONFIG, **change))
    order = np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(run(IMAGES[order]), run(IMAGES)[order], atol=1e-6)


def test_bfloat16_stays_near_float32():
    exact, rough = _tiny()(IMAGES), _tiny(dtype=jnp.bfloat16)(IMAGES)
    assert rough.dtype == jnp.float32
    assert np.abs(exact - rough).max() > 0
    assert np.abs(exact - rough).max() < 0.02 * np.abs(exact).max()


def test_one_channel_and_chosen_stages():
    model = create_model(TINY, 5, image_size=24, in_channels=1, key=jax.random.key(0))
    graphdef, params, state = split_model(model)
    run = functools.partial(apply_features, graphdef, params, state)
    images = random_images("one channel", 2, 24, 1)
    everything, chosen = jax.jit(lambda x: (run(x), run(x, indices=(-1, 0))))(images)
    assert [stage.shape for stage in chosen.stages] == [(2, 6, 6, 24)] * 2
    np.testing.assert_allclose(chosen.stages[0], everything.stages[1], atol=1e-6)
    np.testing.assert_allclose(chosen.stages[1], everything.stages[0], atol=1e-6)
    with pytest.raises(UserError, match="2 stages"):
        jax.eval_shape(functools.partial(run, indices=(2,)), images)


def test_a_frozen_backbone_gets_no_gradient_and_no_randomness():
    model = create_model(
        TINY, 5, image_size=16, drop_path_rate=0.5, freeze_backbone=True, key=jax.random.key(4)
    )
    graphdef, params, state = split_model(model)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradients_of_sum(params):
        trained, _ = apply(graphdef, params, state, IMAGES, train=True, key=jax.random.key(0))
        return jnp.sum(trained[0] ** 2), (trained[0], apply(graphdef, params, state, IMAGES)[0][0])

    gradients, (trained, plain) = gradients_of_sum(params)
    moved = {path for path, value in flatten_paths(gradients).items() if np.any(value)}
    assert moved == {"head/linear/kernel", "head/linear/bias"}
    np.testing.assert_allclose(trained, plain, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0.05, 0.9), seed=st.integers(0, 2**31 - 1))
def test_drop_path_drops_whole_examples_and_keeps_the_expectation(rate, seed):
    x = jnp.ones((4096, 3, 2))
    y = np.asarray(drop_path(x, rate, jax.random.key(seed)))
    assert np.all((y == 0).all(axis=(1, 2)) | (y != 0).all(axis=(1, 2)))
    kept = 1 - rate
    deviation = np.sqrt(rate / kept / len(y))  # of the mean of 4096 draws
    assert abs(y.mean() - 1) < 6 * deviation
    np.testing.assert_allclose(y[y != 0], 1 / kept, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0.05, 0.9), seed=st.integers(0, 2**31 - 1))
def test_dropout_keeps_the_expectation(rate, seed):
    y = np.asarray(dropout(jnp.ones((64, 64)), rate, jax.random.key(seed)))
    assert abs(y.mean() - 1) < 6 * np.sqrt(rate / (1 - rate) / y.size)


def test_no_key_and_rate_zero_change_nothing():
    x = jnp.arange(6.0).reshape(3, 2)
    assert dropout(x, 0.5, None) is x
    assert drop_path(x, 0.0, jax.random.key(0)) is x
    assert fold_in_name(None, "a") is None
    assert drop_path_rates(0.3, 4) == pytest.approx((0.0, 0.1, 0.2, 0.3))
    assert drop_path_rates(0.3, 1) == (0.0,)


@pytest.mark.parametrize("size", [0, 3, 18, 225])
def test_a_size_that_patches_do_not_divide_is_refused(size):
    with pytest.raises(UserError, match="config.data.image_size.*multiple of the patch size 4"):
        TINY(image_size=size, pool=None)


def test_images_of_another_size_are_refused():
    model = create_model(TINY, 5, image_size=16, key=jax.random.key(0))
    with pytest.raises(UserError, match="config.data.image_size.*built for 16 x 16.*20 x 20"):
        model(np.zeros((1, 20, 20, 3), np.float32))


def test_mean_pooling_of_a_distilled_network_is_refused():
    with pytest.raises(UserError, match="config.model.pool"):
        create_model("deit_tiny_distilled_patch16_224", 5, pool="mean", key=jax.random.key(0))
