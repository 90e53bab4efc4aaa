"""What a timm state dict is for, and what of it and of a network has no counterpart."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from plankton_jax.models import Classifier, flatten_paths, split_model
from plankton_jax.weights.placing import absent_parts, flat_targets, pattern_of, placed, rules_of


def left_out(state_dict: Mapping[str, np.ndarray], model: Classifier) -> list[str]:
    """The keys that `from_timm` drops as the network has no part for them, but for constants."""
    rules, targets = rules_of(model), flat_targets(model)
    places = {name: placed(name, rules, targets) for name in state_dict}
    return [
        name
        for name, (rule, path) in places.items()
        if rule and not path and name.rpartition(".")[2] not in _CONSTANTS
    ]


_CONSTANTS = ("num_batches_tracked", "relative_position_index", "attn_mask")


def kept_parts(state_dict: Mapping[str, Any], model: Classifier) -> list[str]:
    """The parts of the network that keep the values they have as the state dict lacks them."""
    absent = absent_parts(state_dict, model, flat_targets(model))
    parts = {"/".join(path.split("/")[:2]): None for path in absent}
    return list(parts)


def source_classes(state_dict: Mapping[str, np.ndarray], model: Classifier) -> int:
    """The classes of a state dict's head, be it whole or a part; 0 where it has none."""
    rules = [rule for rule in rules_of(model) if rule.target.startswith("head/")]
    shapes = {r.target: np.shape(state_dict[r.source]) for r in rules if r.source in state_dict}
    order = ("head/linear/bias", "head/linear/kernel", *shapes)
    return next((shapes[path][0] for path in order if shapes.get(path)), len(shapes))


def fits_head(state_dict: Mapping[str, np.ndarray], model: Classifier, num_classes: int) -> bool:
    """Whether a state dict has a head of these classes and the network one that timm has too."""
    patterns = [pattern_of(rule.target) for rule in rules_of(model)]
    own = [path for path in flatten_paths(split_model(model)[1]) if path.startswith("head/")]
    known = all(any(pattern.fullmatch(path) for pattern in patterns) for path in own)
    return known and source_classes(state_dict, model) == num_classes


def source_channels(state_dict: Mapping[str, np.ndarray], model: Classifier) -> int:
    """The channels of the images that a state dict is for; 0 where it does not say."""
    rules = [rule for rule in rules_of(model) if rule.transform == "input_convolution"]
    fits = (value for rule in rules for name, value in state_dict.items() if rule.source == name)
    return next((int(np.shape(value)[1]) for value in fits if np.ndim(value) == 4), 0)


def source_pool(state_dict: Mapping[str, np.ndarray], model: Classifier) -> str:
    """What a state dict's head reads, "token" or "mean"; "" where the family has one way alone."""
    if not any(rule.source == "fc_norm.weight" for rule in rules_of(model)):
        return ""
    mean = "fc_norm.weight" in state_dict and "norm.weight" not in state_dict
    return "mean" if mean else "token"
