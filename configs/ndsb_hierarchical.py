"""The hierarchical heads on the tree of the National Data Science Bowl, from scratch, on a CPU.

    python -m plankton_jax.train --config configs/ndsb_hierarchical.py:bacnn \
        --config.data.source=train.zip --workdir runs/ndsb_bacnn
    python -m plankton_jax.evaluate --run runs/ndsb_bacnn --split test
    python -m plankton_jax.tables --runs runs/ndsb_*

Argument: flat, bcnn, hbcnn, bacnn, sbacnn, add, concat or coherent. The same small backbone and the
same number of epochs for each, so that the heads can be compared: about eight minutes on two cores.
"""

from plankton_jax.config import Config
from plankton_jax.recipes import hierarchical


def get_config(arg: str | None = None) -> Config:
    """The settings of a head; `data.source` has to be given."""
    config = Config()
    config.data.dataset = "ndsb"
    config.data.image_size = 48
    config.augmentation.rotation_frame = "square"
    config.augmentation.rotation_degrees = 15.0
    config.augmentation.scale_jitter = 0.12
    config.model.name = "plankton_cnn_tiny"
    config.optim.learning_rate = 3e-3
    config.optim.weight_decay = 0.1
    config.optim.gradient_clip = 5.0
    config.train.epochs = 12
    config.train.batch_size = 64
    config.train.ema_decay = 0.998
    config.checkpoint.monitor = "macro_f1"
    if arg not in (None, "", "flat", "coherent"):
        # The backbone's last map is 3 x 3; its blocks attend over all of it.
        config.head.branches = "parallel"
        config.head.window = 3
        if arg not in ("bcnn", "hbcnn"):
            config.head.width = 128
    return hierarchical(config, arg, "configs/ndsb_hierarchical.py")
