"""Every family of backbones against timm's stored numbers; needs neither timm nor torch."""

import functools
import pathlib

import numpy as np
import pytest
from golden.cases import assert_equal_features, gradient_bounds, relative, run_ours, stored_cases
from golden.weights import checksums, thinned

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = stored_cases()


@functools.cache
def _ours(name):
    return run_ours(CASES[name], name)


@functools.cache
def _stored(name):
    """What is stored of a case, in the shape of `run_ours`."""
    family, _, case = name.partition("/")
    with np.load(GOLDEN / f"{family}.npz") as arrays:
        found = {
            key.removeprefix(f"{case}/"): arrays[key]
            for key in arrays
            if key.startswith(f"{case}/")
        }
    count = sum(key.startswith("stage_") for key in found)
    buffers = {key.removeprefix("buffer/"): v for key, v in found.items() if "buffer/" in key}
    stages = [found[f"stage_{number}"] for number in range(count)]
    return found | {"stages": stages, "buffers": buffers}


@pytest.mark.parametrize("name", CASES)
def test_features_logits_and_loss_equal_timms(name):
    found, stored = _ours(name), _stored(name)
    images = len(stored["stages"][0])
    kept = CASES[name].kept
    maps = [
        thinned(f"stage_{number}", stage[:1] if kept else stage[:images], kept)
        for number, stage in enumerate(found["stages"])
    ]
    found = found | {"pooled": thinned("pooled", found["pooled"], kept)}
    assert_equal_features(found | {"stages": maps}, stored)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_timms(name):
    found, expected = checksums(_ours(name)["gradients"]), _stored(name)
    assert sorted(found) == expected["gradient_names"].tolist()
    sums = expected["gradient_checksums"]
    bounds = gradient_bounds(sums[:, 0], expected["gradient_rounding"])
    for key, each, bound in zip(sorted(found), sums, bounds, strict=True):
        np.testing.assert_allclose(found[key], each, rtol=0, atol=bound, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_batch_statistics_move_as_timms(name):
    found, expected = _ours(name)["buffers"], _stored(name)["buffers"]
    assert found.keys() == expected.keys()
    for key in found:
        value = thinned(f"buffer/{key}", found[key], CASES[name].kept)
        assert relative(value, expected[key]) < 1e-3, key
