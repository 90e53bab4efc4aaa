"""Every named vision transformer against timm as it runs here, with the same random weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytestmark = pytest.mark.parity
timm_support = pytest.importorskip("timm_support", reason="torch and timm are not installed")
from golden.cases import relative  # noqa: E402
from golden.weights import random_images, random_weights  # noqa: E402
from timm_support import timm, torch  # noqa: E402

from plankton_jax.models import (  # noqa: E402
    apply,
    apply_features,
    create_model,
    get_info,
    list_models,
    split_model,
)
from plankton_jax.models._registry import find  # noqa: E402
from plankton_jax.weights import from_timm, to_timm  # noqa: E402
from plankton_jax.weights.resample import resize_position_embedding  # noqa: E402

NAMES = [name for name in list_models() if get_info(name).family == "vit"]
CLASSES = 11


def _shallow(name):
    """The named backbone with two blocks."""
    entry = find(name).build
    return functools.partial(entry.func, dataclasses.replace(entry.args[0], depth=2))


def _compare(name, original, model, size, channels=3):
    """Asserts equal features, logits and gradients; returns the largest deviations."""
    weights = random_weights(timm_support.shapes(original))
    timm_support.load(original, weights)
    images = random_images(name, 2, size, channels)
    labels = np.arange(2) % CLASSES
    expected = timm_support.run(original, images, labels)
    params, state = from_timm(weights, model)
    graphdef = split_model(model)[0]
    features = jax.jit(functools.partial(apply_features, graphdef))(params, state, images)

    def objective(params):
        (logits,), _ = apply(graphdef, params, state, images, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), logits

    (loss, logits), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(params)
    found = to_timm(gradients, {}, model)
    assert found.keys() == expected["gradients"].keys()
    deviations = {
        "blocks": max(map(relative, features.stages, expected["blocks"])),
        "tokens": relative(features.tokens, expected["tokens"]),
        "logits": np.abs(logits - expected["logits"]).max(),
        "loss": abs(float(loss) - float(expected["loss"])),
        "gradients": max(_relative(found[key], expected["gradients"][key]) for key in found),
    }
    print(name, {key: f"{value:.1e}" for key, value in deviations.items()})
    return deviations


def _relative(found, expected):
    """The norm of the difference in norms of what is expected."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _assert_small(deviations):
    assert deviations["logits"] < 1e-4
    assert deviations["gradients"] < 1e-4
    assert deviations["loss"] < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_two_blocks_equal_timms(name):
    size = 84 if "patch14" in name else 96
    original = timm.create_model(name, depth=2, num_classes=CLASSES, img_size=size)
    model = create_model(_shallow(name), CLASSES, image_size=size, key=jax.random.key(0))
    deviations = _compare(name, original, model, size)
    _assert_small(deviations)
    assert deviations["blocks"] < 1e-5
    assert deviations["tokens"] < 1e-5


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_small_patch32_224"])
def test_mean_pooling_of_grey_images_equals_timms(name):
    options = {"num_classes": CLASSES, "img_size": 96, "in_chans": 1, "global_pool": "avg"}
    original = timm.create_model(name, depth=2, **options)
    model = create_model(
        _shallow(name), CLASSES, image_size=96, in_channels=1, pool="mean", key=jax.random.key(0)
    )
    _assert_small(_compare(name, original, model, 96, channels=1))


@pytest.mark.slow
def test_the_whole_deit_small_equals_timms():
    name = "deit_small_patch16_224"
    original = timm.create_model(name, num_classes=CLASSES)
    model = create_model(name, CLASSES, key=jax.random.key(0))
    _assert_small(_compare(name, original, model, 224))


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_records_are_timms(name):
    with torch.device("meta"):
        original = timm.create_model(name, num_classes=1000)  # DINOv2's have none by default
    model = jax.eval_shape(lambda: split_model(create_model(name, 1000, key=jax.random.key(0)))[1])
    count = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert count == sum(p.numel() for p in original.parameters())
    info, record = get_info(name), timm.models.get_pretrained_cfg(name)
    assert info.timm_name == f"{name}.{record.tag}"
    assert (info.image_size, info.mean, info.std) == (record.input_size[1], record.mean, record.std)
    assert (info.crop, info.interpolation) == (record.crop_pct, record.interpolation)


@pytest.mark.parametrize(
    ("old", "new", "prefix"),
    [(14, 24, 1), (24, 14, 2), (7, 7, 1), (14, 3, 0), (3, 14, 1), (5, 4, 1), (1, 4, 1)],
)
def test_resized_position_embeddings_equal_timms(old, new, prefix):
    embedding = random_images("embedding", 1, old * old + prefix, 16)[:, 0]
    expected = timm.layers.resample_abs_pos_embed(
        torch.from_numpy(embedding), [new, new], num_prefix_tokens=prefix
    )
    found = resize_position_embedding(embedding, new, prefix)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_summed_channels_equal_timms():
    name = "deit_tiny_patch16_224"
    colour = timm.create_model(name, depth=2, num_classes=CLASSES)
    weights = random_weights(timm_support.shapes(colour))
    model = create_model(_shallow(name), CLASSES, image_size=224, in_channels=1,
                         key=jax.random.key(0))  # fmt: skip
    params, _ = from_timm(weights, model)
    kernel = torch.from_numpy(weights["patch_embed.proj.weight"])
    expected = timm.models.adapt_input_conv(1, kernel).numpy().transpose(2, 3, 1, 0)
    np.testing.assert_allclose(params["backbone"]["patch_embed"]["kernel"], expected, atol=1e-6)
