"""Random weights under timm's names for any registered network, and which networks to take."""

import functools
import pathlib

import jax
import numpy as np
import safetensors.numpy
from golden.weights import generator

from plankton_jax.models import flatten_paths, get_info, list_models, split_model
from plankton_jax.weights import to_timm
from plankton_jax.weights.sources import shapes_of

# The smallest of each kind; a family without one here is tested with its first name.
SMALL = (
    "test_vit",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "convnext_atto",
    "convnextv2_atto",
    "tf_efficientnetv2_b0",
    "efficientnetv2_rw_s",
    "legacy_xception",
    "xception41",
    "inception_v3",
    "inception_v4",
    "resnet10t",
    "resnet50d",
)


def networks() -> list[str]:
    """At least one name of every family that timm has too."""
    public = [name for name in list_models() if get_info(name).timm_name]
    chosen = [name for name in SMALL if name in public]
    families = {get_info(name).family for name in chosen}
    for name in public:
        if get_info(name).family not in families:
            chosen.append(name)
            families.add(get_info(name).family)
    return chosen


@functools.cache
def _shapes(name: str, num_classes: int, pool: str) -> dict[str, tuple[int, ...]]:
    """The shapes of timm's state dict."""
    model = shapes_of(name, num_classes, None, 3, pool)
    trees = [
        jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), tree)
        for tree in split_model(model)[1:]
    ]
    assert flatten_paths(trees[0])
    return {key: value.shape for key, value in to_timm(*trees, model).items()}


def random_state_dict(name: str, num_classes: int = 5, *, pool: str = "") -> dict[str, np.ndarray]:
    """Values that differ from name to name and place to place, cheap to draw."""
    return {
        key: np.resize(generator(key).normal(size=1009).astype(np.float32) * 0.1, shape)
        for key, shape in _shapes(name, num_classes, pool).items()
    }


def write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> pathlib.Path:
    """A safetensors file without metadata."""
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    return path


def equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    """The same names and the same bits."""
    return found.keys() == expected.keys() and all(
        np.asarray(found[key]).dtype == np.asarray(expected[key]).dtype
        and np.array_equal(found[key], expected[key])
        for key in expected
    )
