"""A small network on the embedded data set: everything once, on any machine.

    python -m plankton_jax.train --config configs/quickstart.py --workdir runs/quickstart
    python -m plankton_jax.evaluate --run runs/quickstart --split test

Argument `:tiny` is the same on 1,000 images for two epochs, with a checkpoint every 5 steps: it is
what tests and quick checks use.
"""

from plankton_jax.config import Config
from plankton_jax.errors import UserError


def get_config(arg: str | None = None) -> Config:
    """The quickstart, or with `tiny` the smallest run that still does everything."""
    config = Config()
    config.data.dataset = "synthetic_plankton"
    config.data.num_examples = 10_000
    config.data.image_size = 48
    config.model.name = "plankton_cnn_tiny"
    config.train.epochs = 12
    config.train.batch_size = 64
    config.train.ema_decay = 0.99
    config.optim.learning_rate = 3e-3
    config.loss.label_smoothing = 0.05
    config.checkpoint.monitor = "micro_accuracy"
    if arg == "tiny":
        config.data.num_examples = 1_000
        config.train.epochs = 2
        config.checkpoint.every_steps = 5
        config.optim.warmup_epochs = 0.5
        config.logging.every_steps = 5
    elif arg:
        raise UserError(f'configs/quickstart.py: found argument "{arg}"; allowed: none or "tiny".')
    return config
