"""What may be wrong with a configuration, each setting alone and all together. Pure and light."""

import dataclasses
import math
import typing
from typing import Any

from plankton_jax.config import Config, walk
from plankton_jax.consistency import joint_problems
from plankton_jax.errors import near_miss


def all_problems(config: Config) -> list[str]:
    """One line for every setting that is wrong by itself or beside others."""
    settings = list(walk(config))
    problems = [
        problem
        for name, field, value in settings
        for problem in _value_problems(name, field, value)
    ]
    if all(_has_type(value, field.type) for _, field, value in settings):
        problems += joint_problems(config)
    return problems


def unknown_fields(config: Any, prefix: str = "") -> list[str]:
    """One line for every attribute that a configuration file set and that is no setting."""
    fields = {field.name for field in dataclasses.fields(config)}
    problems = [
        f"config.{prefix}{name}: there is no such setting. {near_miss(name, sorted(fields))}"
        for name in vars(config)
        if name not in fields
    ]
    for name in sorted(fields):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            problems += unknown_fields(value, f"{prefix}{name}.")
    return problems


def _value_problems(name: str, field: dataclasses.Field, value: Any) -> list[str]:
    """What is wrong with one value taken alone."""
    name = f"config.{name}"
    if not _has_type(value, field.type):
        return [f"{name}: found {value!r}; allowed: {_type_name(field.type)}."]
    allowed, low, high = (field.metadata.get(key) for key in ("allowed", "low", "high"))
    if allowed and value not in allowed:
        return [f'{name}: found "{value}". {near_miss(value, allowed)}']
    if not all(math.isfinite(number) for number in _numbers(value)):
        return [f"{name}: found {value}; allowed: finite numbers."]
    if low is not None and value < low:
        return [f"{name}: found {value}; allowed: {low} or more."]
    if high is not None and value > high:
        return [f"{name}: found {value}; allowed: {high} or less."]
    return []


def _numbers(value: Any) -> list[float]:
    """The floats of a value, those within tuples too."""
    if isinstance(value, (tuple, list)):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, float) else []


def _has_type(value: Any, kind: Any) -> bool:
    """Whether `value` is of the annotated type; an int passes for a float, a bool for neither."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is object:  # a name, or the function or class itself
        return isinstance(value, str) or callable(value)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        if arguments[-1] is Ellipsis:
            return all(_has_type(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_has_type, value, arguments))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _type_name(kind: Any) -> str:
    """The type as a reader of a message would name it."""
    if kind is object:
        return "a name, or a function or class"
    return getattr(kind, "__name__", str(kind)) if not typing.get_args(kind) else str(kind)
