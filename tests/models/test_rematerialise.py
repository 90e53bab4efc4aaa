"""Blocks that are computed again backwards: the same numbers, less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden.convnext_cases import CASES as CONVNEXT
from golden.weights import random_images

from plankton_jax.errors import UserError
from plankton_jax.models import Features, apply, create_model, flatten_paths, split_model
from plankton_jax.models.swin import SwinConfig
from plankton_jax.models.swin import build as build_swin
from plankton_jax.models.vit import VitConfig
from plankton_jax.models.vit import build as build_vit

BACKBONES = {
    "vit": functools.partial(build_vit, VitConfig(width=32, heads=2, depth=6, patch_size=4)),
    "swin": functools.partial(build_swin, SwinConfig(16, (6,), (2,), (4,))),
    "convnet": "plankton_cnn_tiny",
    "convnext": CONVNEXT["plain"].backbone,
}
IMAGES = random_images("rematerialise", 8, 32)


def _compiled_gradient(backbone, rematerialise):
    model = create_model(
        backbone, 5, image_size=32, drop_path_rate=0.3, rematerialise=rematerialise,
        key=jax.random.key(0),
    )  # fmt: skip
    graphdef, params, state = split_model(model)

    def loss(params, state):
        (logits,), moved = apply(graphdef, params, state, IMAGES, train=True, key=jax.random.key(1))
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1)), moved

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params, state).compile()
    (value, moved), gradients = gradient(params, state)
    return gradient, flatten_paths({"loss": value, "gradients": gradients, "state": moved})


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_numbers_from_less_memory(name):
    program, expected = _compiled_gradient(BACKBONES[name], False)
    again, found = _compiled_gradient(BACKBONES[name], True)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        scale = max(float(np.abs(value).max()), 1e-6)
        np.testing.assert_allclose(found[path], value, atol=1e-5 * scale, rtol=0, err_msg=path)
    if name in ("vit", "swin"):  # whose many equal blocks are most of their memory
        sizes = [each.memory_analysis().temp_size_in_bytes for each in (program, again)]
        assert sizes[1] < 0.7 * sizes[0], sizes


def test_a_backbone_that_cannot_says_so():
    class Plain(nnx.Module):
        def __init__(self, **options):
            self.feature_dim = 4

        def __call__(self, images, *, train=False, key=None, indices=None):
            return Features((), pooled=jnp.zeros((images.shape[0], 4)))

    with pytest.raises(UserError, match="config.model.rematerialise: found True"):
        create_model(Plain, 5, image_size=8, rematerialise=True, key=jax.random.key(0))
