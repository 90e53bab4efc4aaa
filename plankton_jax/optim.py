"""How parameters move: learning-rate schedules, parameter rules, optimisers, plateau cuts.

Pure functions and optax transformations. Rules are data: lists of (regex, value) over parameter
paths such as `backbone/blocks/0/attn/qkv/kernel`; the first match counts.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from plankton_jax.config import OptimConfig
from plankton_jax.errors import UserError, raise_all

Schedule = Callable[[Any], Any]
PyTree = Any


def path_string(path: tuple) -> str:
    """A pytree path of nested dicts as `a/b/c`."""
    return "/".join(str(key.key) for key in path)


def apply_rules(rules: Sequence[tuple[str, float]], tree: PyTree, setting: str) -> PyTree:
    """The value of the first matching rule for each leaf of `tree`, as a tree of floats.

    Raises:
      UserError: an invalid expression, a parameter no rule covers, a rule that matches nothing;
        all of them at once, named as `setting`.
    """
    problems, compiled = [], []
    for expression, value in rules:
        try:
            compiled.append((re.compile(expression), value))
        except re.error as error:
            problems.append(f'config.{setting}: "{expression}" is no regular expression ({error}).')
    raise_all(problems)
    paths = [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    matched = {expression.pattern: False for expression, _ in compiled}
    values, uncovered = {}, []
    for path in paths:
        hits = [(rule, value) for rule, value in compiled if rule.fullmatch(path)]
        matched.update({rule.pattern: True for rule, _ in hits})
        if hits:
            values[path] = hits[0][1]
        else:
            uncovered.append(path)
    if uncovered:
        problems.append(
            f"config.{setting}: no rule covers {uncovered[:5]} ({len(uncovered)} in all). "
            'End the list with (".*", value).'
        )
    problems += [
        f'config.{setting}: "{pattern}" matches no parameter. Paths look like {paths[:3]}.'
        for pattern, hit in matched.items()
        if not hit
    ]
    raise_all(problems)
    return jax.tree_util.tree_map_with_path(lambda path, _: values[path_string(path)], tree)


def make_schedule(config: OptimConfig, total_steps: int, steps_per_epoch: int) -> Schedule:
    """The learning rate as a function of the step, warm-up included.

    Args:
      total_steps: length of the run in steps.
      steps_per_epoch: steps that an epoch has, to convert settings given in epochs.
    """
    peak = config.learning_rate
    warmup = round(config.warmup_epochs * steps_per_epoch)
    rest = max(total_steps - warmup, 1)
    if callable(config.schedule):
        factor = cast(Schedule, config.schedule)
        return lambda step: peak * factor(step)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=config.final_factor)
    elif config.schedule == "step":
        edges: dict[int, float] = {}
        count = len(config.step_epochs)
        factors = config.step_factor * (count if len(config.step_factor) == 1 else 1)
        for epoch, factor in zip(config.step_epochs, factors, strict=True):
            edge = round(epoch * steps_per_epoch) - warmup
            edges[edge] = edges.get(edge, 1.0) * factor  # two within one step multiply twice
        after = optax.piecewise_constant_schedule(peak, edges)
    else:  # constant; a plateau's cuts multiply it, see `plateau_update`
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


class PlateauState(NamedTuple):
    """What cutting the learning rate on a plateau remembers. All scalars.

    Attributes:
      scale: product of all cuts so far; updates are multiplied by it.
      best: best value of the metric so far.
      bad_evaluations: evaluations since the best one.
      cooldown_left: evaluations for which bad ones do not count.
    """

    scale: Float[Array, ""]
    best: Float[Array, ""]
    bad_evaluations: Int[Array, ""]
    cooldown_left: Int[Array, ""]


def plateau_init(config: OptimConfig) -> PlateauState:
    """The state before the first evaluation."""
    worst = -jnp.inf if config.plateau_mode == "max" else jnp.inf
    return PlateauState(  # every array its own buffer: the state is donated
        scale=jnp.ones((), jnp.float32),
        best=jnp.asarray(worst, jnp.float32),
        bad_evaluations=jnp.zeros((), jnp.int32),
        cooldown_left=jnp.zeros((), jnp.int32),
    )


def plateau_update(config: OptimConfig, state: PlateauState, metric: float) -> PlateauState:
    """One evaluation of ReduceLROnPlateau, as PyTorch defines it (relative threshold)."""
    value = jnp.asarray(metric, jnp.float32)
    sign = 1.0 if config.plateau_mode == "max" else -1.0
    better = sign * value > sign * state.best * (1.0 + sign * config.plateau_threshold)
    better = better | ~jnp.isfinite(state.best)
    bad = jnp.where(better, 0, state.bad_evaluations + 1)
    cooling = state.cooldown_left > 0
    bad = jnp.where(cooling, 0, bad)
    cut = bad > config.plateau_patience
    return PlateauState(
        scale=jnp.where(cut, state.scale * config.plateau_factor, state.scale),
        best=jnp.where(better, value, state.best),
        bad_evaluations=jnp.where(cut, 0, bad).astype(jnp.int32),
        cooldown_left=jnp.where(
            cut, config.plateau_cooldown, jnp.maximum(state.cooldown_left - 1, 0)
        ).astype(jnp.int32),
    )


def make_optimizer(
    config: OptimConfig, params: PyTree, schedule: Schedule
) -> optax.GradientTransformation:
    """The optimiser with clipping, decoupled decay, schedule and rules.

    Parameters whose learning-rate factor is 0 get no optimiser state and no update.

    Raises:
      UserError: rules that do not fit the parameters; see `apply_rules`.
    """
    rates = apply_rules(config.learning_rate_rules, params, "optim.learning_rate_rules")
    decays = apply_rules(config.weight_decay_rules, params, "optim.weight_decay_rules")
    if not any(jax.tree.leaves(rates)):
        raise UserError("config.optim.learning_rate_rules: every factor is 0; nothing would train.")
    moving = jax.tree.map(bool, rates)
    keep = functools.partial(jax.tree.map, _kept, moving)
    parts = [optax.clip_by_global_norm(config.gradient_clip)] if config.gradient_clip else []
    if config.name == "adamw":
        parts.append(optax.scale_by_adam(config.beta1, config.beta2, config.epsilon))
    else:
        parts.append(optax.trace(config.momentum, nesterov=config.nesterov))
    parts += [
        _add_decay(keep(decays), config.weight_decay),
        _multiply(keep(rates)),
        optax.scale_by_learning_rate(schedule),
    ]
    if all(jax.tree.leaves(moving)):
        return optax.chain(*parts)
    labels = jax.tree.map(lambda moves: "moving" if moves else "frozen", moving)
    return optax.partition({"moving": optax.chain(*parts), "frozen": optax.set_to_zero()}, labels)


def trainable(config: OptimConfig, params: PyTree) -> PyTree:
    """For each parameter, whether any update can move it: a tree of bools."""
    rates = apply_rules(config.learning_rate_rules, params, "optim.learning_rate_rules")
    return jax.tree.map(bool, rates)


def _kept(moves: bool, value: float) -> Any:
    """`value`, or optax's mark of a parameter that another part of the partition handles."""
    return value if moves else optax.MaskedNode()


def _multiply(factors: PyTree) -> optax.GradientTransformation:
    """Multiplies each update by its factor."""

    def update(updates, state, params=None):
        del params
        return jax.tree.map(
            lambda g, factor: g if factor == 1 else g * factor, updates, factors
        ), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _add_decay(factors: PyTree, decay: float) -> optax.GradientTransformation:
    """Adds `decay * factor * parameter` to each update: decoupled weight decay by rules."""

    def decayed(update, factor, value):
        return update + decay * factor * value if decay * factor else update

    def update(updates, state, params=None):
        return jax.tree.map(decayed, updates, factors, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
