"""The report's hierarchical experiments (section 4) on ZooScan: heads on a frozen Swin-S3.

    python -m plankton_jax.train --config configs/zooscan_hierarchical.py:flat \
        --config.data.source=57398.tar --workdir runs/flat
    python -m plankton_jax.train --config configs/zooscan_hierarchical.py:bacnn \
        --config.model.initial_weights=runs/flat --config.data.source=57398.tar --workdir runs/bacnn
    python -m plankton_jax.tables --runs runs/flat runs/bacnn

Argument: flat (the default; the backbone's own fine-tuning, 25 epochs from ImageNet), or bcnn,
hbcnn, bacnn, sbacnn, add, concat, coherent (50 epochs of branch training on that backbone, which
does not move; with `--config.model.cache_features=4` it runs on four views of each image once, and
what that takes on disk is told first). Made for a GPU. The report gives no optimiser, learning rate
or batch size for these experiments; AdamW, 1e-3, 256 and cuts on a plateau are ours.
`whoi_hierarchical.py` is the same on WHOI's tree.
"""

from plankton_jax.config import Config
from plankton_jax.recipes import hierarchical

FILE, DATASET = "configs/zooscan_hierarchical.py", "zooscan/v1"


def get_config(arg: str | None = None) -> Config:
    """The settings of a head."""
    return settings(arg, DATASET, FILE)


def settings(arg: str | None, dataset: str, file: str) -> Config:
    """The settings of a head on a data set with a tree of three levels."""
    config = Config()
    config.data.dataset = dataset
    config.data.image_size = 224
    config.data.normalisation = "backbone"
    config.sampling.name = "weighted"
    config.model.name = "swin_s3_base_224"
    config.model.in_channels = 3
    config.train.precision = "bfloat16"
    config.train.batch_size = 256
    config.optim.schedule = "plateau"
    config.optim.plateau_monitor = "macro_f1"
    config.optim.plateau_mode = "max"
    config.checkpoint.monitor = "macro_f1"
    if arg in (None, "", "flat"):
        config.model.pretrained = "swin_s3_base_224.ms_in1k"
        config.train.epochs = 25
        config.optim.learning_rate = 1e-4
    else:
        config.model.freeze_backbone = True
        config.train.epochs = 50
        config.optim.learning_rate = 1e-3
    return hierarchical(config, arg, file)
