"""The Swin transformers against published sizes and known properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden.weights import random_images, random_weights

from plankton_jax.errors import UserError
from plankton_jax.models import apply, apply_features, create_model, flatten_paths, split_model
from plankton_jax.models.swin import Block, SwinConfig, build
from plankton_jax.models.window_attention import MASKED, relative_bias, shift_mask
from plankton_jax.weights import from_timm, to_timm
from plankton_jax.weights.resample import resize_relative_table

CONFIG = SwinConfig(width=8, depths=(2, 1), heads=(1, 2), windows=(2, 2))
TINY = functools.partial(build, CONFIG)
IMAGES = random_images("tiny swin", 6, 16)

# timm's published results list these, in millions, for 1000 classes.
PUBLISHED = {
    "swin_tiny_patch4_window7_224": 28.29,
    "swin_small_patch4_window7_224": 49.61,
    "swin_base_patch4_window7_224": 87.77,
    "swin_large_patch4_window7_224": 196.53,
    "swin_s3_tiny_224": 28.33,
    "swin_s3_small_224": 49.74,
    "swin_s3_base_224": 71.13,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    model = nnx.eval_shape(lambda: create_model(name, 1000, key=jax.random.key(0)))
    sizes = [leaf.size for leaf in jax.tree.leaves(split_model(model)[1])]
    assert round(sum(sizes) / 1e6, 2) == PUBLISHED[name]


@pytest.mark.parametrize("window", [1, 2, 3, 7])
def test_the_bias_of_a_pair_is_the_tables_value_at_their_distance(window):
    span = 2 * window - 1
    table = np.random.default_rng(0).normal(size=(span**2, 2)).astype(np.float32)
    found = relative_bias(jnp.asarray(table), window).reshape(2, *(window,) * 4)
    for row, column, other_row, other_column in np.ndindex(*found.shape[1:]):
        place = (row - other_row + window - 1) * span + column - other_column + window - 1
        np.testing.assert_array_equal(found[:, row, column, other_row, other_column], table[place])


def test_shifted_windows_keep_the_sides_of_the_map_apart():
    mask = shift_mask(side=5, window=3, shift=1)  # padded to 6: four windows
    assert mask.shape == (4, 9, 9)
    assert not mask[0].any()
    # The last window's last row and column came from the other side of the map.
    wrapped = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 3]]).ravel()
    expected = np.where(wrapped[:, None] == wrapped, 0, MASKED)
    np.testing.assert_array_equal(mask[3], expected)


@pytest.mark.parametrize("shift", [0, 2])
def test_a_token_reaches_its_own_window_only(shift):
    options = {"window": 4, "shift": shift, "drop_path_rate": 0.0, "dtype": jnp.float32}
    block = Block(8, 2, rngs=nnx.Rngs(params=1), **options)
    mask = jnp.asarray(shift_mask(8, 4, 2)) if shift else None
    x = random_images("block", 1, 8, 8)
    changed = x.copy()
    changed[0, 0, 0, 0] += 5.0
    moved = np.abs(block(changed, mask) - block(x, mask)).max(axis=(0, 3)) > 0
    expected = np.zeros((8, 8), bool)
    expected[: 4 - shift, : 4 - shift] = True
    np.testing.assert_array_equal(moved, expected)


@functools.cache
def _tiny(**options):
    """A tiny network as a function: f(images, train, key) -> leaf logits."""
    model = create_model(TINY, 5, image_size=16, key=jax.random.key(2), **options)
    graphdef, params, state = split_model(model)

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
    rates = [block.drop_path_rate for stage in model.backbone.layers for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


def test_bfloat16_stays_near_float32():
    exact, rough = _tiny()(IMAGES), _tiny(dtype=jnp.bfloat16)(IMAGES)
    assert rough.dtype == jnp.float32
    assert 0 < np.abs(exact - rough).max() < 0.03 * np.abs(exact).max()


def test_maps_of_chosen_stages():
    model = create_model(TINY, 5, image_size=20, in_channels=1, key=jax.random.key(0))
    graphdef, params, state = split_model(model)
    run = functools.partial(apply_features, graphdef, params, state)
    images = random_images("one channel", 2, 20, 1)
    everything, chosen = run(images), run(images, indices=(-1, 0))
    assert [stage.shape for stage in everything.stages] == [(2, 5, 5, 8), (2, 3, 3, 16)]
    np.testing.assert_array_equal(chosen.stages[0], everything.stages[1])
    np.testing.assert_array_equal(chosen.stages[1], everything.stages[0])
    assert everything.tokens is not None
    np.testing.assert_allclose(everything.pooled, everything.tokens.mean(axis=1), atol=1e-6)
    assert model.backbone.stage_dims == (8, 16)
    assert model.backbone.strides == (4, 8)
    with pytest.raises(UserError, match="2 stages"):
        run(images, indices=(2,))


def test_initial_values_have_timms_scales():
    config = SwinConfig(width=64, depths=(1, 1), heads=(4, 8), windows=(7, 7))
    model = functools.partial(build, config)(
        image_size=56, pool=None, in_channels=3, rngs=nnx.Rngs(params=1)
    )
    flat = flatten_paths(split_model(model)[1])
    for path, value in flat.items():
        if path.endswith("bias") and "patch_embed/proj" not in path:
            assert not np.any(value), path
        elif path.endswith("scale"):
            assert np.all(np.asarray(value) == 1), path
        elif not path.startswith("patch_embed"):
            assert np.std(value) == pytest.approx(0.02, rel=0.15), path
    assert np.abs(flat["patch_embed/proj/kernel"]).max() <= 1 / np.sqrt(4 * 4 * 3)


@pytest.mark.parametrize("size", [0, 3, 30, 225])
def test_a_size_that_patches_do_not_divide_is_refused(size):
    with pytest.raises(UserError, match="config.data.image_size.*multiple of the patch size 4"):
        TINY(image_size=size, pool=None)


def test_other_images_and_pooling_are_refused():
    model = create_model(TINY, 5, image_size=16, pool="mean", key=jax.random.key(0))
    with pytest.raises(UserError, match="config.data.image_size.*built for 16 x 16.*16 x 20"):
        model(np.zeros((1, 16, 20, 3), np.float32))
    with pytest.raises(UserError, match="config.model.pool.*no class token"):
        create_model(TINY, 5, image_size=16, pool="token", key=jax.random.key(0))


def _weights(model):
    named = to_timm(*split_model(model)[1:], model)
    return random_weights({name: value.shape for name, value in named.items()})


def test_conversion_is_bit_exact_both_ways_and_bears_stored_constants():
    model = create_model(TINY, 5, image_size=16, key=jax.random.key(0))
    source = _weights(model)
    constants = {
        "layers.0.blocks.1.attn_mask": np.zeros((4, 4, 4), np.float32),
        "layers.0.blocks.1.attn.relative_position_index": np.zeros((4, 4), np.int64),
    }
    params, state = from_timm(source | constants, model)
    back = to_timm(params, state, model)
    assert back.keys() == source.keys()
    assert all(np.array_equal(back[name], source[name]) for name in source)
    older = {name.replace("head.fc.", "head."): value for name, value in source.items()}
    found = flatten_paths(from_timm(older, model)[0])
    assert all(np.array_equal(value, found[path]) for path, value in flatten_paths(params).items())


def test_tables_of_another_window_are_resized():
    make = functools.partial(create_model, key=jax.random.key(0), image_size=32)
    wide = make(functools.partial(build, SwinConfig(8, (2, 1), (1, 2), (4, 4))), 5)
    source = _weights(make(TINY, 5))
    name = "layers.0.blocks.1.attn.relative_position_bias_table"
    table = from_timm(source, wide)[0]["backbone"]["layers"]["0"]["blocks"]["1"]["attn"]
    np.testing.assert_array_equal(
        table["relative_position_bias_table"], resize_relative_table(source[name], 4)
    )
    with pytest.raises(UserError, match=f"{name} has shape"):
        from_timm(source | {name: np.zeros((10, 1), np.float32)}, wide)


def test_resized_tables_keep_their_size_their_centre_and_constants():
    table = np.random.default_rng(0).normal(size=(49, 2))
    assert resize_relative_table(table, 4) is table
    for window in (1, 3, 9):
        resized = resize_relative_table(table, window)
        np.testing.assert_allclose(resized[len(resized) // 2], table[24])
        np.testing.assert_allclose(resize_relative_table(np.ones((49, 2)), window), 1.0)
