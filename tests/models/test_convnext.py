"""ConvNeXt against published sizes and known properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden.weights import random_images, random_weights

from plankton_jax.errors import UserError
from plankton_jax.models import apply, apply_features, create_model, flatten_paths, split_model
from plankton_jax.models.convnext import Block, ConvNextConfig, ResponseNorm, build
from plankton_jax.weights import from_timm, to_timm

CONFIG = ConvNextConfig(widths=(8, 16), depths=(2, 1))
TINY = functools.partial(build, CONFIG)
KINDS = [
    ConvNextConfig((8, 16), (2, 1), conv_mlp, response_norm)
    for conv_mlp in (False, True)
    for response_norm in (False, True)
]
IMAGES = random_images("tiny convnext", 6, 16)

# timm's published results list these, in millions, for 1000 classes.
PUBLISHED = {
    "convnext_atto": 3.70,
    "convnext_nano": 15.59,
    "convnext_tiny": 28.59,
    "convnext_small": 50.22,
    "convnext_base": 88.59,
    "convnext_large": 197.77,
    "convnextv2_atto": 3.71,
    "convnextv2_nano": 15.62,
    "convnextv2_tiny": 28.64,
    "convnextv2_base": 88.72,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    model = nnx.eval_shape(lambda: create_model(name, 1000, key=jax.random.key(0)))
    sizes = [leaf.size for leaf in jax.tree.leaves(split_model(model)[1])]
    assert round(sum(sizes) / 1e6, 2) == PUBLISHED[name]


@functools.cache
def _tiny(**options):
    """A tiny network as a function: f(images, train, key) -> leaf logits."""
    model = create_model(TINY, 5, image_size=16, key=jax.random.key(2), **options)
    graphdef, params, state = split_model(model)
    # The layer scale's start would hide the branches.
    params = jax.tree.map_with_path(
        lambda path, leaf: jnp.ones_like(leaf) if "gamma" in str(path) else leaf, params
    )

    def run(images, train=False, key=None):
        return apply(graphdef, params, state, images, train=train, key=key)[0][-1]

    return run


def test_drop_path_needs_training_and_a_key():
    run = _tiny(drop_path_rate=0.5)
    plain = run(IMAGES)
    np.testing.assert_array_equal(run(IMAGES, train=True), plain)
    np.testing.assert_array_equal(run(IMAGES, key=jax.random.key(0)), plain)
    first = run(IMAGES, train=True, key=jax.random.key(0))
    assert np.abs(first - plain).max() > 1e-3
    np.testing.assert_array_equal(run(IMAGES, train=True, key=jax.random.key(0)), first)
    assert np.abs(run(IMAGES, train=True, key=jax.random.key(1)) - first).max() > 1e-3


def test_drop_path_rates_grow_over_all_blocks():
    model = create_model(TINY, 5, image_size=16, drop_path_rate=0.4, key=jax.random.key(0))
    rates = [block.drop_path_rate for stage in model.backbone.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


def test_bfloat16_stays_near_float32():
    exact, rough = _tiny()(IMAGES), _tiny(dtype=jnp.bfloat16)(IMAGES)
    assert rough.dtype == jnp.float32
    assert 0 < np.abs(exact - rough).max() < 0.03 * np.abs(exact).max()


def test_features_are_the_stages_and_the_normalised_mean():
    model = create_model(TINY, 5, image_size=16, key=jax.random.key(0))
    graphdef, params, state = split_model(model)
    features = apply_features(graphdef, params, state, IMAGES)
    assert [stage.shape for stage in features.stages] == [(6, 4, 4, 8), (6, 2, 2, 16)]
    assert (model.backbone.stage_dims, model.backbone.strides) == ((8, 16), (4, 8))
    assert features.pooled.shape == (6, model.backbone.feature_dim)
    mean = np.asarray(features.stages[-1]).mean(axis=(1, 2))
    expected = (mean - mean.mean(1, keepdims=True)) / np.sqrt(mean.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(features.pooled, expected, atol=1e-4)
    (last,) = apply_features(graphdef, params, state, IMAGES, indices=[-1]).stages
    np.testing.assert_array_equal(last, features.stages[-1])
    with pytest.raises(UserError, match=r"feature indices \[2\]"):
        apply_features(graphdef, params, state, IMAGES, indices=[2])


def test_a_block_sees_seven_positions_and_mixes_channels_at_each():
    block = Block(8, CONFIG, drop_path_rate=0.0, dtype=jnp.float32, rngs=nnx.Rngs(params=1))
    block.layer_scale.gamma[...] = jnp.ones(8)
    x = random_images("block", 1, 12, 8)
    changed = x.copy()
    changed[0, 5, 2, 0] += 5.0
    moved = np.abs(block(changed) - block(x)).max(axis=(0, 3)) > 0
    expected = np.zeros((12, 12), bool)
    expected[2:9, :6] = True
    np.testing.assert_array_equal(moved, expected)


def test_response_norm_scales_by_the_share_of_a_channels_norm():
    layer = ResponseNorm(3, dtype=jnp.float32)
    x = random_images("responses", 2, 4, 3)
    np.testing.assert_array_equal(layer(x), x)  # it starts as the identity
    layer.scale[...], layer.bias[...] = jnp.array([1.0, 2.0, 0.0]), jnp.array([0.0, 0.5, 1.0])
    norms = np.linalg.norm(x.reshape(2, 16, 3), axis=1)
    share = (norms / norms.mean(axis=1, keepdims=True))[:, None, None]
    expected = x * (1 + share * np.array([1, 2, 0])) + np.array([0, 0.5, 1])
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_a_silent_channel_has_a_gradient():
    layer = ResponseNorm(3, dtype=jnp.float32)
    layer.scale[...] = jnp.ones(3)
    x = random_images("silent", 1, 4, 3) * np.array([1, 0, 1], np.float32)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(layer(x) ** 2))(x)).all()


def test_random_weights_start_as_in_timm():
    model = build(CONFIG, image_size=16, pool=None, in_channels=3, rngs=nnx.Rngs(params=1))
    for path, value in flatten_paths(split_model(model)[1]).items():
        if path.endswith("bias"):
            assert not np.any(value), path
        elif path.endswith("scale"):
            assert np.all(np.asarray(value) == 1), path
        elif path.endswith("gamma"):
            np.testing.assert_allclose(value, 1e-6)
        else:
            assert np.std(value) == pytest.approx(0.02, rel=0.15), path


def test_small_images_and_pooling_are_refused():
    with pytest.raises(UserError, match="config.data.image_size: found 7; allowed: 8 or more"):
        TINY(image_size=7, pool=None)
    model = create_model(TINY, 5, image_size=16, key=jax.random.key(0))
    with pytest.raises(UserError, match="config.data.image_size: found 4"):
        model(np.zeros((1, 16, 4, 3), np.float32))
    with pytest.raises(UserError, match="config.model.pool.*its own pooling"):
        create_model(TINY, 5, image_size=16, pool="mean", key=jax.random.key(0))


def _weights(model):
    named = to_timm(*split_model(model)[1:], model)
    return random_weights({name: value.shape for name, value in named.items()})


@pytest.mark.parametrize("config", KINDS)
def test_conversion_is_bit_exact_both_ways(config):
    model = create_model(functools.partial(build, config), 5, image_size=16, key=jax.random.key(0))
    source = _weights(model)
    params, state = from_timm(source, model)
    back = to_timm(params, state, model)
    assert back.keys() == source.keys()
    assert all(np.array_equal(back[name], source[name]) for name in source)
    assert source["stages.0.blocks.1.mlp.fc1.weight"].ndim == (4 if config.conv_mlp else 2)


@pytest.mark.parametrize("config", KINDS)
def test_files_of_the_authors_are_understood(config):
    """Their names, linear layers where timm has convolutions, and four axes of response norms."""
    model = create_model(functools.partial(build, config), 5, image_size=16, key=jax.random.key(0))
    source = _weights(model)
    theirs = {_authors_name(name): value for name, value in source.items()}
    for name, value in theirs.items():
        if ".pwconv" in name and value.ndim == 4:
            theirs[name] = value[:, :, 0, 0]
        elif ".grn." in name:
            theirs[name] = value.reshape(1, 1, 1, -1)
    found = flatten_paths(from_timm(theirs, model)[0])
    for path, value in flatten_paths(from_timm(source, model)[0]).items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def _authors_name(name):
    for timms, authors in (
        ("head.fc.", "head."),
        ("head.norm.", "norm."),
        ("stem.", "downsample_layers.0."),
        ("stages.1.downsample.", "downsample_layers.1."),
    ):
        if name.startswith(timms):
            return name.replace(timms, authors)
    for timms, authors in (
        (".blocks.", "."),
        ("conv_dw", "dwconv"),
        ("mlp.fc", "pwconv"),
        ("mlp.grn.weight", "grn.gamma"),
        ("mlp.grn.bias", "grn.beta"),
    ):
        name = name.replace(timms, authors)
    return name


def test_weights_of_another_shape_are_refused():
    model = create_model(TINY, 5, image_size=16, key=jax.random.key(0))
    name = "stages.0.blocks.0.mlp.fc1.weight"
    for shape in ((32, 9), (32, 8, 3, 3), (8,)):
        with pytest.raises(UserError, match=f"{name} has shape"):
            from_timm(_weights(model) | {name: np.zeros(shape, np.float32)}, model)
