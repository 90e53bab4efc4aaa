"""One step of training and one of evaluation: pure functions of a state and a batch.

The state is a frozen dataclass of plain nested dicts. `make_train_step` returns a function for
`jax.jit` with the state donated; metrics come back as sums and counts, so any number of devices
gives the same answer. Nothing here reads a file, a clock or a global.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt8

from plankton_jax import metrics, mixing
from plankton_jax.losses import LevelSchedule, Loss
from plankton_jax.optim import PlateauState

PyTree = Any
Batch = dict[str, Any]
# apply(params, model_state, images or features, measurements, train, key)
#   -> (level logits, new model state)
Apply = Callable[..., tuple[tuple[Float[Array, "b k"], ...], PyTree]]

LOSS = "loss"
"""Of the parameters, what is trained of the loss itself."""

_MIXING = 2**32 - 1  # of the step's key; the network's layers take numbers from 0 on


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "params", "model_state", "opt_state", "plateau", "ema", "key"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step reads and writes.

    Attributes:
      step: int32 scalar, the number of steps done.
      params: parameters, nested dicts of float32 arrays.
      model_state: batch-norm statistics, nested dicts; empty for networks without.
      opt_state: the optimiser's.
      plateau: the learning-rate cuts so far; moved at evaluations, not in the step.
      ema: moving averages of `params` and `model_state` under these two names, or an empty dict.
      key: uint32 data of the run's random key; dropout uses `fold_in(key, step)`.
    """

    step: Int[Array, ""]
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    plateau: PlateauState
    ema: PyTree
    key: Array


def normalise(
    images: UInt8[Array, "b h w 1"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "b h w c"]:
    """Grey levels in 0..255 to zero mean and unit variance, repeated over the channels of `mean`.

    `mean` and `std` are of values in 0..1, one number for each channel that the network takes.
    """
    scaled = images.astype(jnp.float32) / 255.0
    shape = (1, 1, 1, len(mean))
    centred = scaled - jnp.asarray(mean, jnp.float32).reshape(shape)
    return centred / jnp.asarray(std, jnp.float32).reshape(shape)


def network_input(batch: Batch, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """The normalised images of a batch, or in their place the features of a frozen backbone."""
    if "features" in batch:
        return batch["features"]
    return normalise(batch["image"], mean, std)


def make_train_step(
    apply: Apply,
    loss: Loss | LevelSchedule,
    optimizer: optax.GradientTransformation,
    ancestors: Int[Array, "levels leaves"],
    moving: PyTree,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    ema_decay: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    decoder: str = "argmax",
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Builds `train_step(state, batch) -> (state, sums)`.

    Args:
      loss: a function, or a schedule of one whose own parameters are under `LOSS`.
      moving: for each parameter, whether it trains; gradients of the others are not computed.
      mean, std: see `normalise`.
      ema_decay: decay a step of the moving averages; 0 keeps none.
      mixup, cutmix: the a of Beta(a, a) that weights are drawn from; 0 for none of this kind.
      decoder: what leaf is predicted; see `metrics.predicted_nodes`.

    `sums` holds `loss` (summed over the batch), `correct` (leaves, of an example's own label where
    it is mixed), `count`, and `gradient_norm` (of this step, not summed over examples).
    """
    ancestors = jnp.asarray(ancestors, jnp.int32)

    def objective(params, model_state, images, measurements, labels, weight, key, step):
        params = jax.tree.map(
            lambda value, moves: value if moves else jax.lax.stop_gradient(value), params, moving
        )
        logits, model_state = apply(params, model_state, images, measurements, train=True, key=key)
        own = loss.at(step, params.get(LOSS, {})) if isinstance(loss, LevelSchedule) else loss
        value = own(logits, labels)
        if weight is not None:
            value = weight * value + (1 - weight) * own(logits, mixing.partners(labels))
        return jnp.mean(value), (logits, model_state)

    def train_step(state: TrainState, batch: Batch):
        images = network_input(batch, mean, std)
        labels = ancestors.T[batch["leaf"]]
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        measurements, weight = batch["measurements"], None
        if mixup or cutmix:
            mixing_key = jax.random.fold_in(key, _MIXING)
            share, weight = mixing.draw_weights(mixing_key, images.shape[:3], mixup, cutmix)
            images = share * images + (1 - share) * mixing.partners(images)
            own = weight[:, None]
            measurements = own * measurements + (1 - own) * mixing.partners(measurements)
        (value, (logits, model_state)), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params, state.model_state, images, measurements, labels, weight, key, state.step
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        updates = jax.tree.map(lambda update: update * state.plateau.scale, updates)
        params = optax.apply_updates(state.params, updates)
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema=_moved_average(state, params, model_state, ema_decay),
        )
        count = jnp.asarray(labels.shape[0], jnp.int32)
        if decoder == "routed":
            predicted = metrics.predicted_nodes(logits, ancestors, decoder)[-1]
        else:  # the likeliest leaf, also of a head that predicts no other level
            predicted = jnp.argmax(logits[-1], axis=-1)
        correct = jnp.sum(predicted == labels[:, -1])
        sums = {
            "loss": value * count.astype(jnp.float32),
            "correct": correct.astype(jnp.int32),
            "count": count,
            "gradient_norm": optax.tree.norm(gradients),
        }
        return new_state, sums

    return train_step


def _moved_average(state: TrainState, params: PyTree, model_state: PyTree, decay: float) -> PyTree:
    """The moving averages one step on.

    The decay grows as min(d, (1 + t) / (10 + t)), so the average forgets the random start at once.
    Integers, such as seeds in the model state, have no average: the newest count.
    """
    if not decay:
        return state.ema
    step = state.step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    current = {"params": params, "model_state": model_state}

    def moved(old: Array, new: Array) -> Array:
        return old + rate * (new - old) if jnp.issubdtype(new.dtype, jnp.inexact) else new

    return jax.tree.map(moved, state.ema, current)


def make_eval_step(
    apply: Apply,
    ancestors: Int[Array, "levels leaves"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    decoder: str = "argmax",
) -> Callable[[PyTree, PyTree, Batch], tuple[tuple[Array, ...], dict[str, Any]]]:
    """Builds `eval_step(params, model_state, batch) -> (level logits, metric sums)`.

    The logits cover every level of the tree: a head that predicts leaves alone has the coarser
    levels read off its leaf probabilities. What is counted as predicted is up to the `decoder`.
    """
    ancestors = jnp.asarray(ancestors, jnp.int32)

    def eval_step(params: PyTree, model_state: PyTree, batch: Batch):
        images = network_input(batch, mean, std)
        measurements = batch["measurements"]
        logits, _ = apply(params, model_state, images, measurements, train=False, key=None)
        if len(logits) != ancestors.shape[0]:
            logits = metrics.marginal_logits(logits[-1], ancestors)
        leaf, mask = batch["leaf"], batch["mask"]
        return logits, metrics.batch_sums(logits, leaf, mask, ancestors, decoder)

    return eval_step


def mean_over_views(
    run: Callable[[Array], tuple[tuple[Array, ...], Array]],
    images: Float[Array, "b s s c"],
    views: int,
) -> tuple[tuple[Float[Array, "b k"], ...], Float[Array, "b d"]]:
    """Logs of the mean probabilities at every level, and mean features, over views of an image.

    The first `views` of: as it is, upside down, both turned by 180 degrees, and those four turned
    by 90; so 2, 4 and 8 are groups of symmetries. One view gives what `run` gives.

    Args:
      run: images -> (level logits, pooled features).
      views: 1, 2, 4 or 8.
    """
    if views == 1:
        return run(images)
    turned = [jnp.rot90(images, turns, axes=(1, 2)) for turns in (0, 2, 1, 3)]
    symmetries = [view for image in turned for view in (image, image[:, ::-1])]
    outputs = [run(view) for view in symmetries[:views]]
    logits = tuple(
        jax.nn.logsumexp(jnp.stack([jax.nn.log_softmax(z) for z in level]), axis=0)
        - math.log(views)
        for level in zip(*(logits for logits, _ in outputs), strict=True)
    )
    return logits, jnp.mean(jnp.stack([pooled for _, pooled in outputs]), axis=0)


def evaluated(state: TrainState) -> tuple[PyTree, PyTree]:
    """The (params, model_state) that are evaluated and used: the averages where there are any."""
    if state.ema:
        return state.ema["params"], state.ema["model_state"]
    return state.params, state.model_state
