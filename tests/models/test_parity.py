"""Every named backbone against timm as it runs here, with the same random weights."""

import importlib

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.parity
timm_support = pytest.importorskip("timm_support", reason="torch and timm are not installed")
from golden.cases import (  # noqa: E402
    FAMILIES,
    Case,
    assert_equal_features,
    gradient_bounds,
    relative,
    run_ours,
)
from timm_support import timm, torch  # noqa: E402

from plankton_jax.models import create_model, get_info, list_models, split_model  # noqa: E402

# Of Xception and Inception the cases at reduced depth are whole networks.
WHOLE = ("convnext_tiny", "efficientnetv2_rw_s", "resnet18", "swin_s3_tiny_224")
NAMES = [name for name in list_models() if get_info(name).family in FAMILIES]


def _compare(case, seed):
    original = case.timm_model(timm)
    timm_support.load(original, case.weights(timm_support.shapes(original)))
    expected = timm_support.run_case(original, *case.inputs(seed))
    found = run_ours(case, seed)
    assert_equal_features(found, expected)
    assert found["gradients"].keys() == expected["gradients"].keys()
    names = sorted(found["gradients"])
    norms = np.array([np.linalg.norm(expected["gradients"][key]) for key in names])
    bounds = gradient_bounds(norms, np.array([expected["rounding"][key] for key in names]))
    for key, bound in zip(names, bounds, strict=True):
        difference = found["gradients"][key] - expected["gradients"][key]
        assert np.linalg.norm(difference) <= bound, key
    for key, value in found["buffers"].items():
        assert relative(value, expected["buffers"][key]) < 1e-3, key


@pytest.mark.parametrize("name", NAMES)
def test_at_reduced_depth_equal_to_timm(name):
    module = importlib.import_module(f"golden.{get_info(name).family}_cases")
    _compare(module.reduced(name), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_network_equals_timms(name):
    # Residual networks start with a ReLU, which rounding must not take across zero.
    offset = 3.0 if name.startswith("resnet") else 0.0
    _compare(Case(name, {}, name, get_info(name).image_size, batch=2, offset=offset), name)


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_records_are_timms(name):
    with torch.device("meta"):
        original = timm.create_model(name)
    model = jax.eval_shape(lambda: split_model(create_model(name, 1000, key=jax.random.key(0)))[1])
    count = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert count == sum(p.numel() for p in original.parameters())
    info, record = get_info(name), timm.models.get_pretrained_cfg(name)
    assert info.timm_name == f"{name}.{record.tag}"
    assert info.image_size == record.input_size[1]
    np.testing.assert_allclose((info.mean, info.std), (record.mean, record.std))
    assert (info.crop, info.interpolation) == (record.crop_pct, record.interpolation)
