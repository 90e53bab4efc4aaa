"""Inception, Xception and the branch papers' bases: sizes, refusals, weights of other layouts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden.weights import random_images, random_weights

from plankton_jax import heads
from plankton_jax.errors import UserError
from plankton_jax.losses import auxiliary_cross_entropy, cross_entropy
from plankton_jax.models import (
    Features,
    apply,
    apply_features,
    create_model,
    flatten_paths,
    inception,
    inception_v3,
    inception_v4,
    split_model,
)
from plankton_jax.models.branch_bases import BranchBaseConfig, build
from plankton_jax.weights import from_timm, left_out, to_timm

KEY = jax.random.key(0)
# timm's published results list these, in millions, for 1000 classes.
PUBLISHED = {
    "legacy_xception": 22.86,
    "xception41": 26.97,
    "inception_v3": 23.83,
    "inception_v4": 42.68,
}
TIMMS = pytest.mark.parametrize("name", PUBLISHED)


@functools.cache
def _abstract(name, classes=1000, **options):
    """A network of shapes alone."""
    return nnx.eval_shape(lambda: create_model(name, classes, key=KEY, **options))


def _count(model) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(split_model(model)[1]))


def _maps(model, size, channels=3, **options):
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    graphdef, params, state = split_model(model)
    return jax.eval_shape(
        functools.partial(apply_features, graphdef, **options), params, state, images
    )


@TIMMS
def test_parameter_count_is_the_published_one(name):
    assert round(_count(_abstract(name)) / 1e6, 2) == PUBLISHED[name]


def test_the_bases_have_the_parameters_of_their_layers():
    """Kernel, offset, and two of batch norm for every layer, counted by hand at 32 pixels."""
    convolutions = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    base_b = [*convolutions, (256, 512), (512, 512)]
    base_c = [*convolutions, (256, 256), (256, 512), *[(512, 512)] * 5]
    for name, layers, width in (("bcnn_base_b", base_b, 1024), ("bcnn_base_c", base_c, 4096)):
        expected = sum(9 * a * b + 3 * b for a, b in layers)
        expected += 2 * 2 * 512 * width + 3 * width + width * width + 3 * width
        expected += width * 7 + 7  # the head
        assert _count(_abstract(name, 7, in_channels=1)) == expected


@TIMMS
@pytest.mark.parametrize(("size", "channels"), [(96, 1), (128, 3)])
def test_maps_of_chosen_stages_at_any_size(name, size, channels):
    model = _abstract(name, in_channels=channels, image_size=size)
    everything = _maps(model, size, channels)
    backbone = model.backbone
    assert [stage.shape[-1] for stage in everything.stages] == list(backbone.stage_dims)
    for stage, stride in zip(everything.stages, backbone.strides, strict=True):
        # Without padding maps are a little smaller.
        assert size // stride - 4 <= stage.shape[1] <= -(-size // stride)
    assert everything.pooled.shape == (2, backbone.feature_dim)
    chosen = _maps(model, size, channels, indices=(-1, 0))
    assert [stage.shape for stage in chosen.stages] == [
        everything.stages[-1].shape,
        everything.stages[0].shape,
    ]


@pytest.mark.parametrize("size", [16, 28, 32, 45])
def test_bases_take_other_sizes_and_give_the_map_behind_each_pooling(size):
    model = _abstract("bcnn_base_c", image_size=size)
    sides = [size // 2, size // 4, size // 8, size // 16, size // 16]
    assert [stage.shape[1] for stage in _maps(model, size).stages] == sides
    assert model.backbone.strides == (2, 4, 8, 16, 16)
    with pytest.raises(UserError, match=f"config.data.image_size.*built for {size} pixels"):
        _maps(model, size + 1)


@pytest.mark.parametrize(
    ("name", "least"),
    [("legacy_xception", 7), ("inception_v3", 75), ("inception_v4", 75), ("bcnn_base_b", 16)],
)
def test_the_least_size_works_and_a_smaller_one_is_refused(name, least):
    assert min(_maps(_abstract(name, image_size=least), least).stages[-1].shape) > 0
    with pytest.raises(UserError, match=f"config.data.image_size: found {least - 1}.*{least}"):
        create_model(name, 5, image_size=least - 1, key=KEY)
    with pytest.raises(UserError, match="config.data.image_size"):
        _maps(_abstract(name, image_size=least), least - 1)


@pytest.mark.parametrize("name", [*PUBLISHED, "bcnn_base_b"])
def test_what_a_network_has_no_choice_of_is_refused(name):
    with pytest.raises(UserError, match="config.model.pool"):
        create_model(name, 5, pool="mean", key=KEY)
    if name != "xception41":
        with pytest.raises(UserError, match="config.model.drop_path_rate: found 0.1"):
            create_model(name, 5, drop_path_rate=0.1, key=KEY)


def test_drop_path_rates_grow_over_all_blocks():
    blocks = _abstract("xception41", drop_path_rate=0.6).backbone.blocks
    np.testing.assert_allclose([block.drop_path_rate for block in blocks], np.arange(13) / 20)


def _state_dict(model):
    """Random weights under timm's names, for a network of shapes."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), split_model(model)[1:])
    return random_weights({name: value.shape for name, value in to_timm(*zeros, model).items()})


@TIMMS
def test_conversion_is_bit_exact_both_ways(name):
    model = _abstract(name, 5)
    source = _state_dict(model)
    counts = {
        key.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
        for key in source
        if key.endswith("running_mean")
    }
    back = to_timm(*from_timm(source | counts, model), model)
    assert back.keys() == source.keys()
    assert all(np.array_equal(back[key], source[key]) for key in source)


def test_weights_of_the_auxiliary_classifier_are_placed_or_dropped():
    plain, build = _abstract("inception_v3", 5), inception_v3.with_auxiliary
    model = _abstract(build, 5, image_size=299, head="auxiliary")
    _, params, state = split_model(model)
    shapes = {path: leaf.shape for path, leaf in flatten_paths(params).items()}
    assert shapes["backbone/AuxLogits/conv1/conv/kernel"] == (5, 5, 128, 768)
    assert shapes["head/auxiliary/kernel"] == (768, 5)
    source = _state_dict(model)
    assert {"AuxLogits.conv0.bn.running_mean", "AuxLogits.fc.bias"} <= source.keys()
    back = to_timm(*from_timm(source, model), model)
    assert all(np.array_equal(back[key], source[key]) for key in source)
    without = to_timm(*from_timm(source, plain), plain)
    assert without.keys() == {key for key in source if not key.startswith("AuxLogits")}
    assert left_out(source, model) == []
    assert set(left_out(source, plain)) == source.keys() - without


def test_the_auxiliary_classifier_needs_a_large_image():
    with pytest.raises(UserError, match="config.data.image_size: found 278.*17x17.*allowed: 299"):
        inception_v3.with_auxiliary(image_size=278, rngs=nnx.Rngs(params=0))


def test_least_sizes_follow_from_the_tables():
    assert inception.least_size(inception_v3.CONFIG) == 75
    assert inception.least_size(inception_v4.CONFIG) == 75


def test_a_base_normalises_behind_the_relu_and_drops_in_training_only():
    config = BranchBaseConfig(((8,), (8,), (8,), (8, 8)), dense=(16, 16))
    model = create_model(functools.partial(build, config), 5, image_size=16, key=KEY)
    graphdef, params, state = split_model(model)
    images = random_images("base", 6, 16)
    run = jax.jit(functools.partial(apply, graphdef, train=True))
    (plain,), moved = run(params, state, images)
    (first,), _ = run(params, state, images, key=jax.random.key(1))
    (again,), _ = run(params, state, images, key=jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - plain).max() > 1e-3
    means = flatten_paths(moved)["backbone/blocks/0/0/bn/mean"]
    assert np.all(np.asarray(means) >= 0) and np.any(np.asarray(means) > 0)
    inference = jax.jit(functools.partial(apply, graphdef))
    np.testing.assert_array_equal(
        inference(params, state, images, key=KEY)[0][0], inference(params, state, images)[0][0]
    )


def test_the_auxiliary_head_trains_and_keeps_out_of_inference():
    backbone = _abstract("inception_v3", 5).backbone
    with pytest.raises(UserError, match="config.model.head.*with_auxiliary"):
        heads.find("auxiliary")(backbone, 5, rngs=nnx.Rngs(params=0))
    backbone.feature_dim, backbone.auxiliary_dim = 6, 4
    head = heads.find("auxiliary")(backbone, 5, rngs=nnx.Rngs(params=0))
    pooled, auxiliary = random_images("features", 2, 3, 6)[0, :, 0], np.ones((3, 4), np.float32)
    features = Features((), jnp.asarray(pooled), auxiliary=jnp.asarray(auxiliary))
    (logits,) = head(features)
    first, second = head(features, train=True)
    np.testing.assert_array_equal(second, logits)
    np.testing.assert_allclose(first, auxiliary @ head.auxiliary.kernel[...], rtol=1e-6)
    labels = jnp.array([[0], [3], [1]])
    expected = cross_entropy((second,), labels) + 0.4 * cross_entropy((first,), labels)
    np.testing.assert_allclose(auxiliary_cross_entropy((first, second), labels), expected)
