"""Your own images: one folder a class, at any depth, or a zip of such a folder.

    python -m plankton_jax.train --config configs/image_folder.py \
        --config.data.source=images --workdir runs/mine
    python -m plankton_jax.evaluate --run runs/mine --split test

A small network from scratch, on a CPU; the split is stratified, so that small classes are in every
part as far as their images reach.
"""

from plankton_jax.config import Config


def get_config() -> Config:
    """The settings for a folder of images; `data.source` has to be given."""
    config = Config()
    config.data.dataset = "image_folder"
    config.data.image_size = 64
    config.data.measurements = ("log_side", "log_elongation")
    config.split.method = "stratified"
    config.model.name = "plankton_cnn_small"
    config.model.drop_rate = 0.2
    # The network knows flips and quarter turns by itself. Turning the image in its own frame, as
    # the report does, would cut off the ends of long organisms; this turns the finished square.
    config.augmentation.rotation_frame = "square"
    config.augmentation.rotation_degrees = 15.0
    config.augmentation.scale_jitter = 0.12
    config.augmentation.shift = 0.05
    config.train.epochs = 20
    config.train.batch_size = 64
    config.train.ema_decay = 0.99
    config.optim.learning_rate = 2e-3
    config.loss.label_smoothing = 0.05
    config.checkpoint.monitor = "macro_f1"
    return config
