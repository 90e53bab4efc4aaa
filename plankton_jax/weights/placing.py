"""Which rule a name of a timm state dict falls under, and which path of the network it fills."""

import functools
import re
import string
from collections.abc import Mapping
from typing import Any

import jax

from plankton_jax.errors import UserError
from plankton_jax.models import Classifier, flatten_paths, split_model
from plankton_jax.weights.families import FAMILIES
from plankton_jax.weights.families.old_names import OLD_NAMES
from plankton_jax.weights.families.optional_parts import OPTIONAL_PARTS
from plankton_jax.weights.rules import OldNames, OptionalPart, Rule


def rules_of(model: Classifier) -> tuple[Rule, ...]:
    """The table of the model's family."""
    for kind, rules in FAMILIES.items():
        if isinstance(model.backbone, kind):
            return rules
    raise UserError(
        f"weights: there are no names in timm for a {type(model.backbone).__name__}; allowed: "
        + ", ".join(kind.__name__ for kind in FAMILIES)
    )


def flat_targets(model: Classifier) -> dict[str, Any]:
    """Parameters and model state of the network by path."""
    _, params, model_state = split_model(model)
    return flatten_paths(params) | flatten_paths(model_state)


@functools.cache
def pattern_of(template: str) -> re.Pattern[str]:
    """The expression that a template's names match, each placeholder a group."""
    parts = string.Formatter().parse(template)
    return re.compile(
        "".join(
            re.escape(literal) + (f"(?P<{field}>[^./]+)" if field else "")
            for literal, field, _, _ in parts
        )
    )


def placed(
    name: str, rules: tuple[Rule, ...], targets: Mapping[str, Any]
) -> tuple[Rule | None, str]:
    """The rule of a source key and the path it fills; (None, "") where there is none."""
    for rule in rules:
        match = pattern_of(rule.source).fullmatch(name)
        if match:
            path = rule.target.format(**match.groupdict())
            if not path or path in targets:
                return rule, path
    return None, ""


def present_names(state_dict: Mapping[str, Any], model: Classifier) -> Mapping[str, Any]:
    """The state dict under the names of today's timm."""
    for old in OLD_NAMES.get(type(model.backbone), ()):
        if old.marker in state_dict:
            state_dict = {_present(name, old): value for name, value in state_dict.items()}
    return state_dict


def _present(name: str, old: OldNames) -> str:
    """Today's name of one key."""
    match = pattern_of(old.source).fullmatch(name)
    if not match:
        return name
    parts = match.groupdict()
    moved = {part: str(int(parts[part]) + by) for part, by in old.numbers.items()}
    return old.source.format(**parts | moved)


def absent_parts(
    state_dict: Mapping[str, Any], model: Classifier, targets: Mapping[str, Any]
) -> dict[str, OptionalPart]:
    """The paths of the network that the state dict need not fill, as it lacks their part.

    In a network of shapes alone they are those whose initial value the part says.
    """
    parts = OPTIONAL_PARTS.get(type(model.backbone), ())
    absent = [part for part in parts if not any(n.startswith(part.sources) for n in state_dict)]
    return {
        path: part
        for path, leaf in targets.items()
        for part in absent
        if path.startswith(part.targets)
        and (not isinstance(leaf, jax.ShapeDtypeStruct) or path.split("/")[-1] in part.initial)
    }


def is_head(name: str, rules: tuple[Rule, ...]) -> bool:
    """Whether a source key belongs to the head."""
    return any(r.target.startswith("head/") and pattern_of(r.source).fullmatch(name) for r in rules)
