"""A training step of a named network, and what it runs on, for benchmarks of it alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plankton_jax import losses, models, optim
from plankton_jax.config import Config
from plankton_jax.experiment import Network, initial_state
from plankton_jax.train_step import make_train_step


def make_batch(size: int, side: int) -> dict[str, jax.Array]:
    """A batch as the loop's, of random grey images, on the device."""
    images = np.random.default_rng(0).integers(0, 256, (size, side, side, 1), dtype=np.uint8)
    return {
        "image": jnp.asarray(images),
        "measurements": jnp.zeros((size, 0), jnp.float32),
        "leaf": jnp.zeros(size, jnp.int32),
    }


def make_model(config: Config, classes: int) -> Any:
    """The network of `config`."""
    return models.create_model(
        config.model.name,
        classes,
        image_size=config.data.image_size,
        in_channels=config.model.in_channels,
        rematerialise=config.model.rematerialise,
        dtype=jnp.dtype(config.train.precision),
        key=jax.random.key(0),
    )


def make_training(config: Config, classes: int) -> tuple[Any, Any]:
    """The loop's training step of `config`'s network and optimiser, and its initial state."""
    graph, params, model_state = models.split_model(make_model(config, classes))

    def apply(params, model_state, images, measurements, *, train, key):
        del measurements
        return models.apply(graph, params, model_state, images, train=train, key=key)

    channels = config.model.in_channels
    network = Network(
        params,
        model_state,
        apply,
        apply,
        apply,
        apply,
        mean=(0.5,) * channels,
        std=(0.2,) * channels,
    )
    optimizer = optim.make_optimizer(config.optim, params, lambda step: 1e-3)
    step = make_train_step(
        apply,
        losses.make_loss(config.loss),
        optimizer,
        jnp.arange(classes)[None],
        optim.trainable(config.optim, params),
        mean=network.mean,
        std=network.std,
        ema_decay=config.train.ema_decay,
    )
    return step, initial_state(config, network, optimizer)
