"""Three steps of training of every head on a plain transformer, a Swin and a base of the branch
papers, all small; and what does not move."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plankton_jax import heads, losses, models, optim
from plankton_jax.config import HeadConfig, LossConfig, OptimConfig
from plankton_jax.models import branch_bases, swin, vit
from plankton_jax.taxonomy import Taxonomy
from plankton_jax.train_step import TrainState, make_train_step

TREE = Taxonomy.from_paths(
    ("side", "group", "taxon"),
    [("a", "a1", "x"), ("b", "b1", "p"), ("a", "a1", "y"), ("a", "a2", "z"), ("b", "b2", "q")],
)
BACKBONES = {
    "vit": (
        functools.partial(vit.build, vit.VitConfig(width=32, heads=2, depth=2, patch_size=8)),
        HeadConfig(branches="sequence", window=2, width=8, attention_width=4),
    ),
    "swin_s3": (
        functools.partial(
            swin.build, swin.SwinConfig(16, (1, 1, 2, 1), (1, 1, 2, 4), (7, 7, 14, 7))
        ),
        HeadConfig(branches="stages", taps=(1, 2, 3), window=1, width=8, attention_width=4),
    ),
    "vgg": (
        functools.partial(
            branch_bases.build,
            branch_bases.BranchBaseConfig(((8,), (8,), (8,), (8,)), dense=(16,)),
        ),
        HeadConfig(branches="dense", taps=(0, 1, -1), width=8, attention_width=4),
    ),
}


def training(head, backbone, freeze=False):
    """A compiled step, a state and a batch."""
    build, config = BACKBONES[backbone]
    model = models.create_model(
        build, 5, image_size=32, in_channels=1, taxonomy=TREE, freeze_backbone=freeze,
        head=heads.configured(head, config), key=jax.random.key(0),
    )  # fmt: skip
    graph, params, model_state = models.split_model(model)
    name = "cross_entropy" if head == "linear" else "level_cross_entropy"
    loss = losses.make_loss(LossConfig(name=name), TREE)
    rules = (("backbone/.*", 0.0), (".*", 1.0)) if freeze else ((".*", 1.0),)
    settings = OptimConfig(name="sgd", learning_rate_rules=rules, weight_decay=0.1)
    optimizer = optim.make_optimizer(settings, params, optax.constant_schedule(2e-3))

    def apply(params, model_state, images, measurements, *, train, key):
        del measurements
        return models.apply(graph, params, model_state, images, train=train, key=key)

    step = make_train_step(
        apply, loss, optimizer, TREE.ancestors, optim.trainable(settings, params),
        mean=(0.5,), std=(0.25,),
    )  # fmt: skip
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        plateau=optim.plateau_init(settings),
        ema={},
        key=jax.random.key_data(jax.random.key(1)),
    )
    random = np.random.default_rng(0)
    leaf = np.arange(10) % 5
    images = random.integers(0, 60, (10, 32, 32, 1)) + 40 * leaf[:, None, None, None]
    batch = {
        "image": jnp.asarray(images, jnp.uint8),
        "measurements": jnp.zeros((10, 0), jnp.float32),
        "leaf": jnp.asarray(leaf, jnp.int32),
    }
    quick = {"xla_backend_optimization_level": 0}
    return jax.jit(step).lower(state, batch).compile(compiler_options=quick), state, batch


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", [name for name in heads.list_heads() if name != "auxiliary"])
def test_three_steps_move_every_parameter_and_lower_the_loss(head, backbone):
    step, state, batch = training(head, backbone)
    first, seen = state, []
    for _ in range(4):
        # Always with the dropout of the first step: what is learned under one draw, of branches of
        # eight numbers, need not be of use under the next.
        state = dataclasses.replace(state, step=jnp.zeros((), jnp.int32))
        last, (state, sums) = state, step(state, batch)
        seen.append(float(sums["loss"]))
    state = last  # after three steps; the fourth only tells their loss
    assert np.isfinite(seen).all() and seen[3] < seen[0]
    still = [
        path
        for path, value in models.flatten_paths(state.params).items()
        if np.array_equal(value, models.flatten_paths(first.params)[path])
    ]
    # Branches read maps, not what is behind the final norm; in a window of one token there is
    # nothing to be biased towards.
    unread = ("backbone/norm/", "backbone/fc_norm", "relative_position_bias_table")
    assert [path for path in still if not any(name in path for name in unread)] == []


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_frozen_backbone_does_not_move_and_costs_less(backbone):
    step, state, batch = training("bacnn", backbone, freeze=True)
    moved, sums = step(state, batch)
    for name in ("params", "model_state"):
        before, after = (getattr(s, name).get("backbone", {}) for s in (state, moved))
        jax.tree.map(np.testing.assert_array_equal, before, after)
    head_before, head_after = state.params["head"], moved.params["head"]
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(head_before), jax.tree.leaves(head_after), strict=True)
    )
    assert float(sums["gradient_norm"]) > 0
    # No optimiser state of it, and no gradient computed: fewer operations and less memory.
    sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (state.opt_state, head_before)]
    assert sizes[0] < sizes[1] + 100
    whole, _, _ = training("bacnn", backbone)
    frozen_cost, whole_cost = (c.cost_analysis()["flops"] for c in (step, whole))
    assert frozen_cost < 0.75 * whole_cost
    temporary = [c.memory_analysis().temp_size_in_bytes for c in (step, whole)]
    assert temporary[0] < temporary[1]
