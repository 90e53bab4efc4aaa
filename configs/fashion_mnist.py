"""Fashion-MNIST on the branch papers' base C: their own experiments (Pizarro et al. 2023, and the
notebooks beside it), and ours.

    python -m plankton_jax.train --config configs/fashion_mnist.py:bacnn \
        --config.data.source=fashion-mnist --workdir runs/fashion_bacnn
    python -m plankton_jax.evaluate --run runs/fashion_bacnn --split test

Argument: bcnn, hbcnn, bacnn, add or concat (the papers' networks and hyper-parameters: 60 epochs
from scratch without augmentation, SGD with Nesterov momentum .9, learning rate .001, .0002 after
epoch 42 (their program counts from 0) and .00005 after 52, branch training with switches at 15, 25
and 35); flat, sbacnn or
coherent (other heads with the same base and hyper-parameters; flat has the cross-entropy of the
leaves, coherent that of all levels, equally); or best (the coherent head on base C with
augmentation). With /4 behind it, as in `bacnn/4`, every layer of the base has
a quarter of its channels, for a CPU. `data.source` is the folder of the four official files. The
test images are the official ones; nothing is chosen by them but what is told, so the
last checkpoint counts: evaluate with `--checkpoint last`. All of them, with several seeds:
`python benchmarks/fashion_mnist.py`. Made for a GPU.

Two widths are derived: the published numbers of parameters (in millions 40.6, 82.1, 15.2, 17.3 and
40.6 of bcnn, hbcnn, bacnn, add and concat) come out with 512 in the first branch of bcnn, hbcnn and
concat, where the papers' text has 256, and with 256 in the branches of add.
"""

import dataclasses

from plankton_jax.config import Config
from plankton_jax.errors import UserError, near_miss

ARGUMENTS = ("flat", "bcnn", "hbcnn", "bacnn", "sbacnn", "add", "concat", "coherent", "best")
WEIGHTS = ((0.98, 0.01, 0.01), (0.1, 0.8, 0.1), (0.1, 0.2, 0.7), (0.0, 0.0, 1.0))


def get_config(arg: str | None = None) -> Config:
    """The settings of a network; `data.source` has to be given."""
    name, _, share = (arg or "best").partition("/")
    if name not in ARGUMENTS or share not in ("", *NARROW):
        raise UserError(
            f'configs/fashion_mnist.py: found argument "{arg}". {near_miss(name, ARGUMENTS)} '
            f"Behind a slash may stand what channels are divided by: {', '.join(NARROW)}."
        )
    config = head_settings(name)
    if share:
        config.model.name = NARROW[share]
    return config


def half_base(**options):
    """Base C with half of its channels."""
    return narrow_base(2, **options)


def quarter_base(**options):
    """Base C with a quarter of its channels."""
    return narrow_base(4, **options)


def eighth_base(**options):
    """Base C with an eighth of its channels."""
    return narrow_base(8, **options)


NARROW = {"2": half_base, "4": quarter_base, "8": eighth_base}


def narrow_base(share: int, **options):
    """Base C with its channels divided by `share`."""
    from plankton_jax.models import branch_bases

    base = branch_bases.CONFIGS["bcnn_base_c"]
    blocks = tuple(tuple(width // share for width in block) for block in base.blocks)
    dense = tuple(width // share for width in base.dense)
    return branch_bases.build(dataclasses.replace(base, blocks=blocks, dense=dense), **options)


def head_settings(arg: str) -> Config:
    """The settings of a network on the whole base."""
    config = Config()
    config.data.dataset = "fashion_mnist"
    config.data.image_size = 28
    config.data.normalisation = "raw"
    config.split.method = "official"
    config.split.fractions = (1.0, 0.0, 0.0)  # nothing of the training images is held out
    config.train.batch_size = 128
    config.train.epochs = 60
    config.model.name = "bcnn_base_c"
    if arg == "best":
        return best(config)
    config.augmentation.manual = False
    config.optim.name = "sgd"
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.0
    config.optim.schedule = "step"
    config.optim.warmup_epochs = 0.0
    config.optim.step_epochs = (43.0, 53.0)
    config.optim.step_factor = (0.2, 0.25)
    if arg == "flat":
        return config
    config.model.head = arg
    config.loss.name = "level_cross_entropy"
    return config if arg == "coherent" else branched(config, arg)


def branched(config: Config, arg: str) -> Config:
    """The branches of a head, and their training."""
    config.head.branches = "dense"
    config.head.taps = (1, 2, -1)
    if arg == "bcnn":
        config.head.trunk = True
        config.head.branch_widths = (512, 1024)
    elif arg == "hbcnn":
        config.head.branch_widths = (512, 1024, 4096)
    elif arg == "concat":
        config.head.branch_widths = (512, 1024, 4096)
    elif arg == "add":
        config.head.width = 256
    else:
        config.head.width = 16
        config.head.attention_width = 2048
    config.loss.level_weights = WEIGHTS
    config.loss.level_epochs = (15, 25, 35)
    return config


def best(config: Config) -> Config:
    """One softmax of the leaves, so that every prediction is a path of the tree, on base C with
    augmentation: mirrored and shifted images, cut-out and mixed ones."""
    config.data.normalisation = "dataset"
    config.model.head = "coherent"
    config.loss.name = "level_cross_entropy"
    config.augmentation.vertical_flip = 0.0
    config.augmentation.rotation_degrees = 0.0
    config.augmentation.shift = 0.1
    config.augmentation.scale_jitter = 0.1
    config.augmentation.cutout = 0.5
    config.augmentation.cutmix = 1.0
    config.optim.learning_rate = 1e-3
    config.optim.gradient_clip = 5.0
    config.optim.warmup_epochs = 2.0
    config.train.epochs = 100
    config.train.ema_decay = 0.999
    config.loss.label_smoothing = 0.05
    config.loss.level_weights = ((0.1, 0.2, 0.7),)
    return config
