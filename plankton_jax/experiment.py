"""Puts a run together from its configuration: network, loss, optimiser, steps; `run_data` opens its
data. Reads files of weights; otherwise pure. `train`, `evaluate` and the tests go through here, so
that one configuration means one thing.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from plankton_jax import heads, initial_weights, losses, models, optim, weights
from plankton_jax.config import KERAS_HUB, Config, walk
from plankton_jax.errors import UserError
from plankton_jax.metrics import METRIC_NAMES
from plankton_jax.names import ATTENTION_HEADS, BRANCH_HEADS, own_decoder
from plankton_jax.run_data import Data
from plankton_jax.taxonomy import Taxonomy
from plankton_jax.train_step import LOSS, TrainState, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as pure functions of plain dicts.

    Attributes:
      params, model_state: as initialised.
      apply: (params, model_state, images or features, measurements, train, key) -> (level logits,
        new model state).
      backbone: (params, model_state, images) -> Features of the backbone alone, in inference.
      embed: (params, model_state, images, measurements) -> (level logits, pooled features `b d`).
      attend: (params, model_state, images, measurements) -> attention weights `b n n` between the
        branches of a head that has them.
      mean, std: of grey levels in 0..1, one number a channel.
      provenance: of the initial weights; None: they were drawn.
    """

    params: Any
    model_state: Any
    apply: Callable[..., Any]
    backbone: Callable[..., Any]
    embed: Callable[..., Any]
    attend: Callable[..., Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    provenance: weights.Provenance | None = None


def make_network(
    config: Config,
    data: dict[str, Any],
    taxonomy: Taxonomy,
    *,
    fresh: bool = True,
    provenance: weights.Provenance | None = None,
    notify: Callable[[str], None] | None = None,
) -> Network:
    """Builds and initialises the configured network.

    Args:
      data: the run's data description; see `Data.description`.
      fresh: whether the run begins; otherwise a checkpoint holds what the initial weights gave.
      provenance: of the weights that a run, not a fresh one, began with.
      notify: called with sentences on the initial weights (their licence, a head left out, none
        for a frozen backbone) and on settings that are there for reproduction alone.

    Raises:
      UserError: unknown names, sizes that do not fit, weights that do not fit.
    """
    settings = config.model
    head = heads.configured(cast(Any, settings.head), config.head)
    classifier = _classifier(config, taxonomy.num_leaves, head, taxonomy)
    graph, params, model_state = models.split_model(classifier)
    if fresh and (settings.initial_weights or settings.pretrained):
        params, model_state, provenance = initial_weights.load(
            config, classifier, taxonomy.num_leaves, notify or (lambda text: None)
        )
    elif fresh and notify and settings.freeze_backbone and initial_weights.are_drawn(settings.name):
        notify(
            "warning: config.model.freeze_backbone: found True for a backbone of random numbers, "
            "which stays as it is drawn. Give config.model.initial_weights (a run or a file of "
            "weights) or config.model.pretrained."
        )
    if notify and settings.head in ATTENTION_HEADS and config.head.attention == "batch0":
        notify(
            "warning: config.head.attention: found batch0: every image gets the attention weights "
            "of the first image of its batch, a mistake of BA-CNN's authors, so that predictions "
            "depend on the batch. It is there to reproduce their figures; otherwise: sample."
        )
    mean, std = _normalisation(config, data, provenance)

    def apply(params, model_state, images, measurements, *, train, key):
        return models.apply(
            graph,
            _of_network(params),
            model_state,
            images,
            measurements=measurements,
            train=train,
            key=key,
        )

    def backbone(params, model_state, images):
        return models.join_model(graph, _of_network(params), model_state).backbone(images)

    def embed(params, model_state, images, measurements):
        model = models.join_model(graph, _of_network(params), model_state)
        features = model.features(images, measurements=measurements)
        return model.head(features), features.pooled

    def attend(params, model_state, images, measurements):
        model = models.join_model(graph, _of_network(params), model_state)
        return model.head.attention_weights(model.features(images, measurements=measurements))

    return Network(params, model_state, apply, backbone, embed, attend, mean, std, provenance)


def refuse_impossible_backbone(config: Config) -> None:
    """Looks at what a named backbone has against the settings before any image is there.

    Raises:
      UserError: an image size, a pooling or a rate that the backbone cannot take.
    """
    name = config.model.name
    if isinstance(name, str) and not name.startswith(KERAS_HUB):
        nnx.eval_shape(lambda: _classifier(config, 2, None, None))


def _classifier(
    config: Config, num_classes: int, head: Any, taxonomy: Taxonomy | None
) -> models.Classifier:
    """The configured network with its initial parameters."""
    settings = config.model
    return models.create_model(
        cast(Any, settings.name),
        num_classes,
        image_size=config.data.image_size,
        in_channels=settings.in_channels,
        drop_rate=settings.drop_rate,
        drop_path_rate=settings.drop_path_rate,
        pool=settings.pool or None,
        head=head,
        taxonomy=taxonomy,
        num_measurements=len(config.data.measurements),
        freeze_backbone=settings.freeze_backbone,
        rematerialise=settings.rematerialise,
        dtype=jnp.dtype(config.train.precision),
        key=jax.random.fold_in(jax.random.key(config.seed), 0),
    )


def _of_network(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters without what is trained of the loss."""
    return {name: value for name, value in params.items() if name != LOSS}


def _normalisation(
    config: Config, data: dict[str, Any], provenance: weights.Provenance | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation for each channel that enters the network."""
    channels = config.model.in_channels
    if config.data.normalisation == "raw":
        return (0.0,) * channels, (1 / 255,) * channels
    if config.data.normalisation == "dataset":
        return (float(data["mean"]),) * channels, (float(data["std"]),) * channels
    if provenance is not None and provenance.mean:
        statistics = provenance
    elif isinstance(config.model.name, str):
        statistics = models.get_info(config.model.name)
    else:
        raise UserError(
            'config.data.normalisation: found "backbone" with a backbone that is a function; '
            'allowed then: "dataset".'
        )
    if channels == 1:
        return (float(np.mean(statistics.mean)),), (float(np.mean(statistics.std)),)
    return tuple(statistics.mean), tuple(statistics.std)


@dataclasses.dataclass(frozen=True)
class Training:
    """What the training loop runs. `train_step` and `eval_step` are pure; nothing is compiled."""

    network: Network
    state: TrainState
    train_step: Callable[..., Any]
    eval_step: Callable[..., Any]
    schedule: optim.Schedule
    steps_per_epoch: int
    total_steps: int
    evaluate_every: int


def make_training(
    config: Config,
    data: Data,
    *,
    fresh: bool = True,
    provenance: weights.Provenance | None = None,
    notify: Callable[[str], None] | None = None,
) -> Training:
    """The initial state and the steps of a run; the keywords and errors are those of
    `make_network`, and a plateau that is waited for without validation is refused."""
    taxonomy = data.taxonomy
    if config.optim.schedule == "plateau" and not len(data.rows["validation"]):
        raise UserError(
            "config.optim.schedule: found plateau, and no image falls to validation; allowed: "
            "another schedule, or a share for validation (config.split)."
        )
    network = make_network(
        config, data.description(), taxonomy, fresh=fresh, provenance=provenance, notify=notify
    )
    steps_per_epoch = max(1, round(len(data.rows["train"]) / config.train.batch_size))
    loss = losses.make_loss(config.loss, taxonomy, steps_per_epoch)
    if isinstance(loss, losses.LevelSchedule) and (trained := loss.initial_params()):
        network = dataclasses.replace(network, params=network.params | {LOSS: trained})
    total_steps = max(1, round(config.train.epochs * steps_per_epoch))
    settings = _with_frozen_backbone(config)
    schedule = optim.make_schedule(settings, total_steps, steps_per_epoch)
    optimizer = optim.make_optimizer(settings, network.params, schedule)
    constants = {"mean": network.mean, "std": network.std}
    decoder = own_decoder(config.model.head)
    return Training(
        network=network,
        state=initial_state(config, network, optimizer),
        train_step=make_train_step(
            network.apply,
            loss,
            optimizer,
            jnp.asarray(taxonomy.ancestors),
            optim.trainable(settings, network.params),
            ema_decay=config.train.ema_decay,
            mixup=config.augmentation.mixup,
            cutmix=config.augmentation.cutmix,
            decoder=decoder,
            **constants,
        ),
        eval_step=make_eval_step(
            network.apply,
            jnp.asarray(taxonomy.ancestors),
            decoder=decoder,
            **constants,
        ),
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        evaluate_every=max(1, round(config.train.evaluate_every_epochs * steps_per_epoch)),
    )


def try_step(config: Config, training: Training) -> None:
    """Traces what only a run itself can refuse, so that it is told before anything is written: the
    maps that branches read, and a step whose settings are functions.

    Raises:
      UserError: it cannot be traced.
    """
    network = training.network
    if config.model.head in BRANCH_HEADS:
        side, numbers = config.data.image_size, len(config.data.measurements)
        image = jax.ShapeDtypeStruct((1, side, side, config.model.in_channels), jnp.float32)
        measured = jax.ShapeDtypeStruct((1, numbers), jnp.float32)
        jax.eval_shape(network.embed, network.params, network.model_state, image, measured)
    given = [name for name, _, value in walk(config) if callable(value)]
    if not given:
        return
    size, batch = config.data.image_size, config.train.batch_size
    shapes = {
        "image": jax.ShapeDtypeStruct((batch, size, size, 1), jnp.uint8),
        "measurements": jax.ShapeDtypeStruct((batch, len(config.data.measurements)), jnp.float32),
        "leaf": jax.ShapeDtypeStruct((batch,), jnp.int32),
    }
    try:
        jax.eval_shape(training.train_step, training.state, shapes)
    except UserError:
        raise
    except Exception as error:
        settings = ", ".join(f"config.{name}" for name in given)
        raise UserError(
            f"{settings}: a training step with these functions fails "
            f"({type(error).__name__}: {error}). Signatures are in plankton_jax/config.py; --debug "
            "shows where."
        ) from error


def _with_frozen_backbone(config: Config) -> Any:
    """The optimiser's settings with the rule that a frozen backbone stands for."""
    if not config.model.freeze_backbone:
        return config.optim
    rules = (("backbone/.*", 0.0), *config.optim.learning_rate_rules)
    return dataclasses.replace(config.optim, learning_rate_rules=rules)


def initial_state(
    config: Config, network: Network, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step."""
    average = {"params": network.params, "model_state": network.model_state}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=network.params,
        model_state=network.model_state,
        opt_state=optimizer.init(network.params),
        plateau=optim.plateau_init(config.optim),
        ema=jax.tree.map(jnp.copy, average) if config.train.ema_decay else {},
        key=jax.random.key_data(jax.random.fold_in(jax.random.key(config.seed), 1)),
    )


def flat_metrics(levels: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics of all levels under `level/metric`, and those of the leaves under `metric` too."""
    flat = {f"{level['name']}/{name}": level[name] for level in levels for name in METRIC_NAMES}
    return flat | {name: levels[-1][name] for name in METRIC_NAMES}
