"""Schedules, rules and optimisers: closed forms, and PyTorch where it is installed."""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from plankton_jax import command, models, optim
from plankton_jax.config import OptimConfig
from plankton_jax.errors import UserError

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


@pytest.fixture(autouse=True)
def optax_promotes():
    """optax multiplies integer counts with floats, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def _params():
    generator = np.random.default_rng(0)
    array = lambda *shape: jnp.asarray(generator.normal(size=shape), jnp.float32)  # noqa: E731
    return {
        "backbone": {"stem": {"kernel": array(3, 2), "bias": array(2)}},
        "head": {"kernel": array(2, 4), "bias": array(4)},
    }


def _gradients(step: int):
    generator = np.random.default_rng(100 + step)
    return jax.tree.map(lambda p: jnp.asarray(generator.normal(size=p.shape), p.dtype), _params())


def _run(config: OptimConfig, steps: int = 5, total: int = 100):
    params = _params()
    optimizer = optim.make_optimizer(config, params, optim.make_schedule(config, total, 10))
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(_gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_schedules_have_their_closed_forms(schedule):
    config = OptimConfig(
        learning_rate=0.5,
        schedule=schedule,
        warmup_epochs=2,
        final_factor=0.1,
        step_epochs=(4.0, 6.0),
        step_factor=(0.2,),
    )
    rate = optim.make_schedule(config, total_steps=100, steps_per_epoch=10)

    def expected(step):
        if step < 20:
            return 0.5 * step / 20
        if schedule == "cosine":
            return 0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * (step - 20) / 80)) / 2)
        if schedule == "step":
            return 0.5 * 0.2 ** ((step >= 40) + (step >= 60))
        return 0.5

    for step in (0, 1, 19, 20, 21, 39, 40, 41, 59, 60, 61, 99):
        assert float(rate(step)) == pytest.approx(expected(step), rel=1e-5), step


def test_every_step_epoch_may_have_its_own_factor():
    """The course of the branch papers' rate, whatever the steps of an epoch."""
    config = command.read_config(f"{CONFIGS / 'fashion_mnist.py'}:bacnn", []).optim
    for steps in (469, 10):
        rate = optim.make_schedule(config, 60 * steps, steps)
        found = [float(rate(round(epoch * steps))) for epoch in (0, 42, 42.9, 43, 52.9, 53, 59)]
        np.testing.assert_allclose(found, [1e-3] * 3 + [2e-4] * 2 + [5e-5] * 2, rtol=1e-6)


def test_a_function_is_a_schedule():
    config = OptimConfig(learning_rate=2.0, schedule=lambda step: 1.0 / (1 + step))
    assert float(optim.make_schedule(config, 10, 1)(3)) == pytest.approx(0.5)


@pytest.mark.parity
@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau_equals_torch(mode, cooldown):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    config = OptimConfig(
        schedule="plateau",
        plateau_mode=mode,
        plateau_factor=0.5,
        plateau_patience=2,
        plateau_threshold=1e-2,
        plateau_cooldown=cooldown,
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=2, threshold=1e-2, cooldown=cooldown
    )
    state = optim.plateau_init(config)
    for metric in np.random.default_rng(0).normal(0.5, 0.1, 60):
        theirs.step(float(metric))
        state = optim.plateau_update(config, state, float(metric))
        assert float(state.scale) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)


def test_plateau_cuts_after_patience_in_either_direction():
    for mode, values in (("max", [0.5, 0.6, 0.6, 0.6, 0.6]), ("min", [0.5, 0.4, 0.4, 0.4, 0.4])):
        config = OptimConfig(plateau_mode=mode, plateau_patience=2, plateau_factor=0.1)
        state, scales = optim.plateau_init(config), []
        for value in values:
            state = optim.plateau_update(config, state, value)
            scales.append(round(float(state.scale), 6))
        assert scales == [1.0, 1.0, 1.0, 1.0, 0.1]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimisers_equal_torch(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    config = OptimConfig(
        name=name,
        learning_rate=0.1,
        schedule="constant",
        warmup_epochs=0,
        weight_decay=0.3 if name == "adamw" else 0.0,
        weight_decay_rules=((".*", 1.0),),
        gradient_clip=1.5,
    )
    ours, _ = _run(config)
    tensors = [torch.nn.Parameter(torch.tensor(np.asarray(p))) for p in jax.tree.leaves(_params())]
    make = {
        "adamw": lambda: torch.optim.AdamW(tensors, lr=0.1, weight_decay=0.3),
        "sgd": lambda: torch.optim.SGD(tensors, lr=0.1, momentum=0.9, nesterov=True),
    }
    optimizer = make[name]()
    for step in range(5):
        for tensor, gradient in zip(tensors, jax.tree.leaves(_gradients(step)), strict=True):
            tensor.grad = torch.tensor(np.asarray(gradient))
        torch.nn.utils.clip_grad_norm_(tensors, 1.5)
        optimizer.step()
    for found, tensor in zip(jax.tree.leaves(ours), tensors, strict=True):
        np.testing.assert_allclose(found, tensor.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_adamw_equals_optax():
    config = OptimConfig(learning_rate=0.1, schedule="constant", warmup_epochs=0, weight_decay=0.3)
    found, _ = _run(config)
    params = _params()
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
    reference = optax.adamw(0.1, weight_decay=0.3, mask=mask)
    state = reference.init(params)
    for step in range(5):
        updates, state = reference.update(_gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, params)


def test_frozen_parameters_stay_and_hold_no_state():
    config = OptimConfig(learning_rate_rules=(("backbone/.*", 0.0), (".*", 1.0)))
    params, state = _run(config)
    before = _params()
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], before["backbone"])
    assert not np.array_equal(params["head"]["kernel"], before["head"]["kernel"])
    sizes = {leaf.shape for leaf in jax.tree.leaves(state)}
    assert (3, 2) not in sizes and (2, 4) in sizes


def test_learning_rate_factors_multiply_the_update():
    base = OptimConfig(
        name="sgd", momentum=0.0, schedule="constant", warmup_epochs=0, learning_rate=1.0
    )
    slow = dataclasses.replace(base, learning_rate_rules=(("head/.*", 0.25), (".*", 1.0)))
    (fast_params, _), (slow_params, _) = _run(base, steps=1), _run(slow, steps=1)
    start = _params()["head"]["bias"]
    np.testing.assert_allclose(
        slow_params["head"]["bias"] - start, 0.25 * (fast_params["head"]["bias"] - start), rtol=1e-5
    )
    jax.tree.map(np.testing.assert_array_equal, slow_params["backbone"], fast_params["backbone"])


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ((("head/.*", 1.0),), "no rule covers"),
        ((("neck/.*", 1.0), (".*", 1.0)), '"neck/.*" matches no parameter'),
        ((("(", 1.0),), "no regular expression"),
        (((".*", 0.0),), "every factor is 0"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rules, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace("*", r"\*")):
        _run(OptimConfig(learning_rate_rules=rules), steps=1)


SPARED = (
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "deit3_small_patch16_224",
    "convnextv2_atto",
    "resnet18",
)


@pytest.mark.parametrize("name", SPARED)
def test_by_default_what_timm_spares_from_decay_is_spared(name):
    # timm: what has one axis, and position embeddings, tokens and relative position biases.
    make = functools.partial(models.create_model, name, 3, key=jax.random.key(0))
    params = models.split_model(nnx.eval_shape(make))[1]
    rules = OptimConfig().weight_decay_rules
    factors = models.flatten_paths(optim.apply_rules(rules, params, "weight_decay_rules"))
    leaves = models.flatten_paths(params)
    named = ("cls_token", "pos_embed", "relative_position_bias_table")
    spared = {path for path in leaves if leaves[path].ndim == 1 or path.endswith(named)}
    assert {path for path, factor in factors.items() if factor == 0} == spared
