"""What every backbone says of its stages, intermediates behind the final norm, and pruning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden.weights import random_images

from plankton_jax.errors import UserError
from plankton_jax.models import apply_features, create_model, get_info, list_models, split_model
from plankton_jax.models.swin import SwinConfig
from plankton_jax.models.swin import build as build_swin
from plankton_jax.models.vit import VitConfig
from plankton_jax.models.vit import build as build_vit

IMAGES = random_images("features", 2, 32)
VIT = functools.partial(build_vit, VitConfig(width=16, heads=2, depth=4, patch_size=8))
SWIN = functools.partial(build_swin, SwinConfig(8, (2, 2, 2), (1, 2, 4), (4, 4, 2)))


@functools.cache
def _model(backbone):
    return create_model(backbone, 5, image_size=32, key=jax.random.key(0))


def _features(model, indices, norm=False):
    graphdef, params, state = split_model(model)
    run = functools.partial(apply_features, graphdef, indices=indices, norm=norm)
    return jax.jit(run)(params, state, IMAGES)


@pytest.mark.parametrize("name", list_models())
def test_stages_have_the_width_and_stride_that_the_backbone_says(name):
    model = nnx.eval_shape(functools.partial(create_model, name, 5, key=jax.random.key(0)))
    graphdef, params, state = split_model(model)
    size = get_info(name).image_size
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    run = functools.partial(apply_features, graphdef, norm=True)
    features = jax.eval_shape(run, params, state, images)
    backbone = model.backbone
    assert features.pooled.shape == (2, backbone.feature_dim)
    assert features.pooled.dtype == jnp.float32
    assert len(features.stages) == len(backbone.stage_dims) == len(backbone.strides)
    assert list(backbone.strides) == sorted(backbone.strides)
    for stage, dim, stride in zip(
        features.stages, backbone.stage_dims, backbone.strides, strict=True
    ):
        batch, height, width, channels = stage.shape
        assert (batch, height, channels) == (2, width, dim)
        # Convolutions without padding lose a few rows of the map.
        assert size / height == pytest.approx(stride, rel=0.2)


@pytest.mark.parametrize("backbone", [VIT, SWIN])
def test_indices_and_norm_choose_the_same_stages(backbone):
    model = _model(backbone)
    plain, normed = _features(model, None), _features(model, None, norm=True)
    chosen = _features(model, (-1, 1), norm=True)
    np.testing.assert_allclose(chosen.stages[0], normed.stages[-1], atol=1e-5)
    np.testing.assert_allclose(chosen.stages[1], normed.stages[1], atol=1e-5)
    np.testing.assert_allclose(normed.pooled, plain.pooled, atol=1e-5)
    last = np.asarray(normed.stages[-1])
    np.testing.assert_allclose(last.mean(-1), 0, atol=1e-5)
    assert np.abs(plain.stages[-1] - last).max() > 0.1
    with pytest.raises(UserError, match="feature indices"):
        _features(model, (4,), norm=True)


@pytest.mark.parametrize("norm", [False, True])
def test_a_number_takes_the_last_stages_and_a_sequence_keeps_its_order(norm):
    model = _model(VIT)
    every = _features(model, None, norm).stages
    for indices, numbers in (
        (1, [3]),
        (np.int64(3), [1, 2, 3]),
        (4, [0, 1, 2, 3]),
        ((2, -4, 2), [2, 0, 2]),
        (np.array([3, 1]), [3, 1]),
        ((), []),
    ):
        chosen = _features(model, indices, norm).stages
        assert len(chosen) == len(numbers)
        for stage, number in zip(chosen, numbers, strict=True):
            np.testing.assert_allclose(stage, every[number], atol=1e-5)


@pytest.mark.parametrize("indices", [0, -1, 5, 1.0, "01", True, (True,), (1.0,), ("1",), (-5,)])
def test_what_is_no_stage_is_refused(indices):
    with pytest.raises(UserError, match="feature indices.*allowed: "):
        _features(_model(VIT), indices)


@pytest.mark.parametrize(
    ("backbone", "pool", "unchanged"),
    [
        (SWIN, None, slice(0, -1)),
        (VIT, "mean", slice(None)),
        ("plankton_cnn_tiny", None, slice(None)),
    ],
)
def test_a_norm_that_does_not_apply_leaves_stages_as_they_are(backbone, pool, unchanged):
    model = create_model(backbone, 5, image_size=32, pool=pool, key=jax.random.key(0))
    plain, normed = _features(model, None), _features(model, None, norm=True)
    for before, after in zip(plain.stages[unchanged], normed.stages[unchanged], strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("backbone", [VIT, SWIN])
def test_early_stages_alone_cost_a_part_of_the_whole(backbone):
    graphdef, params, state = split_model(_model(backbone))

    def cost(take):
        def run(params, state, images):
            return take(apply_features(graphdef, params, state, images, indices=(0,), norm=True))

        analysis = jax.jit(run).lower(params, state, IMAGES).compile().cost_analysis()
        return analysis["flops"]

    assert cost(lambda features: features.stages) < 0.5 * cost(lambda features: features)
