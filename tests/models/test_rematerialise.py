"""Blocks that are computed again backwards: the same numbers, less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden.convnext_cases import CASES as CONVNEXT
from golden.weights import random_images
from golden.xception_cases import CASES as XCEPTION

from plankton_jax.errors import UserError
from plankton_jax.models import Features, apply, create_model, flatten_paths, split_model
from plankton_jax.models.inception import Block, Conv, Inception, InceptionConfig
from plankton_jax.models.inception import build as build_inception
from plankton_jax.models.swin import SwinConfig
from plankton_jax.models.swin import build as build_swin
from plankton_jax.models.vit import VitConfig
from plankton_jax.models.vit import build as build_vit

_BRANCHES = ((Conv("one", 8),), (Conv("two", 8, (1, 7)), Conv("three", 8, (7, 1))))
INCEPTION = InceptionConfig(
    (Conv("stem", 8, 3, 2), Block("mixed", _BRANCHES), Block("again", _BRANCHES)), ("mixed",)
)
BACKBONES = {
    "vit": functools.partial(build_vit, VitConfig(width=32, heads=2, depth=6, patch_size=4)),
    "swin": functools.partial(build_swin, SwinConfig(16, (6,), (2,), (4,))),
    "convnet": "plankton_cnn_tiny",
    "convnext": CONVNEXT["plain"].backbone,
    "xception_aligned": XCEPTION["aligned"].backbone,
    "inception": functools.partial(build_inception, INCEPTION, Inception),
}
# Batch norm throughout, which magnifies rounding from layer to layer.
NORMED = ("xception_aligned", "inception")
IMAGES = random_images("rematerialise", 8, 32)


def _compiled_gradient(backbone, rematerialise):
    model = create_model(
        backbone, 5, image_size=32, rematerialise=rematerialise, key=jax.random.key(0),
        drop_path_rate=0.0 if backbone is BACKBONES["inception"] else 0.3,
    )  # fmt: skip
    graphdef, params, state = split_model(model)

    def loss(params, state):
        (logits,), moved = apply(graphdef, params, state, IMAGES, train=True, key=jax.random.key(1))
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1)), moved

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params, state).compile()
    (value, moved), gradients = gradient(params, state)
    return gradient, flatten_paths({"loss": value, "gradients": gradients, "state": moved})


def _assert_equal_up_to_rounding(found, expected):
    """Each array to 1e-3 of its norm; what is zero but for rounding is so in both."""
    norms = {path: np.linalg.norm(value) for path, value in expected.items()}
    for path, value in expected.items():
        group = path.partition("/")[0]  # gradients, state or loss
        zero = 1e-6 * max(norms[other] for other in norms if other.startswith(group))
        if norms[path] < zero:
            assert np.linalg.norm(found[path]) < zero, path
        else:
            assert np.linalg.norm(found[path] - value) < 1e-3 * norms[path], path


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_numbers_from_less_memory(name):
    program, expected = _compiled_gradient(BACKBONES[name], False)
    again, found = _compiled_gradient(BACKBONES[name], True)
    assert found.keys() == expected.keys()
    if name in NORMED:
        _assert_equal_up_to_rounding(found, expected)
    else:
        for path, value in expected.items():
            scale = max(float(np.abs(value).max()), 1e-6)
            np.testing.assert_allclose(found[path], value, atol=1e-5 * scale, rtol=0, err_msg=path)
    if name in ("vit", "swin"):  # whose many equal blocks are most of their memory
        sizes = [each.memory_analysis().temp_size_in_bytes for each in (program, again)]
        assert sizes[1] < 0.7 * sizes[0], sizes


def test_the_whole_xception_runs_so():
    make = functools.partial(
        create_model, "legacy_xception", 5, rematerialise=True, key=jax.random.key(0)
    )
    graphdef, params, state = split_model(nnx.eval_shape(make))

    def program(state, params, images):
        def loss(params):
            return jnp.sum(apply(graphdef, params, state, images, train=True)[0][0])

        return jax.grad(loss)(params)

    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    gradients = jax.eval_shape(program, state, params, images)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, params)


def test_a_backbone_that_cannot_says_so():
    class Plain(nnx.Module):
        def __init__(self, **options):
            self.feature_dim = 4

        def __call__(self, images, *, train=False, key=None, indices=None):
            return Features((), pooled=jnp.zeros((images.shape[0], 4)))

    with pytest.raises(UserError, match="config.model.rematerialise: found True"):
        create_model(Plain, 5, image_size=8, rematerialise=True, key=jax.random.key(0))
