"""What may be wrong with a configuration, each setting alone and all together. Pure and light."""

import dataclasses
import math
import re
import typing
from typing import Any

from plankton_jax.config import (
    FEATURE,
    KERAS_HUB,
    LOSSES,
    MEASUREMENTS,
    METRICS,
    SCHEDULES,
    Config,
    walk,
)
from plankton_jax.errors import near_miss
from plankton_jax.names import BACKBONES, BRANCH_HEADS, HEADS
from plankton_jax.pretrained import PRETRAINED

UNSMOOTHED = ("hierarchical_cross_entropy", "tree_soft_labels")


def all_problems(config: Config) -> list[str]:
    """One line for every setting that is wrong by itself or beside others."""
    settings = list(walk(config))
    problems = [
        problem
        for name, field, value in settings
        for problem in _value_problems(name, field, value)
    ]
    if all(_has_type(value, field.type) for _, field, value in settings):
        problems += _joint_problems(config)
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
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{name}: found {value}; allowed: a finite number."]
    if low is not None and value < low:
        return [f"{name}: found {value}; allowed: {low} or more."]
    if high is not None and value > high:
        return [f"{name}: found {value}; allowed: {high} or less."]
    return []


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


def _joint_problems(config: Config) -> list[str]:
    """What is wrong with settings taken together, and with names that need more than a list."""
    problems = []
    for name, value, allowed in (
        ("model.name", config.model.name, BACKBONES),
        ("model.head", config.model.head, HEADS),
        ("loss.name", config.loss.name, LOSSES),
        ("optim.schedule", config.optim.schedule, SCHEDULES),
    ):
        if isinstance(value, str) and value not in allowed:
            if name == "model.name" and value.startswith(KERAS_HUB):
                continue  # checked where the backbone is made
            problems.append(f'config.{name}: found "{value}". {near_miss(value, allowed)}')
    for name, value in (
        ("checkpoint.monitor", config.checkpoint.monitor),
        ("optim.plateau_monitor", config.optim.plateau_monitor),
    ):
        metric = value.rpartition("/")[2]
        if metric not in METRICS:
            problems.append(f'config.{name}: found "{value}". {near_miss(metric, METRICS)}')
    for name, value in (
        ("epochs", config.train.epochs),
        ("evaluate_every_epochs", config.train.evaluate_every_epochs),
    ):
        if value <= 0:
            problems.append(f"config.train.{name}: found {value}; allowed: more than 0.")
    if config.optim.learning_rate <= 0:
        problems.append(
            f"config.optim.learning_rate: found {config.optim.learning_rate}; allowed: more than 0."
        )
    if config.model.in_channels not in (1, 3):
        problems.append(
            f"config.model.in_channels: found {config.model.in_channels}; allowed: 1 or 3."
        )
    if config.model.pool not in ("", "token", "mean"):
        problems.append(
            f'config.model.pool: found "{config.model.pool}"; allowed: "", "token" or "mean".'
        )
    problems += [
        f'config.data.measurements: found "{name}". {near_miss(name, MEASUREMENTS)}'
        for name in config.data.measurements
        if name not in MEASUREMENTS and not name.startswith(FEATURE)
    ]
    problems += _weights_problems(config)
    problems += _auxiliary_problems(config)
    problems += _level_problems(config)
    problems += _fraction_problems(config.split.fractions)
    for name in ("learning_rate_rules", "weight_decay_rules"):
        for pattern, _ in getattr(config.optim, name):
            problems += _pattern_problem(f"config.optim.{name}", pattern)
    if config.optim.schedule == "step" and not config.optim.step_epochs:
        problems.append(
            "config.optim.step_epochs: found (); allowed with schedule=step: one epoch or more."
        )
    problems += _ignored_problems(config)
    if (
        config.optim.warmup_epochs >= config.train.epochs
        and config.optim.schedule != "plateau"
        and isinstance(config.optim.schedule, str)
    ):
        problems.append(
            f"config.optim.warmup_epochs: found {config.optim.warmup_epochs}; allowed: less than "
            f"config.train.epochs, which is {config.train.epochs}."
        )
    return problems


def _pattern_problem(name: str, pattern: str) -> list[str]:
    """Says where a regular expression is none."""
    try:
        re.compile(pattern)
    except re.error as error:
        return [f'{name}: found "{pattern}", which is no regular expression ({error}).']
    return []


def _weights_problems(config: Config) -> list[str]:
    """What is wrong with the weights that a run is to start from."""
    name, backbone, problems = config.model.pretrained, config.model.name, []
    if not name:
        return []
    if config.model.initial_weights:
        problems.append(
            f'config.model.pretrained: found "{name}" beside config.model.initial_weights='
            f'"{config.model.initial_weights}"; allowed: one of the two.'
        )
    if name not in PRETRAINED:
        problems.append(f'config.model.pretrained: found "{name}". {near_miss(name, PRETRAINED)}')
    elif isinstance(backbone, str) and PRETRAINED[name].model != backbone:
        fitting = [tag for tag, known in PRETRAINED.items() if known.model == backbone]
        problems.append(
            f'config.model.pretrained: found "{name}" with config.model.name="{backbone}"; '
            + (f"allowed: {', '.join(fitting)}." if fitting else "this one has no public weights.")
        )
    return problems


def _auxiliary_problems(config: Config) -> list[str]:
    """An auxiliary classifier needs head, loss and a backbone that trains."""
    head, loss = config.model.head, config.loss.name
    of_head, of_loss = head == "auxiliary", loss == "auxiliary_cross_entropy"
    problems = []
    if of_loss and isinstance(head, str) and not of_head:
        problems.append(
            f'config.loss.name: found "{loss}" with config.model.head="{head}"; allowed with it: '
            '"cross_entropy", or the head "auxiliary".'
        )
    if of_head and isinstance(loss, str) and not of_loss:
        problems.append(
            f'config.model.head: found "{head}" with config.loss.name="{loss}", which leaves the '
            'auxiliary classifier untrained; allowed with it: "linear", or the loss '
            '"auxiliary_cross_entropy".'
        )
    if of_head and config.model.freeze_backbone:
        problems.append(
            f'config.model.freeze_backbone: found True with config.model.head="{head}"; a backbone '
            "in inference mode has no auxiliary features; allowed: False."
        )
    return problems


def _level_problems(config: Config) -> list[str]:
    """Heads of several levels need a loss of all levels, and that weights that make sense."""
    loss, head, problems = config.loss, config.model.head, []
    of_levels = head in (*BRANCH_HEADS, "coherent")
    named = isinstance(loss.name, str)
    if head in BRANCH_HEADS and named and loss.name != "level_cross_entropy":
        problems.append(
            f'config.loss.name: found "{loss.name}" with config.model.head="{head}", which would '
            'leave its coarser branches untrained; allowed with it: "level_cross_entropy".'
        )
    if loss.name == "level_cross_entropy" and isinstance(head, str) and not of_levels:
        problems.append(
            f'config.loss.name: found "{loss.name}" with config.model.head="{head}", which gives '
            f"logits of the leaves alone; allowed with it: {', '.join(BRANCH_HEADS)}, coherent."
        )
    for row in loss.level_weights:
        if not row or min(row) < 0 or max(row) <= 0 or not all(map(math.isfinite, row)):
            problems.append(
                f"config.loss.level_weights: found {tuple(row)}; allowed: numbers of 0 or more, "
                "not all 0, one for each level of the tree."
            )
    phases, epochs = max(len(loss.level_weights), 1), tuple(loss.level_epochs)
    rising = list(epochs) == sorted(set(epochs)) and min(epochs, default=1) > 0
    if len(epochs) != phases - 1 or not rising:
        problems.append(
            f"config.loss.level_epochs: found {epochs} with {len(loss.level_weights)} rows of "
            "level_weights; allowed: one rising number above 0 for each row behind the first."
        )
    if loss.level_schedule == "learned" and loss.level_weights:
        problems.append(
            'config.loss.level_weights: found values with config.loss.level_schedule="learned", '
            "which finds its own; allowed: ()."
        )
    return problems


def _ignored_problems(config: Config) -> list[str]:
    """Settings that would do nothing, or the reverse of what they are for, beside others."""
    problems = []
    if callable(config.loss.name) and config.loss.label_smoothing:
        problems.append(
            f"config.loss.label_smoothing: found {config.loss.label_smoothing} with a loss that is "
            "a function; allowed: 0. Smooth inside the function."
        )
    if config.loss.label_smoothing and config.loss.name in UNSMOOTHED:
        problems.append(
            f"config.loss.label_smoothing: found {config.loss.label_smoothing} with config.loss."
            f"name={config.loss.name}, whose labels the tree spreads; allowed: 0."
        )
    plateau = config.optim.schedule == "plateau"
    for name, monitor, mode, counts in (
        ("checkpoint.mode", config.checkpoint.monitor, config.checkpoint.mode, True),
        ("optim.plateau_mode", config.optim.plateau_monitor, config.optim.plateau_mode, plateau),
    ):
        better = "min" if monitor.rpartition("/")[2] == "log_loss" else "max"
        if counts and mode != better:
            problems.append(f'config.{name}: found "{mode}" with {monitor}; allowed: "{better}".')
    if plateau and config.split.method != "official" and config.split.fractions[1:2] == (0,):
        problems.append(
            "config.optim.schedule: found plateau with config.split.fractions that leave nothing "
            "to validation; allowed: another schedule, or a share for validation."
        )
    if config.split.together and config.split.method not in ("hash", "grouped"):
        problems.append(
            f'config.split.together: found "{config.split.together}" with config.split.method='
            f'{config.split.method}; allowed with it: "", or method hash or grouped.'
        )
    problems += _unused_problems(config)
    if config.data.seed and config.data.dataset != "synthetic_plankton":
        problems.append(
            f"config.data.seed: found {config.data.seed}; allowed: 0, as only synthetic_plankton "
            "is drawn. The seed of a run is config.seed."
        )
    return problems


def _unused_problems(config: Config) -> list[str]:
    """Settings that were given a value and that another setting leaves without effect."""
    optim, schedule = config.optim, config.optim.schedule
    adamw, named = optim.name == "adamw", isinstance(schedule, str)
    weighted = config.sampling.name == "weighted"
    repeats = config.sampling.name == "repeat_factor"
    plateau = [field.name for field in dataclasses.fields(optim) if field.name[:8] == "plateau_"]
    augmentation = [field.name for field in dataclasses.fields(config.augmentation)]
    manual = augmentation[1 : augmentation.index("policy")]
    randomly = config.augmentation.policy == "randaugment"
    head, loss = config.model.head, config.loss.name
    branched = head in BRANCH_HEADS
    coupled = head in ("bacnn", "sbacnn", "add", "concat")
    levels, stepwise = loss == "level_cross_entropy", loss == "hierarchical_cross_entropy"
    level_settings = ("level_weights", "level_epochs", "level_schedule")
    rules = (
        ("optim", ("momentum", "nesterov"), not adamw, "optim.name=sgd"),
        ("optim", ("beta1", "beta2", "epsilon"), adamw, "optim.name=adamw"),
        ("optim", ("final_factor",), schedule == "cosine", "optim.schedule=cosine"),
        ("optim", ("step_epochs", "step_factor"), schedule == "step", "optim.schedule=step"),
        ("optim", plateau, schedule == "plateau", "optim.schedule=plateau"),
        ("optim", ("warmup_epochs",), named, "a schedule that is no function"),
        ("split", ("group_depth",), config.split.method == "grouped", "split.method=grouped"),
        ("sampling", ("power", "weights"), weighted, "sampling.name=weighted"),
        ("sampling", ("threshold",), repeats, "sampling.name=repeat_factor"),
        ("head", ("branches", "taps"), branched, "a head with branches"),
        ("head", ("window",), branched and config.head.branches != "dense", "Swin blocks"),
        ("head", ("branch_widths",), head in ("bcnn", "hbcnn"), "model.head=bcnn or hbcnn"),
        ("head", ("trunk",), branched and head != "sbacnn", "a head with branches but sbacnn"),
        ("head", ("connections",), head == "hbcnn", "model.head=hbcnn"),
        ("head", ("bilinear",), branched, "a head with branches"),
        ("head", ("bilinear_width",), config.head.bilinear, "head.bilinear=True"),
        ("head", ("width",), coupled, "model.head=bacnn, sbacnn, add or concat"),
        ("head", ("attention_width", "attention"), head in ("bacnn", "sbacnn"), "attention"),
        ("loss", level_settings, levels, "loss.name=level_cross_entropy"),
        ("loss", ("tree_alpha",), stepwise, "loss.name=hierarchical_cross_entropy"),
        ("loss", ("tree_beta",), loss == "tree_soft_labels", "loss.name=tree_soft_labels"),
        ("augmentation", manual, config.augmentation.manual, "augmentation.manual=True"),
        (
            "augmentation",
            ("policy_operations", "policy_magnitude"),
            randomly,
            "augmentation.policy=randaugment",
        ),
    )
    problems, untouched = [], Config()
    for group, names, counts, where in rules:
        for name in names:
            value, default = (getattr(getattr(c, group), name) for c in (config, untouched))
            if value != default and not counts:
                problems.append(
                    f"config.{group}.{name}: found {value!r}, which counts with {where} alone; "
                    f"allowed here: {default!r}."
                )
    late = [epoch for epoch in optim.step_epochs if epoch >= config.train.epochs]
    if schedule == "step" and late:
        problems.append(
            f"config.optim.step_epochs: found {late}; allowed: less than config.train.epochs, "
            f"which is {config.train.epochs}."
        )
    return problems


def _fraction_problems(fractions: tuple[float, ...]) -> list[str]:
    """What is wrong with the shares of train, validation and test."""
    if len(fractions) != 3 or min(fractions, default=0) < 0 or abs(sum(fractions) - 1) > 1e-6:
        return [
            f"config.split.fractions: found {tuple(fractions)}; allowed: three numbers of 0 or "
            "more that add up to 1 (train, validation, test)."
        ]
    if fractions[0] == 0:
        return ["config.split.fractions: train has no share; allowed: more than 0 for the first."]
    return []
