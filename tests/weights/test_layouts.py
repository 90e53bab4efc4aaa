"""What other programs wrap a state dict in, taken off or refused."""

import numpy as np
import pytest

from plankton_jax.errors import UserError
from plankton_jax.weights.layouts import unwrap, without_prefixes

BARE = {"head.weight": np.ones(2)}


@pytest.mark.parametrize(
    ("checkpoint", "where"),
    [
        (BARE, ""),
        ({"model": BARE, "epoch": 3}, "model"),
        ({"state_dict": {"x": 1}, "state_dict_ema": BARE}, "state_dict_ema"),
        ({"state_dict": {"model": BARE}, "optimizer": {"state": {}}}, "state_dict/model"),
        ({"model_state": BARE, "args": None}, "model_state"),
    ],
)
def test_the_state_dict_is_found(checkpoint, where):
    assert unwrap(checkpoint) == (BARE, where)


@pytest.mark.parametrize(
    ("checkpoint", "found"), [(3, "int"), ({}, "nothing"), ({"model": {}}, "nothing")]
)
def test_what_is_no_state_dict_is_refused(checkpoint, found):
    with pytest.raises(UserError, match=f"found {found}; allowed: a state dict"):
        unwrap(checkpoint)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.module.", "model.", "net.backbone.", "state_dict.model."]
)
def test_prefixes_are_taken_off(prefix):
    assert without_prefixes({f"{prefix}norm.weight": 1, "head.bias": 2}) == {
        "norm.weight": 1,
        "head.bias": 2,
    }


def test_two_keys_of_one_name_are_refused():
    with pytest.raises(UserError, match="norm.bias and model.norm.bias both stand for norm.bias"):
        without_prefixes({"norm.bias": 1, "model.norm.bias": 2})
