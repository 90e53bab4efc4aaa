"""Networks as Keras models, and KerasHub as a second witness of their arithmetic."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden.weights import random_images, random_weights
from weights.weights_support import random_state_dict, write

from plankton_jax.errors import UserError
from plankton_jax.models import apply, create_model, get_info, join_model, split_model
from plankton_jax.models.efficientnet import EfficientNetConfig, Stage
from plankton_jax.models.efficientnet import build as build_efficientnet
from plankton_jax.models.resnet import ResNetConfig
from plankton_jax.models.resnet import build as build_resnet
from plankton_jax.models.swin import SwinConfig
from plankton_jax.models.swin import build as build_swin
from plankton_jax.models.vit import VitConfig
from plankton_jax.models.vit import build as build_vit
from plankton_jax.weights import convert, from_timm, load_model, open_source, save, to_timm

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def _with_random_weights(model):
    """The network with weights of every layer far from their initial values."""
    graphdef, params, state = split_model(model)
    named = to_timm(params, state, model)
    weights = random_weights({name: value.shape for name, value in named.items()})
    return join_model(graphdef, *jax.tree.map(jnp.asarray, from_timm(weights, model)))


@pytest.fixture
def usual():
    """Keras counts on jax's usual promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _predictions(model, images):
    return jax.jit(lambda images: model(images)[0])(images)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_vit", {"image_size": 32}),
        ("deit_tiny_distilled_patch16_224", {"image_size": 32, "in_channels": 1}),
        ("plankton_cnn_tiny", {"image_size": 48, "in_channels": 1, "drop_rate": 0.5}),
    ],
)
def test_predictions_are_the_same_here_in_keras_and_in_another_process(
    name, options, usual, tmp_path
):
    from plankton_jax.keras import as_keras

    model = create_model(name, 5, key=jax.random.key(0), **options)
    size, channels = options["image_size"], options.get("in_channels", 3)
    images = random_images("keras", 3, size, channels)
    keras_model = as_keras(model)
    expected = _predictions(model, images)
    np.testing.assert_allclose(keras_model.predict(images, verbose=0), expected, atol=1e-5)
    if "cnn" in name:
        keras_model.compile("sgd", "mse")
        keras_model.fit(images, np.zeros((3, 5)), verbose=0)
        changed = keras_model.predict(images, verbose=0)
        assert np.abs(changed - expected).max() > 1e-3
        np.testing.assert_allclose(_predictions(model, images), expected, atol=1e-5)  # its own
        expected = changed
    path, images_file, found = (tmp_path / part for part in ("m.keras", "images.npy", "found.npy"))
    keras_model.save(path)
    np.save(images_file, images)
    script = (
        "import plankton_jax.keras, keras, numpy as np\n"
        f"model = keras.saving.load_model({str(path)!r})\n"
        f"np.save({str(found)!r}, model.predict(np.load({str(images_file)!r}), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    np.testing.assert_allclose(np.load(found), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_vit", 32), ("swin_s3_tiny_224", 32), ("resnet10t", 33)],
)
def test_a_converted_file_gives_the_same_in_keras(name, size, usual, tmp_path):
    from plankton_jax.keras import as_keras

    loaded = _loaded(tmp_path, name, size)
    images = random_images("keras", 3, size, 3)
    found = as_keras(loaded).predict(images, verbose=0)
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found, loaded(images), rtol=1e-5, atol=1e-5)


def test_a_file_without_a_head_is_a_backbone_alone(usual, tmp_path):
    from plankton_jax.keras import as_keras, as_keras_hub

    loaded = _loaded(tmp_path, "test_vit", 32, with_head=False)
    images = random_images("keras", 3, 32, 3)
    found = np.asarray(as_keras_hub(loaded)(images, training=False))
    expected = loaded.features(images).tokens
    assert np.abs(expected - found).max() < 1e-4 * np.abs(found).max()
    with pytest.raises(UserError, match="weights of test_vit without a head"):
        as_keras(loaded)


def _loaded(folder, name, size, **options):
    """What `load_model` gives of a converted file of random weights."""
    source = write(folder / "timm.safetensors", random_state_dict(name))
    opened = open_source(str(source), "no cache", architecture=get_info(name))
    path = folder / "x.safetensors"
    save(path, convert(opened, get_info(name), image_size=size, **options))
    return load_model(path)


def test_batch_statistics_move_in_keras_as_here(usual):
    from plankton_jax.keras import as_keras

    model = create_model("plankton_cnn_tiny", 5, image_size=48, in_channels=1,
                         key=jax.random.key(0))  # fmt: skip
    images = random_images("keras", 3, 48, 1)
    graphdef, params, state = split_model(model)
    _, moved = jax.jit(functools.partial(apply, graphdef, train=True))(params, state, images)
    keras_model = as_keras(model)
    keras_model(images, training=True)
    found = [variable.numpy() for variable in keras_model.get_layer("classifier").tracked_state]
    for ours, theirs in zip(jax.tree.leaves(moved), found, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


def test_networks_that_names_do_not_make_are_refused():
    from plankton_jax.keras import as_keras, as_keras_hub

    config = VitConfig(
        width=16, heads=2, depth=1, patch_size=8, layer_scale=0.1, embed_prefix=False
    )
    model = create_model(functools.partial(build_vit, config), 5, image_size=32,
                         key=jax.random.key(0))  # fmt: skip
    with pytest.raises(UserError, match="as_keras: found"):
        as_keras(model)
    with pytest.raises(UserError, match="as_keras_hub: found a vision transformer"):
        as_keras_hub(model)
    small = create_model("plankton_cnn_tiny", 5, key=jax.random.key(0))
    with pytest.raises(UserError, match="as_keras_hub: found a Convnet"):
        as_keras_hub(small)


_VIT = VitConfig(width=48, heads=3, depth=2, patch_size=8)
_STAGES = (
    Stage("plain", 2, 16),
    Stage("fused", 1, 24, 1),
    Stage("fused", 2, 24, 4, 2),
    Stage("inverted", 2, 32, 4, 2),
)
WITNESSED = {
    "vit": (functools.partial(build_vit, _VIT), 32),
    "distilled": (functools.partial(build_vit, VitConfig(48, 3, 2, 8, distilled=True)), 32),
    "dinov2": (functools.partial(build_vit, VitConfig(48, 3, 2, 8, layer_scale=0.1)), 32),
    "swin": (functools.partial(build_swin, SwinConfig(16, (2, 2), (2, 4), (4, 4))), 32),
    "resnet": (functools.partial(build_resnet, ResNetConfig((2, 1), widths=(64, 32))), 32),
    "resnet_d": (
        functools.partial(
            build_resnet,
            ResNetConfig((1, 2), bottleneck=True, stem=(8, 8, 64), averages=True, widths=(64, 8)),
        ),
        33,
    ),
    "efficientnet": (functools.partial(build_efficientnet, EfficientNetConfig(8, _STAGES, 64)), 37),
    "efficientnet_rw": (
        functools.partial(
            build_efficientnet,
            EfficientNetConfig(8, _STAGES, 64, padding="symmetric", epsilon=1e-5),
        ),
        36,
    ),
    "legacy_xception": ("legacy_xception", 39),
}


@pytest.mark.parametrize("kind", WITNESSED)
def test_keras_hub_computes_the_same_from_our_weights(kind, usual):
    from plankton_jax.keras import as_keras_hub

    network, size = WITNESSED[kind]
    model = create_model(network, 7, image_size=size, key=jax.random.key(0))
    model = _with_random_weights(model)
    images = random_images("witness", 3, size, 3)
    theirs = as_keras_hub(model, size)
    output = np.asarray(jax.jit(lambda images: theirs(images, training=False))(images))
    features, expected = jax.jit(lambda images: (model.features(images), model(images)[0]))(images)
    if output.ndim == 3:
        assert np.abs(features.tokens - output).max() < 1e-4 * np.abs(output).max()
    pooled = output[:, 0] if kind in ("vit", "distilled", "dinov2") else output
    pooled = pooled.reshape(3, -1, pooled.shape[-1]).mean(axis=1)
    layers = [(model.head.linear, pooled)]
    if kind == "distilled":
        layers.append((model.head.distilled, output[:, 1]))
    logits = np.mean([x @ layer.kernel[...] + layer.bias[...] for layer, x in layers], axis=0)
    assert np.abs(expected - logits).max() < 1e-4 * np.abs(logits).max()


@pytest.mark.parametrize(
    ("network", "size", "message"),
    [
        ("resnet10t", 32, "found a ResNet with averaging shortcuts and without"),
        ("tf_efficientnetv2_b0", 64, "found image_size 64.*as 57 or 65"),
        ("efficientnetv2_rw_s", 288, "found image_size 288.*as 264 or 289"),
        ("legacy_xception", 64, "found image_size 64.*as 40 or 71"),
    ],
)
def test_what_keras_hub_does_otherwise_is_refused(network, size, message):
    from plankton_jax.keras import as_keras_hub

    model = nnx.eval_shape(lambda: create_model(network, 5, image_size=size, key=jax.random.key(0)))
    with pytest.raises(UserError, match=message):
        as_keras_hub(model)
