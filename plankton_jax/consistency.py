"""What may be wrong with settings beside others, and with names that need more than a list. Pure
and light; each setting is of its type already.
"""

import re

from plankton_jax.config import (
    FEATURE,
    KERAS_HUB,
    LOSSES,
    MEASUREMENTS,
    METRICS,
    SCHEDULES,
    Config,
)
from plankton_jax.errors import near_miss
from plankton_jax.ineffective import ineffective_problems
from plankton_jax.names import BACKBONES, BRANCH_HEADS, HEADS, TRACKERS
from plankton_jax.pretrained import PRETRAINED


def joint_problems(config: Config) -> list[str]:
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
    problems += [
        f'config.logging.trackers: found "{name}". {near_miss(name, TRACKERS)}'
        for name in config.logging.trackers
        if name not in TRACKERS
    ]
    problems += _weights_problems(config)
    problems += _auxiliary_problems(config)
    problems += _cache_problems(config)
    problems += _branch_problems(config)
    problems += _level_problems(config)
    problems += _fraction_problems(config.split.fractions)
    for name in ("learning_rate_rules", "weight_decay_rules"):
        for pattern, factor in getattr(config.optim, name):
            problems += _pattern_problem(f"config.optim.{name}", pattern)
            if factor < 0:
                problems.append(f"config.optim.{name}: found {factor}; allowed: 0 or more.")
    if min(config.optim.step_epochs, default=1) <= 0:
        problems.append(
            f"config.optim.step_epochs: found {tuple(config.optim.step_epochs)}; allowed: numbers "
            "above 0."
        )
    if config.optim.schedule == "step" and not config.optim.step_epochs:
        problems.append(
            "config.optim.step_epochs: found (); allowed with schedule=step: one epoch or more."
        )
    factors, count = tuple(config.optim.step_factor), len(config.optim.step_epochs)
    if len(factors) not in (1, max(count, 1)) or not all(0 <= factor <= 1 for factor in factors):
        problems.append(
            f"config.optim.step_factor: found {factors}; allowed: a number from 0 to 1, or one for "
            f"each of the {count} config.optim.step_epochs."
        )
    problems += ineffective_problems(config)
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


def _cache_problems(config: Config) -> list[str]:
    """Features can be kept of a backbone that does not move, and of images that are not mixed."""
    views, augmentation, problems = config.model.cache_features, config.augmentation, []
    found = f"config.model.cache_features: found {views} with"
    if views and not config.model.freeze_backbone:
        problems.append(
            f"{found} config.model.freeze_backbone=False, whose features change with every step; "
            "allowed: 0, or a frozen backbone."
        )
    if views and (augmentation.mixup or augmentation.cutmix):
        problems.append(
            f"{found} config.augmentation.mixup={augmentation.mixup} and cutmix="
            f"{augmentation.cutmix}, which mix images anew in each step; allowed: 0, or neither."
        )
    plain = not (augmentation.manual or augmentation.blur or augmentation.noise)
    if views > 1 and plain and augmentation.policy == "none" and not augmentation.cutout:
        problems.append(
            f"{found} an augmentation that does nothing, so that all views are the same; "
            "allowed: 0 or 1."
        )
    return problems


def _branch_problems(config: Config) -> list[str]:
    """What branches of no size, or beside the trunk, cannot be."""
    problems = []
    taps = tuple(config.head.taps)
    if config.head.trunk and taps and taps[-1] != -1:
        problems.append(
            f"config.head.taps: found {taps} with config.head.trunk=True, where the leaves' branch "
            "reads the trunk; allowed there: -1 in the last place."
        )
    narrow = [width for width in config.head.branch_widths if width < 1]
    if narrow:
        problems.append(
            f"config.head.branch_widths: found {narrow[0]}; allowed: numbers of 1 or more."
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
        if not row or min(row) < 0 or max(row) <= 0:
            problems.append(
                f"config.loss.level_weights: found {tuple(row)}; allowed: numbers of 0 or more, "
                "not all 0, one for each level of the tree."
            )
    columns = list(zip(*loss.level_weights, strict=False))
    never = [number for number, weights in enumerate(columns) if max(weights) <= 0]
    if head in BRANCH_HEADS and never:
        problems.append(
            f"config.loss.level_weights: found 0 in every row for level {never[0]} (the coarsest "
            f'is 0) with config.model.head="{head}", whose branch would stay as it was drawn; '
            "allowed: more than 0 in one row at least."
        )
    phases, epochs = max(len(loss.level_weights), 1), tuple(loss.level_epochs)
    rising = list(epochs) == sorted(set(epochs)) and min(epochs, default=1) > 0
    if len(epochs) != phases - 1 or not rising:
        problems.append(
            f"config.loss.level_epochs: found {epochs} with {len(loss.level_weights)} rows of "
            "level_weights; allowed: one rising number above 0 for each row behind the first."
        )
    late = [epoch for epoch in epochs if epoch >= config.train.epochs]
    if late:
        problems.append(
            f"config.loss.level_epochs: found {late}; allowed: less than config.train.epochs, "
            f"which is {config.train.epochs}: a row of level_weights would never count."
        )
    if loss.level_schedule == "linear" and phases == 1:
        problems.append(
            'config.loss.level_schedule: found "linear" with fewer than two rows of config.loss.'
            'level_weights, between which nothing changes; allowed: "step", or more rows.'
        )
    if loss.level_schedule == "learned" and head == "sbacnn":
        problems.append(
            'config.loss.level_schedule: found "learned" with config.model.head="sbacnn", whose '
            "losses below the gate hold the gate's own, which the weights would be learned from; "
            'allowed: "step", "linear".'
        )
    if loss.level_schedule == "learned" and loss.level_weights:
        problems.append(
            'config.loss.level_weights: found values with config.loss.level_schedule="learned", '
            "which finds its own; allowed: ()."
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
