"""Intermediates behind the final norm against timm as it runs here."""

import dataclasses
import functools

import numpy as np
import pytest

pytestmark = pytest.mark.parity
timm_support = pytest.importorskip("timm_support", reason="torch and timm are not installed")
from golden.cases import Case, relative  # noqa: E402
from golden.swin_cases import CASES as SWIN_CASES  # noqa: E402
from golden.weights import random_weights  # noqa: E402
from timm_support import timm, torch  # noqa: E402

from plankton_jax.models import apply_features, split_model  # noqa: E402
from plankton_jax.models._registry import find  # noqa: E402
from plankton_jax.weights import from_timm  # noqa: E402


def _vit_case(name, **options):
    entry = find(name).build
    build = functools.partial(entry.func, dataclasses.replace(entry.args[0], depth=3))
    pool = {"pool": "mean"} if options.get("global_pool") == "avg" else {}
    return Case(name, {"img_size": 64, "depth": 3, **options}, build, 64, options=pool)


CASES = {
    "vit": _vit_case("vit_tiny_patch16_224"),
    "vit mean pooled": _vit_case("vit_tiny_patch16_224", global_pool="avg"),
    "distilled": _vit_case("deit_tiny_distilled_patch16_224"),
    "swin": SWIN_CASES["whole"],
    "swin padded": SWIN_CASES["padded"],
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("indices", [(0, 1), (1,), (0, -1)])
def test_intermediates_equal_timms(name, norm, indices):
    case = CASES[name]
    original = case.timm_model(timm).eval()
    weights = random_weights(timm_support.shapes(original))
    timm_support.load(original, weights)
    images, _ = case.inputs(name)
    with torch.no_grad():
        expected = original.forward_intermediates(
            torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
            indices=list(indices),
            norm=norm,
            intermediates_only=True,
        )
    model = case.model()
    params, state = from_timm(weights, model)
    graphdef = split_model(model)[0]
    found = apply_features(graphdef, params, state, images, indices=indices, norm=norm).stages
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(np.asarray(ours), theirs.numpy().transpose(0, 2, 3, 1)) < 1e-4
