"""Conversion from and to timm's state dicts: bit for bit, or refused with both lists."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from golden.variants import VIT_VARIANTS
from golden.weights import random_weights

from plankton_jax.errors import UserError
from plankton_jax.models import Classifier, create_model, flatten_paths, split_model
from plankton_jax.weights import from_timm, to_timm
from plankton_jax.weights.families import FAMILIES
from plankton_jax.weights.resample import resize_position_embedding
from plankton_jax.weights.rules import Rule
from plankton_jax.weights.timm_names import TRANSFORMS


def _state_dict(model):
    """Random weights for a network, in timm's naming."""
    named = to_timm(*split_model(model)[1:], model)
    return random_weights({name: value.shape for name, value in named.items()})


@pytest.mark.parametrize("name", VIT_VARIANTS)
def test_there_and_back_is_bit_exact(name):
    model = VIT_VARIANTS[name].model()
    source = _state_dict(model)
    params, state = from_timm(source, model)
    expected = flatten_paths(split_model(model)[1])
    assert {path: value.shape for path, value in flatten_paths(params).items()} == {
        path: value.shape for path, value in expected.items()
    }
    back = to_timm(params, state, model)
    assert back.keys() == source.keys()
    assert all(np.array_equal(back[key], source[key]) for key in source)


def test_keys_without_a_place_and_parameters_without_a_key_are_all_listed():
    model = VIT_VARIANTS["class_token"].model()
    source = _state_dict(model)
    del source["blocks.1.attn.qkv.weight"], source["cls_token"]
    source |= {"blocks.1.attn.qkw.weight": np.zeros((2, 2)), "blocks.9.norm1.bias": np.zeros(2)}
    with pytest.raises(UserError) as error:
        from_timm(source, model)
    extra, missing = error.value.problems
    assert "blocks.1.attn.qkw.weight, blocks.9.norm1.bias" in extra
    assert "backbone/blocks/1/attn/qkv/kernel, backbone/cls_token" in missing


def test_other_shapes_are_named():
    model = VIT_VARIANTS["class_token"].model()
    source = _state_dict(model)
    source["norm.bias"] = np.zeros(3, np.float32)
    source["pos_embed"] = np.zeros((1, 12, 48), np.float32)  # 11 patches are no square
    source["patch_embed.proj.weight"] = np.zeros((48, 192), np.float32)
    with pytest.raises(UserError) as error:
        from_timm(source, model)
    assert {problem.split()[1] for problem in error.value.problems} == {
        "norm.bias",
        "patch_embed.proj.weight",
        "pos_embed",
    }


def test_a_head_of_other_classes_is_refused_or_left_out():
    variant = VIT_VARIANTS["distilled"]
    source = _state_dict(variant.model())
    model = dataclasses.replace(variant, num_classes=4).model()
    with pytest.raises(UserError, match="with_head=False"):
        from_timm(source, model)
    params, state = from_timm(source, model, with_head=False)
    own = split_model(model)[1]["head"]
    assert jax.tree.all(jax.tree.map(np.array_equal, params["head"], own))
    without = {key: value for key, value in source.items() if not key.startswith("head")}
    back = to_timm(params, state, model, with_head=False)
    assert back.keys() == without.keys()
    assert all(np.array_equal(back[key], without[key]) for key in without)
    headless, _ = from_timm(without, model, with_head=False)
    assert jax.tree.all(jax.tree.map(np.array_equal, headless, params))


def test_measurements_keep_their_own_values_and_have_no_name_in_timm():
    options = {"image_size": 32, "key": jax.random.key(0)}
    plain = create_model("vit_tiny_patch16_224", 3, **options)
    measured = create_model("vit_tiny_patch16_224", 3, num_measurements=2, **options)
    source = _state_dict(plain)
    params, state = from_timm(source, measured)
    own = flatten_paths(split_model(measured)[1]["measurements"])
    found = flatten_paths(params["measurements"])
    assert all(np.array_equal(found[path], own[path]) for path in own)
    back = to_timm(params, state, measured)
    assert all(np.array_equal(back[key], source[key]) for key in source)
    assert back.keys() == source.keys()


def test_weights_of_one_pooling_start_the_other():
    token = VIT_VARIANTS["class_token"]
    source = _state_dict(token.model())
    mean = dataclasses.replace(token, config=dataclasses.replace(token.config, pool="mean")).model()
    params, state = from_timm(source, mean)
    assert np.array_equal(params["backbone"]["fc_norm"]["scale"], source["norm.weight"])
    assert "fc_norm.weight" in to_timm(params, state, mean)


def test_half_precision_becomes_float32():
    model = VIT_VARIANTS["class_token"].model()
    halves = {key: value.astype(np.float16) for key, value in _state_dict(model).items()}
    params, _ = from_timm(halves, model)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    kernel = params["backbone"]["blocks"]["0"]["mlp"]["fc1"]["kernel"]
    assert np.array_equal(kernel, halves["blocks.0.mlp.fc1.weight"].T)


def test_three_channels_are_summed_for_one():
    colour = VIT_VARIANTS["class_token"]
    source = _state_dict(colour.model())
    params, _ = from_timm(source, dataclasses.replace(colour, in_channels=1).model())
    summed = source["patch_embed.proj.weight"].sum(axis=1, keepdims=True).transpose(2, 3, 1, 0)
    np.testing.assert_allclose(params["backbone"]["patch_embed"]["kernel"], summed, atol=1e-6)


def test_a_family_without_names_in_timm_is_refused():
    unknown = Classifier(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), None)
    with pytest.raises(UserError, match="names in timm for a Linear; .* VisionTransformer"):
        from_timm({}, unknown)


def test_rules_name_known_transforms_and_dropped_keys_are_borne(monkeypatch):
    for rules in FAMILIES.values():
        assert all(rule.transform in TRANSFORMS for rule in rules)
    model = VIT_VARIANTS["class_token"].model()
    kind = type(model.backbone)
    monkeypatch.setitem(FAMILIES, kind, (*FAMILIES[kind], Rule("blocks.{block}.attn.mask", "")))
    source = _state_dict(model) | {"blocks.0.attn.mask": np.zeros((1, 1))}
    from_timm(source, model)


def test_resizing_keeps_prefix_tokens_and_constant_grids():
    embedding = np.concatenate([np.full((1, 2, 3), 7.0), np.full((1, 25, 3), 0.5)], axis=1)
    for grid in (2, 5, 9):
        resized = resize_position_embedding(embedding.astype(np.float32), grid, 2)
        assert resized.shape == (1, 2 + grid**2, 3)
        np.testing.assert_array_equal(resized[:, :2], 7.0)
        np.testing.assert_allclose(resized[:, 2:], 0.5, rtol=1e-6)
