"""Which network of a family a state dict is of, to tell where it does not fit the one it is for."""

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from plankton_jax.errors import UserError
from plankton_jax.models import Classifier, get_info, list_models
from plankton_jax.weights.contents import source_pool
from plankton_jax.weights.placing import flat_targets, placed, present_names, rules_of
from plankton_jax.weights.sources import shapes_of

MOST = 10  # lines that are shown
_RESIZED = ("position_embedding", "relative_position_table", "input_convolution")


@contextlib.contextmanager
def explaining(state_dict: Mapping[str, np.ndarray], name: str | None) -> Iterator[None]:
    """Puts what weights look like before the messages of why they do not fit, and cuts those short.

    The lines that stay are those of the network's ends: they are more telling than its many blocks.

    Args:
      name: of the network that they are meant for; None: it has none.
    """
    try:
        yield
    except UserError as error:
        problems = sorted(error.problems, key=_depth)
        rest = problems[MOST:]
        shown = problems[:MOST] + ([f"weights: and {len(rest)} more of the kind."] if rest else [])
        names = alike(state_dict, name) if name else []
        if names and name not in names:
            shown = [
                f"weights: these look like {' or '.join(names[:3])}, and {name} is wanted. Name "
                "that network, or take weights of the one that is wanted.",
                *shown,
            ]
        raise UserError(*shown) from error


def alike(state_dict: Mapping[str, np.ndarray], name: str) -> list[str]:
    """The networks of this one's family whose parameters a state dict has, all of them and no
    more; the head, and what fits itself to the images, do not count. Similar names come first."""
    family = get_info(name).family
    others = [other for other in list_models() if get_info(other).family == family]
    found = [other for other in others if _is_of(state_dict, other)]
    return sorted(found, key=lambda other: -difflib.SequenceMatcher(None, name, other).ratio())


def _is_of(state_dict: Mapping[str, np.ndarray], name: str) -> bool:
    """Whether the parameters of a network are those of a state dict."""
    model = shapes_of(name, 1, None, 3)
    pool = source_pool(state_dict, model)
    try:
        model = shapes_of(name, 1, None, 3, pool) if pool else model
    except UserError:  # a network that does not pool so
        return False
    return _fits(present_names(state_dict, model), model)


def _fits(state_dict: Mapping[str, np.ndarray], model: Classifier) -> bool:
    """Whether every key has a place of its size, and every place a key."""
    rules, targets = rules_of(model), flat_targets(model)
    filled = set()
    for key, value in state_dict.items():
        rule, path = placed(key, rules, targets)
        if rule is None:
            return False
        filled.add(path)
        free = not path or path.startswith("head/") or rule.transform in _RESIZED
        if not free and _sides(value) != _sides(targets[path]):
            return False
    return all(path in filled or path.startswith("head/") for path in targets)


def _sides(value: Any) -> list[int]:
    """The axes of an array in whichever layout, without those of length 1."""
    return sorted(side for side in value.shape if side > 1)


def _depth(problem: str) -> int:
    """How far within the network what a message is about lies; 0 for what is about all of it."""
    return problem.removeprefix("weights: ").split(" ")[0].count(".")
