"""timm's state dicts to this package's parameters and back, bit for bit.

Every key of the source and every parameter of the network is accounted for, or the conversion
fails and lists both. Works on arrays in memory; reads and writes no files.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from plankton_jax.errors import raise_all
from plankton_jax.models import Classifier, flatten_paths, split_model, unflatten_paths
from plankton_jax.weights.placing import (
    absent_parts,
    is_head,
    pattern_of,
    placed,
    present_names,
    rules_of,
)
from plankton_jax.weights.resample import resize_position_embedding, resize_relative_table
from plankton_jax.weights.rules import OptionalPart

PyTree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Transform:
    """How one array changes: `inward(value, target shape, backbone)` and `outward(value)`."""

    inward: Callable[[np.ndarray, tuple[int, ...], Any], np.ndarray]
    outward: Callable[[np.ndarray], np.ndarray]


def _input_convolution(value: np.ndarray, shape: tuple[int, ...], backbone: Any) -> np.ndarray:
    """A first convolution; three colour channels become one by their sum, as in timm.

    The sum gives what a grey image repeated over the three channels would have given.
    """
    del backbone
    kernel = value.transpose(2, 3, 1, 0)
    if kernel.shape[2] == 3 and shape[2] == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel


def _position_embedding(value: np.ndarray, shape: tuple[int, ...], backbone: Any) -> np.ndarray:
    """Position embeddings at the network's grid; left alone where theirs is no square, or where
    another axis than that of the patches differs."""
    prefix = shape[1] - backbone.grid**2
    patches = value.shape[1] - prefix
    fits = value.shape[::2] == shape[::2]
    if not fits or value.shape == shape or patches < 1 or math.isqrt(patches) ** 2 != patches:
        return value
    return resize_position_embedding(value, backbone.grid, prefix)


def _relative_position_table(value: np.ndarray, shape: tuple[int, ...], backbone: Any):
    """Relative position biases at the network's window; left alone where theirs is no square."""
    del backbone
    span = math.isqrt(value.shape[0])
    if value.shape == shape or span**2 != value.shape[0] or span % 2 == 0:
        return value
    return resize_relative_table(value, (math.isqrt(shape[0]) + 1) // 2)


def _pointwise(value: np.ndarray, shape: tuple[int, ...], backbone: Any) -> np.ndarray:
    """A linear layer's or a 1x1 convolution's weights, as whichever of them the network has."""
    del backbone
    if value.ndim not in (2, 4):
        return value
    kernel = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
    fits = kernel.size == math.prod(shape) and kernel.shape[-2:] == shape[-2:]
    return kernel.reshape(shape) if fits else kernel


def _flat(value: np.ndarray, shape: tuple[int, ...], backbone: Any) -> np.ndarray:
    """A vector that a file may hold with more axes."""
    del shape, backbone
    return value.reshape(-1)


TRANSFORMS = {
    "same": Transform(lambda value, *_: value, lambda value: value),
    "transpose": Transform(lambda value, *_: value.T, lambda value: value.T),
    "convolution": Transform(
        lambda value, *_: value.transpose(2, 3, 1, 0), lambda value: value.transpose(3, 2, 0, 1)
    ),
    "input_convolution": Transform(_input_convolution, lambda value: value.transpose(3, 2, 0, 1)),
    "pointwise": Transform(
        _pointwise, lambda value: value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
    ),
    "flat": Transform(_flat, lambda value: value),
    "position_embedding": Transform(_position_embedding, lambda value: value),
    "relative_position_table": Transform(_relative_position_table, lambda value: value),
}


def from_timm(
    state_dict: Mapping[str, np.ndarray], model: Classifier, *, with_head: bool = True
) -> tuple[PyTree, PyTree]:
    """The (params, model_state) of `model` with the values of a timm state dict, as NumPy arrays.

    Position embeddings and relative position biases are resized to the network's grid and windows,
    and a first layer for three channels is summed for a network of one. Names of older versions of
    timm are understood. Parts that public files of the family may lack keep the model's own values.

    Args:
      with_head: False leaves the source's head out and keeps the model's own, for other classes.

    Raises:
      UserError: keys without a place, parameters without a key, arrays of another shape, values
        that are not finite; all of them are listed.
    """
    rules = rules_of(model)
    state_dict = present_names(state_dict, model)
    raise_all([told for name in state_dict for told in not_real(name, state_dict[name])])
    _, params, model_state = split_model(model)
    targets = flatten_paths(params) | flatten_paths(model_state)
    absent = absent_parts(state_dict, model, targets)
    filled, unplaced, problems = {}, [], []
    for name, value in state_dict.items():
        rule, path = placed(name, rules, targets)
        if rule is None:
            unplaced.append(name)
        elif path in filled:
            problems.append(f"weights: two keys, one of them {name}, would fill {path}.")
        elif path and (with_head or not path.startswith("head/")):
            inward = TRANSFORMS[rule.transform].inward
            shape = targets[path].shape
            filled[path] = _inward(inward, np.asarray(value), shape, model.backbone)
            problems += not_finite(name, filled[path])
            if filled[path].shape != shape:
                problems.append(
                    f"weights: {name} has shape {np.shape(value)}, which does not become the "
                    f"{shape} of {path}." + (_HEAD_HINT if path.startswith("head/") else "")
                )
    filled |= {path: np.asarray(v) for path, v in targets.items() if path.startswith(_OURS)}
    filled |= {path: _own_value(path, targets[path], part) for path, part in absent.items()}
    if not with_head:
        unplaced = [name for name in unplaced if not is_head(name, rules)]
        filled |= {path: np.asarray(v) for path, v in targets.items() if path.startswith("head/")}
    raise_all(_leftovers(unplaced, sorted(targets.keys() - filled.keys())) + problems)
    return _like(params, filled), _like(model_state, filled)


def to_timm(
    params: PyTree, model_state: PyTree, model: Classifier, *, with_head: bool = True
) -> dict[str, np.ndarray]:
    """The values under timm's names and in timm's layouts; the reverse of `from_timm`.

    `model` says of which family they are; its own values are not read.

    Raises:
      UserError: parameters that timm has no name for; all of them are listed.
    """
    rules = rules_of(model)
    state_dict, unnamed = {}, []
    for path, value in (flatten_paths(params) | flatten_paths(model_state)).items():
        if path.startswith(_OURS) or (path.startswith("head/") and not with_head):
            continue
        found = next(((r, m) for r in rules if (m := pattern_of(r.target).fullmatch(path))), None)
        if found is None:
            unnamed.append(path)
            continue
        rule, match = found
        outward = TRANSFORMS[rule.transform].outward(np.asarray(value))
        state_dict[rule.source.format(**match.groupdict())] = np.ascontiguousarray(outward)
    raise_all(_leftovers([], [], unnamed))
    return state_dict


# What timm's networks do not have: it keeps its own values and is left out.
_OURS = "measurements/"

_HEAD_HINT = " For other classes leave the head out (with_head=False, --without-head)."


def _own_value(path: str, leaf: Any, part: OptionalPart) -> np.ndarray:
    """The network's own value of a parameter, or the initial one of a network of shapes alone."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return np.full(leaf.shape, part.initial[path.rpartition("/")[2]], leaf.dtype)
    return np.asarray(leaf)


def not_real(name: str, value: np.ndarray) -> list[str]:
    """Says of an array that its numbers are complex."""
    if not np.iscomplexobj(value):
        return []
    return [f"weights: {name}: found complex numbers; allowed: real ones. Save its real part."]


def not_finite(name: str, value: np.ndarray) -> list[str]:
    """Says how many values of an array are NaN or infinite."""
    if value.dtype.kind != "f" or np.isfinite(value).all():
        return []
    count = int(value.size - np.isfinite(value).sum())
    return [f"weights: {name}: {count} of {value.size} values are NaN or infinite."]


def _inward(inward: Callable, value: np.ndarray, shape: tuple[int, ...], backbone: Any):
    """The transformed value, or the value itself where it has not even the rank."""
    if value.ndim != len(shape) and inward not in (_pointwise, _flat):
        return value
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        return np.ascontiguousarray(inward(value, shape, backbone), dtype=np.float32)


def _leftovers(
    unplaced: Sequence[str], unfilled: Sequence[str], unnamed: Sequence[str] = ()
) -> list[str]:
    """Complaints about what nothing corresponds to."""
    lists = (
        ("keys of the source that the network has no place for", unplaced),
        ("parameters of the network that the source does not fill", unfilled),
        ("parameters of the network that timm has no name for", unnamed),
    )
    hint = _HEAD_HINT if any(path.startswith("head/") for path in [*unfilled, *unnamed]) else ""
    return [f"weights: {what}: {', '.join(names)}.{hint}" for what, names in lists if names]


def _like(tree: PyTree, flat: Mapping[str, np.ndarray]) -> PyTree:
    """The leaves of `tree` from `flat`."""
    return unflatten_paths({path: flat[path] for path in flatten_paths(tree)})
