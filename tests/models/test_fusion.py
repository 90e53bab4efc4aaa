"""The sum beside residual branches is computed once a block: same numbers, programs of a size."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.weights import random_images

from plankton_jax.models import apply, create_model, flatten_paths, split_model, swin, vit
from plankton_jax.models._fusion import computed_once

IMAGES = random_images("fusion", 2, 16)


def _swin(depth):
    return functools.partial(swin.build, swin.SwinConfig(8, (depth,), (1,), (2,)))


def _vit(depth):
    return functools.partial(vit.build, vit.VitConfig(width=8, heads=2, depth=depth, patch_size=8))


def _gradient(backbone):
    """A function of the parameters, in training with drop path: (logits, gradients); and them."""
    model = create_model(backbone, 5, image_size=16, drop_path_rate=0.3, key=jax.random.key(0))
    graphdef, params, state = split_model(model)

    def loss(params):
        (logits,), _ = apply(graphdef, params, state, IMAGES, train=True, key=jax.random.key(1))
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1)), logits

    return jax.jit(jax.grad(loss, has_aux=True)), params


def _largest_fusion(backbone):
    """The most inputs that one fusion of the compiled gradient has."""
    gradient, params = _gradient(backbone)
    program = gradient.lower(params).compile().as_text()
    return max(call.count("%") for call in re.findall(r" fusion\((.*?)\)", program))


@pytest.mark.parametrize("make", [_swin, _vit])
def test_numbers_are_those_of_plain_blocks(make, monkeypatch):
    gradient, params = _gradient(make(4))
    found = gradient(params)
    for module in (swin, vit):
        monkeypatch.setattr(module, "computed_once", lambda x: x)
    plain, params = _gradient(make(4))
    expected = plain(params)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-6)
    values = flatten_paths(found[0])
    for path, value in flatten_paths(expected[0]).items():
        scale = max(float(np.abs(value).max()), 1e-6)
        np.testing.assert_allclose(values[path], value, rtol=0, atol=1e-6 * scale, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("make", [_swin, _vit])
def test_fusions_do_not_grow_with_the_depth(make):
    assert _largest_fusion(make(8)) <= _largest_fusion(make(4)) + 2


def test_every_value_stays_and_every_derivative_is_the_identitys():
    x = jnp.asarray([[jnp.nan, 1.0], [-jnp.inf, 0.0]])
    np.testing.assert_array_equal(jax.jit(computed_once)(x), x)
    np.testing.assert_array_equal(jax.jit(jax.vmap(computed_once))(x), x)
    weights = jnp.asarray([[3.0, jnp.inf], [4.0, 5.0]])
    gradient = jax.grad(lambda x: jnp.sum(computed_once(x) * weights))(x)
    np.testing.assert_array_equal(gradient, weights)
    np.testing.assert_array_equal(jax.jvp(computed_once, (x,), (weights,))[1], weights)


def test_devices_that_share_a_batch_exchange_one_number():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    x = jax.device_put(np.ones((4, 3, 5), np.float32), place)
    program = jax.jit(lambda x: computed_once(x * 2.0)).lower(x).compile().as_text()
    exchanged = re.findall(r"= (\S+) (?:all-|collective-|reduce-scatter)", program)
    assert exchanged and all(re.match(r"f32\[1?\]", shape) for shape in exchanged), exchanged
