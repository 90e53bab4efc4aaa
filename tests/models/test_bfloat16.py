"""Computing in bfloat16 leaves what a network says about real images as it is."""

import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.cases import relative_norm
from golden.weights import random_weights

from plankton_jax.data.geometry import decode_grey, resize_square
from plankton_jax.models import apply, apply_features, create_model, split_model
from plankton_jax.weights import from_timm, to_timm

COUNT, CLASSES = 100, 20
NETWORKS = [
    ("deit_tiny_patch16_224", 32),
    ("swin_s3_tiny_224", 64),
    ("convnext_atto", 64),
    ("resnet10t", 64),
]


@pytest.fixture(scope="module")
def grey(real_images) -> list[np.ndarray]:
    """Images of the National Data Science Bowl."""
    with zipfile.ZipFile(real_images / "ndsb" / "train.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        chosen = np.random.default_rng(0).choice(len(names), COUNT, replace=False)
        return [decode_grey(archive.read(names[place])) for place in chosen]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [*NETWORKS, ("tf_efficientnetv2_b0", 64), ("inception_v3", 96)]
)
def test_the_first_class_is_that_of_float32(name, size, grey):
    images = _normalised(grey, size)
    exact, rough = (_logits(name, dtype, images) for dtype in (jnp.float32, jnp.bfloat16))
    assert np.abs(exact - rough).max() > 0
    assert (exact.argmax(axis=1) == rough.argmax(axis=1)).mean() >= 0.99


@pytest.fixture(scope="module")
def labelled(real_images) -> tuple[list[np.ndarray], np.ndarray]:
    """Images of the National Data Science Bowl, as many of each class, and their classes."""
    with zipfile.ZipFile(real_images / "ndsb" / "train.zip") as archive:
        classes: dict[str, list[str]] = {}
        for name in sorted(name for name in archive.namelist() if name.endswith(".jpg")):
            classes.setdefault(pathlib.PurePosixPath(name).parent.name, []).append(name)
        chosen = np.random.default_rng(0).choice(sorted(classes), CLASSES, replace=False)
        names = [name for each in chosen for name in classes[each][: COUNT // CLASSES]]
        grey = [decode_grey(archive.read(name)) for name in names]
    return grey, np.repeat(np.arange(CLASSES), COUNT // CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [*NETWORKS, ("legacy_xception", 96)])
def test_a_head_that_learnt_the_images_tells_them_apart_alike(name, size, labelled):
    """Random weights alone give nearly all images one first class; a head that was fitted to their
    true classes gives many. Networks whose random features differ from image to image by hardly
    more than bfloat16 resolves are not among these: inception_v3 and the EfficientNets."""
    grey, labels = labelled
    images = _normalised(grey, size)
    exact, rough = (_pooled(name, dtype, images) for dtype in (jnp.float32, jnp.bfloat16))
    mean, spread = exact.mean(axis=0), exact.std(axis=0) + 1e-12
    standard = (exact - mean) / spread
    # Ridge regression of the classes in its dual form, as there are fewer images than features.
    targets = np.eye(CLASSES)[labels] - 1 / CLASSES
    weights = standard.T @ np.linalg.solve(standard @ standard.T + np.eye(len(labels)), targets)
    first, second = (((x - mean) / spread @ weights).argmax(axis=1) for x in (exact, rough))
    assert np.abs(exact - rough).max() > 0
    assert len(set(first)) >= 10
    assert (first == second).mean() >= 0.99


@pytest.mark.parity
@pytest.mark.parametrize("name", ["legacy_xception", "inception_v3"])
def test_a_deep_network_loses_no_more_than_timm_s_does(name, grey):
    """Of random weights' nearly equal logits a hundred roundings in a row turn round more than one
    in a hundred; then timm's network in bfloat16 is the measure."""
    timm_support = pytest.importorskip("timm_support")
    torch, size = timm_support.torch, 96
    images = _normalised(grey, size)
    network = timm_support.timm.create_model(name, num_classes=93).eval()
    timm_support.load(network, random_weights(timm_support.shapes(network)))
    inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        theirs = network(inputs).float().numpy()
    exact, rough = (_logits(name, dtype, images) for dtype in (jnp.float32, jnp.bfloat16))
    ours, timm_s = (relative_norm(each, exact) for each in (rough, theirs))
    assert 0 < ours <= 1.1 * timm_s
    kept = (exact.argmax(axis=1) == rough.argmax(axis=1)).mean()
    assert kept >= (exact.argmax(axis=1) == theirs.argmax(axis=1)).mean() - 0.02


def _normalised(grey, size) -> np.ndarray:
    levels = np.stack([resize_square(image, size) for image in grey]).astype(np.float32) / 255
    return np.repeat(((levels - 0.45) / 0.225)[..., None], 3, axis=3)


def _logits(name, dtype, images) -> np.ndarray:
    graphdef, params, state = _network(name, dtype, images.shape[1])
    run = jax.jit(lambda params, state, x: apply(graphdef, params, state, x)[0][0])
    return np.asarray(run(params, state, images))


def _pooled(name, dtype, images) -> np.ndarray:
    graphdef, params, state = _network(name, dtype, images.shape[1])
    run = jax.jit(lambda params, state, x: apply_features(graphdef, params, state, x).pooled)
    return np.asarray(run(params, state, images), np.float64)


def _network(name, dtype, size):
    """A network with random weights, taken apart."""
    model = create_model(name, 93, image_size=size, dtype=dtype, key=jax.random.key(0))
    graphdef, params, state = split_model(model)
    shapes = {key: value.shape for key, value in to_timm(params, state, model).items()}
    return graphdef, *from_timm(random_weights(shapes), model)
