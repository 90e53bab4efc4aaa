"""Names, settings and functions that `create_model` takes, and networks as plain dicts."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plankton_jax import heads
from plankton_jax.errors import UserError
from plankton_jax.models import (
    Features,
    ModelEntry,
    ModelInfo,
    apply,
    create_model,
    flatten_paths,
    get_info,
    join_model,
    list_models,
    register,
    split_model,
    unflatten_paths,
)

KEY = jax.random.key(0)


class Pixels(nnx.Module):
    """A backbone of one linear layer and, to have state, a running mean."""

    def __init__(self, *, image_size, in_channels, drop_path_rate, dtype, pool, rngs):
        del drop_path_rate, dtype, pool
        self.layers = nnx.List([nnx.Linear(image_size**2 * in_channels, 8, rngs=rngs)] * 1)
        self.mean = nnx.BatchStat(jnp.zeros((8,)))
        self.feature_dim = 8

    def __call__(self, images, *, train=False, key=None, indices=None):
        pooled = self.layers[0](images.reshape(images.shape[0], -1))
        if train:
            self.mean[...] = self.mean[...] * 0.9 + jnp.mean(pooled, axis=0) * 0.1
        return Features(stages=(), pooled=pooled)


class TwoLevels(nnx.Module):
    """A head that predicts a coarse level as well."""

    def __init__(self, backbone, num_classes, *, taxonomy, drop_rate, dtype, rngs):
        del taxonomy, drop_rate, dtype
        self.coarse = nnx.Linear(backbone.feature_dim, 2, rngs=rngs)
        self.fine = nnx.Linear(backbone.feature_dim, num_classes, rngs=rngs)

    def __call__(self, features, *, train=False, key=None):
        return self.coarse(features.pooled), self.fine(features.pooled)


RUN = ("test_vit", "deit_tiny_distilled_patch16_224", "vit_tiny_patch16_384", "plankton_cnn_tiny")


@pytest.mark.parametrize("name", RUN)
def test_a_named_network_runs_in_its_native_size(name):
    size = get_info(name).image_size
    model = nnx.eval_shape(functools.partial(create_model, name, 7, key=KEY))
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    graphdef, params, state = split_model(model)
    (logits,), after = jax.eval_shape(
        functools.partial(apply, graphdef, train=True), params, state, images
    )
    assert logits.shape == (2, 7) and logits.dtype == jnp.float32
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_every_listed_name_is_known():
    assert {"deit_base_patch16_224", "plankton_cnn_tiny"} <= set(list_models())
    assert all(get_info(name).name == name for name in list_models())


def test_an_unknown_name_is_met_with_near_ones():
    with pytest.raises(UserError, match='config.model.name.*"deit_base_patch16_224"'):
        create_model("deit_bse_patch16_224", 5, key=KEY)
    with pytest.raises(UserError, match="config.model.name"):
        get_info("resnet10000")
    with pytest.raises(UserError, match='config.model.head.*"linear"'):
        create_model("test_vit", 5, head="liner", key=KEY)


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(UserError) as error:
        create_model(
            "test_vit", 0, image_size=-3, in_channels=0, drop_rate=1.0, drop_path_rate=-0.1,
            pool="max", key=KEY,
        )  # fmt: skip
    assert len(error.value.problems) == 6
    assert "config.data.image_size: found -3; allowed: 1 or more." in error.value.problems


def test_an_image_size_that_cannot_be_names_the_setting():
    with pytest.raises(UserError, match="config.data.image_size: found 100; .*96 or 112"):
        create_model("deit_tiny_patch16_224", 5, image_size=100, key=KEY)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_vit", 16),
        ("swin_tiny_patch4_window7_224", 32),
        ("convnext_atto", 32),
        ("resnet10t", 32),
    ],
)
def test_images_of_other_channels_are_refused(name, size):
    model = nnx.eval_shape(
        functools.partial(create_model, name, 5, image_size=size, in_channels=3, key=KEY)
    )
    graphdef, params, state = split_model(model)
    run = functools.partial(jax.eval_shape, functools.partial(apply, graphdef), params, state)
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    assert run(shape((2, size, size, 3)))[0][0].shape == (2, 5)
    with pytest.raises(UserError, match="built for 3 channels and was given 1; .*in_channels=1"):
        run(shape((2, size, size, 1)))
    for other in ((size, size, 3), (0, size, size, 3)):
        with pytest.raises(UserError, match="images: found the shape .*four axes.*at least one"):
            run(shape(other))


def test_a_backbone_and_a_head_may_be_given_as_classes():
    model = create_model(Pixels, 5, image_size=4, in_channels=1, head=TwoLevels, key=KEY)
    coarse, fine = model(jnp.ones((3, 4, 4, 1)))
    assert coarse.shape == (3, 2) and fine.shape == (3, 5)


def test_functions_that_do_not_fit_are_refused_with_what_they_are_given():
    with pytest.raises(UserError, match="config.model.name.*keywords image_size"):
        create_model(lambda size: None, 5, image_size=4, key=KEY)
    with pytest.raises(UserError, match="config.model.head.*taxonomy"):
        create_model(Pixels, 5, image_size=4, head=lambda backbone: None, key=KEY)
    with pytest.raises(UserError, match="feature_dim"):
        create_model(lambda **options: object(), 5, image_size=4, key=KEY)
    with pytest.raises(UserError, match="config.data.image_size"):
        create_model(Pixels, 5, key=KEY)


def test_two_backbones_of_one_name_are_a_mistake():
    with pytest.raises(ValueError, match="test_vit"):
        register(ModelEntry(ModelInfo("test_vit", "vit", 160), build=Pixels))


def test_the_backbones_parameters_do_not_depend_on_the_head():
    flat, tree = (
        flatten_paths(split_model(create_model("test_vit", 5, head=head, key=KEY))[1]["backbone"])
        for head in ("linear", TwoLevels)
    )
    assert all(np.array_equal(flat[path], tree[path]) for path in flat)


def test_plain_dicts_run_as_the_module_does_and_carry_the_state():
    model = create_model(Pixels, 5, image_size=4, in_channels=1, key=KEY)
    images = jax.random.normal(KEY, (3, 4, 4, 1))
    graphdef, params, state = split_model(model)
    assert set(flatten_paths(params)) == {
        "backbone/layers/0/kernel",
        "backbone/layers/0/bias",
        "head/linear/kernel",
        "head/linear/bias",
    }
    run = jax.jit(functools.partial(apply, graphdef, train=True))
    logits, after = run(params, state, images)
    assert not np.any(state["backbone"]["mean"]) and np.any(after["backbone"]["mean"])
    expected = model(images, train=True)
    np.testing.assert_allclose(logits[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(after["backbone"]["mean"], model.backbone.mean[...], atol=1e-7)


def test_measurements_reach_the_head_and_start_without_effect():
    options = {"image_size": 4, "in_channels": 1, "key": jax.random.key(0)}
    plain = create_model(Pixels, 3, **options)
    measured = create_model(Pixels, 3, num_measurements=2, **options)
    images = jax.random.normal(jax.random.key(1), (4, 4, 4, 1))
    numbers = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    np.testing.assert_array_equal(measured(images, measurements=numbers)[0], plain(images)[0])
    graph, params, state = split_model(measured)

    def loss(params):
        return jnp.sum(apply(graph, params, state, images, measurements=numbers)[0][0][:, 0])

    gradients = jax.grad(loss)(params)["measurements"]
    assert jnp.any(gradients["output"]["kernel"] != 0)
    params["measurements"]["output"]["kernel"] += 0.1
    logits, _ = apply(graph, params, state, images, measurements=numbers)
    same, _ = apply(graph, params, state, images, measurements=numbers[:1].repeat(4, axis=0))
    assert jnp.any(logits[0][1:] != same[0][1:], axis=1).all()
    with pytest.raises(UserError, match="made for measurements"):
        measured(images)


def test_paths_and_modules_go_both_ways():
    params = split_model(create_model("test_vit", 5, key=KEY))[1]
    assert jax.tree.all(
        jax.tree.map(np.array_equal, unflatten_paths(flatten_paths(params)), params)
    )
    graphdef, _, state = split_model(create_model("test_vit", 5, key=KEY))
    again = split_model(join_model(graphdef, params, state))
    assert again[0] == graphdef
    assert jax.tree.all(jax.tree.map(np.array_equal, again[1], params))


def test_a_stored_random_stream_is_refused():
    class Stored(Pixels):
        def __init__(self, **options):
            super().__init__(**options)
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    with pytest.raises(UserError, match="backbone/dropout"):
        split_model(create_model(Stored, 5, image_size=4, key=KEY))


def test_heads_are_listed():
    assert (
        heads.list_heads() == tuple(sorted(heads.list_heads())) and "linear" in heads.list_heads()
    )


@pytest.mark.parametrize("first", ["heads", "weights"])
def test_rooms_can_be_imported_in_any_order(first):
    subprocess.run([sys.executable, "-c", f"import plankton_jax.{first}"], check=True)
