"""Every setting of a run: typed and documented. Imports nothing heavy and touches nothing.

A configuration file's `get_config(arg)` returns a `Config`. Each field carries its meaning, unit
and source, the values allowed, and whether it can change a result: those that cannot may differ
when a run is continued.
"""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

LOSSES = (
    "cross_entropy",
    "auxiliary_cross_entropy",
    "level_cross_entropy",
    "hierarchical_cross_entropy",
    "tree_soft_labels",
)
SCHEDULES = ("constant", "cosine", "step", "plateau")
OPTIMIZERS = ("adamw", "sgd")
MEASUREMENTS = ("log_side", "log_height", "log_width", "log_elongation")
FEATURE = "feature:"
"""Begins the measurements that are numbers which came with the images."""
UNDECAYED = (
    "bias",
    "scale",
    "gamma",
    "cls_token",
    "dist_token",
    "pos_embed",
    "relative_position_bias_table",
    "level_log_variance",
)
METRICS = (
    "micro_accuracy",
    "macro_accuracy",
    "macro_f1",
    "weighted_f1",
    "macro_precision",
    "macro_recall",
    "top5_accuracy",
    "log_loss",
)

KERAS_HUB = "keras_hub:"
"""Begins the names of KerasHub's backbones; see `plankton_jax.models`."""


def setting(
    default: Any,
    doc: str,
    *,
    allowed: tuple[str, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    affects_result: bool = True,
) -> Any:
    """A dataclass field with its meaning, its allowed values or range (both ends included)."""
    metadata = {"doc": doc, "allowed": allowed, "low": low, "high": high}
    return dataclasses.field(
        default=default, metadata=metadata | {"affects_result": affects_result}
    )


@dataclasses.dataclass
class DataConfig:
    """Which images, where they lie, how large they enter the network."""

    dataset: str = setting(
        "synthetic_plankton",
        "Name of a builder in data_builders/, or the path of a data set that was built before. A "
        "run knows its data by their fingerprint.",
        affects_result=False,
    )
    data_dir: str = setting("data", "Folder that holds the built data sets.", affects_result=False)
    source: str = setting(
        "",
        "Folder or archive of the original images, as the README beside each builder says.",
        affects_result=False,
    )
    taxonomy_csv: str = setting(
        "",
        "Table with the tree above the classes (level1, ..., taxon); empty: the folders' tree.",
        affects_result=False,
    )
    num_examples: int = setting(
        0, "Images that synthetic_plankton draws; 0: its own default, 10,000.", low=0
    )
    seed: int = setting(0, "Seed of what synthetic_plankton draws.", low=0)
    features: bool = setting(
        False,
        "Store the numbers that come with the images of some data sets (zooscan, ecotaxa), for "
        "config.data.measurements.",
    )
    statuses: tuple[str, ...] = setting(
        (),
        "Which annotations of an EcoTaxa export count: validated, predicted, dubious; empty: the "
        "validated ones.",
    )
    labels: str = setting(
        "",
        "Labels of the images of ifcb: a csv with the columns pid and label, or class scores "
        "(HDF5, or a folder of them); empty: the images have none.",
        affects_result=False,
    )
    beam: str = setting(
        "",
        "Options of Apache Beam to build the data set with in parallel, such as "
        '"--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=8"; '
        "empty: without Beam.",
        affects_result=False,
    )
    image_size: int = setting(64, "Side of the square that enters the network, pixels.", low=8)
    geometry: str = setting(
        "squash",
        "How an image becomes a square: squash: both axes to the side, as the report does; pad: "
        "the longer axis to the side, the rest filled with the median of the image's border; "
        "preserve_size: the same, but an image smaller than the square keeps its size.",
        allowed=("squash", "pad", "preserve_size"),
    )
    crop_bottom_px: int = setting(
        0,
        "Lines cut off at the bottom of every image that is higher: a scale bar; some exports have "
        "31.",
        low=0,
    )
    pixel_size_um: float = setting(
        0.0,
        "Side of a pixel, micrometres: log_side, log_height and log_width then count micrometres, "
        "so that networks can be moved between instruments; 0: they count pixels.",
        low=0,
    )
    measurements: tuple[str, ...] = setting(
        (),
        "Numbers of the original image that the head sees beside the features, which the resize to "
        "a square loses: log_side, of the side of a square of the same area; log_height; "
        "log_width; log_elongation, of the longer side over the shorter; feature:NAME, a number "
        "that came with the images (config.data.features).",
    )
    normalisation: str = setting(
        "dataset",
        "Mean and standard deviation that images are normalised with: the data set's own or the "
        "backbone's pretrained weights'; raw: grey levels enter as 0..255.",
        allowed=("dataset", "backbone", "raw"),
    )
    worker_count: int = setting(
        0, "Loader processes; 0 loads in threads of this one.", low=0, affects_result=False
    )
    threads: int = setting(
        2, "Threads that decode and warp inside each loader process.", low=1, affects_result=False
    )
    worker_timeout: float = setting(
        300.0,
        "Seconds; loader processes that give no batch for so long are ended and started anew.",
        low=1,
        affects_result=False,
    )
    unreadable: str = setting(
        "stop",
        "What a record that cannot be read, or that ends or stops loader processes, does: stop the "
        "run, or skip, which tells of it; in its place comes another image of the batch, in an "
        "evaluation none.",
        allowed=("stop", "skip"),
        affects_result=False,
    )


@dataclasses.dataclass
class SplitConfig:
    """Which images are trained on, chosen by and tested on."""

    method: str = setting(
        "hash",
        "hash: by a hash of the example id; stratified: the same within each class; official: the "
        "data set's own split; grouped: by hash, whole groups (samples, bins) together.",
        allowed=("hash", "stratified", "official", "grouped"),
    )
    group_depth: int = setting(
        0,
        "How many parts of a group's name, between slashes, method=grouped goes by; 0: all. For "
        "whoi 1 keeps years together and 0 bins.",
        low=0,
    )
    together: str = setting(
        "",
        "Images that method=hash and grouped put in one part: duplicates, those of the same "
        "content; near_duplicates, those that python -m plankton_jax.data --leaks found.",
        allowed=("", "duplicates", "near_duplicates"),
    )
    fractions: tuple[float, ...] = setting(
        (0.6, 0.2, 0.2), "Shares of train, validation and test; the report's 60/20/20."
    )
    seed: int = setting(0, "Seed of the split.", low=0)


@dataclasses.dataclass
class SamplingConfig:
    """In what order and how often training images are drawn."""

    name: str = setting(
        "uniform",
        "uniform: every image once an epoch; weighted: with replacement, weight 1/n_class^power "
        "(power 1 is the report's weighted random sampler); repeat_factor: an image of a rare "
        "class max(1, sqrt(threshold / share)) times an epoch.",
        allowed=("uniform", "weighted", "repeat_factor"),
    )
    power: float = setting(1.0, "Exponent of the weighted sampler.", low=0.0)
    threshold: float = setting(
        1e-3,
        "repeat_factor: classes with a smaller share of the images are repeated (Gupta et al. "
        "2019).",
        low=0,
        high=1,
    )
    class_cap: int = setting(
        0, "Most training images of a class that are used, always the same; 0: all.", low=0
    )
    weights: str = setting(
        "",
        "A csv with the columns id and weight: how much likelier weighted draws an image than "
        "others of its class; 1 for those that are not in it.",
    )


@dataclasses.dataclass
class AugmentationConfig:
    """Random changes of a training image: first those of the manual recipe, all made in one warp of
    the original pixels, then operations on the finished square, last mixing of whole images.

    The defaults are the report's manual recipe: both flips, rotation uniform in 0..180 degrees,
    then the resize to a square. Its random recipe is manual=False, policy="randaugment".
    """

    manual: bool = setting(
        True, "Whether the changes from horizontal_flip to contrast are made; none are without."
    )
    horizontal_flip: float = setting(
        0.5, "Probability of a left-right flip; the report's.", low=0, high=1
    )
    vertical_flip: float = setting(
        0.5, "Probability of an up-down flip; the report's.", low=0, high=1
    )
    rotation_degrees: float = setting(
        180.0, "Rotation is uniform in 0..this many degrees; the report's.", low=0, high=360
    )
    rotation_frame: str = setting(
        "image",
        "image: turned in its own rectangle before the squash, as the report does, which cuts the "
        "ends off a long thin organism; square: turned after the squash, which cuts corners alone.",
        allowed=("image", "square"),
    )
    quarter_turns: bool = setting(False, "Rotate by a random multiple of 90 degrees as well.")
    scale_jitter: float = setting(
        0.0, "Scale is exp(uniform(-s, s)), drawn for each image.", low=0, high=1
    )
    shift: float = setting(0.0, "Shift is uniform in +-this share of the side.", low=0, high=0.5)
    brightness: float = setting(
        0.0, "Grey levels are shifted by uniform(-b, b) of the full range.", low=0, high=1
    )
    contrast: float = setting(
        0.0, "Contrast about the image's mean is scaled by 1 + uniform(-c, c).", low=0, high=1
    )
    policy: str = setting(
        "none",
        "A recipe of operations after the resize, torchvision's of the name: randaugment (Cubuk et "
        "al. 2019), autoaugment (for ImageNet; Cubuk et al. 2018), trivialaugment (Müller and "
        "Hutter 2021).",
        allowed=("none", "randaugment", "autoaugment", "trivialaugment"),
    )
    policy_operations: int = setting(
        4, "Operations of randaugment on each image; the report's.", low=1, high=16
    )
    policy_magnitude: int = setting(
        8, "How strong those of randaugment are, in 30 steps; the report's.", low=0, high=30
    )
    blur: float = setting(
        0.0,
        "Gaussian blur of a standard deviation uniform in 0..this many pixels of the square.",
        low=0,
        high=20,
    )
    noise: float = setting(
        0.0,
        "Gaussian noise of a standard deviation uniform in 0..this share of the full range.",
        low=0,
        high=1,
    )
    cutout: float = setting(
        0.0,
        "A square about a random pixel is filled with the border's grey; its side is uniform in "
        "0..this share of the image's (DeVries and Taylor 2017).",
        low=0,
        high=1,
    )
    mixup: float = setting(
        0.0,
        "Each image is blended with another, and its loss with that of the other's label, with a "
        "weight from Beta(a, a) of this a; 0 for none (Zhang et al. 2018).",
        low=0,
    )
    cutmix: float = setting(
        0.0,
        "A rectangle of another image, of a share of the area from Beta(a, a) of this a, is put "
        "into each image; 0 for none. With mixup too, a fair coin chooses (Yun et al. 2019).",
        low=0,
    )


@dataclasses.dataclass
class ModelConfig:
    """The network: a backbone and a head."""

    name: object = setting(
        "plankton_cnn_tiny",
        "Backbone: a name of plankton_jax.models, keras_hub: and a preset or configuration of "
        "KerasHub (README), or a function that makes one.",
    )
    head: object = setting("linear", "Head: a name of plankton_jax.heads, or a class.")
    in_channels: int = setting(1, "Channels that enter the network; 3 repeats the grey one.")
    drop_rate: float = setting(
        0.0, "Probability of dropout before the head (Srivastava et al. 2014).", low=0, high=0.99
    )
    drop_path_rate: float = setting(
        0.0,
        "Probability that the last block is skipped, less for earlier ones (Huang et al. 2016).",
        low=0,
        high=0.99,
    )
    pool: str = setting(
        "", 'Pooling of transformers: "token" or "mean"; empty: as the architecture has it.'
    )
    initial_weights: str = setting(
        "",
        "File to start from: safetensors in timm's naming, what the convert command wrote, or a "
        "PyTorch file; a head of other classes is left out. Or the directory of a run of the same "
        "backbone, whose best checkpoint's backbone is taken.",
    )
    pretrained: str = setting(
        "",
        "Public weights to start from, NAME.TAG as in timm, downloaded at first use; instead of "
        "initial_weights.",
    )
    weights_cache: str = setting(
        "~/.cache/plankton_jax/weights",
        "Folder of downloaded weights, NAME.TAG.safetensors with their checksums.",
        affects_result=False,
    )
    freeze_backbone: bool = setting(
        False, "Train the head alone: the backbone runs in inference mode and is not updated."
    )
    cache_features: int = setting(
        0,
        "With freeze_backbone: augmented views of each training image whose features are computed "
        "once and kept in config.data.data_dir, so that training never runs the backbone; 0: none, "
        "it runs on new views all the time.",
        low=0,
    )
    rematerialise: bool = setting(
        False,
        "Compute the insides of blocks again in the backward pass instead of keeping them (Chen et "
        "al. 2016): less memory, about a third more time.",
    )


@dataclasses.dataclass
class HeadConfig:
    """The branches of the hierarchical heads: bcnn, hbcnn, bacnn, sbacnn, add, concat."""

    branches: str = setting(
        "sequence",
        "What a branch reads. sequence: a Swin block behind the one of the level before, the first "
        "on the last map, as the report has it; parallel: a Swin block of its own on the last map; "
        "stages: a Swin block on a stage of its own; dense: a stage's map as it is (bcnn_base_b "
        "and _c).",
        allowed=("sequence", "parallel", "stages", "dense"),
    )
    taps: tuple[int, ...] = setting(
        (),
        "Stages that the branches read, coarse to fine, from the end where negative, for sequence "
        "the same for all; empty: the last one, and for stages and dense the last ones.",
    )
    window: int = setting(
        7, "Side of the windows of the branches' Swin blocks, tokens; Swin-S3's.", low=1
    )
    branch_widths: tuple[int, ...] = setting(
        (),
        "Of bcnn and hbcnn: width of two dense layers of each branch (ReLU, batch norm, dropout "
        ".5); empty: none. With the trunk, of all branches but the last. Of concat: in the place "
        "of head.width, of all branches.",
    )
    trunk: bool = setting(
        False, "The last branch reads the backbone's pooled features (bcnn_base_*: its trunk)."
    )
    connections: tuple[tuple[int, ...], ...] = setting(
        (), "Of hbcnn: the branches that each branch reads; empty: itself and all coarser ones."
    )
    bilinear: bool = setting(
        False, "Branches read bilinear pooling of their map, as HB-CNN's paper (Lin et al. 2015)."
    )
    bilinear_width: int = setting(64, "Channels before the bilinear pooling.", low=1)
    width: int = setting(
        256, "Of bacnn, sbacnn, add, concat: length of each branch's features; BA-CNN's.", low=1
    )
    attention_width: int = setting(
        64, "Of bacnn and sbacnn: hidden width of each attention scorer; BA-CNN's.", low=1
    )
    attention: str = setting(
        "sample",
        "sample: every image has attention weights of its own; batch0: all have those of the "
        "batch's first image, a mistake of BA-CNN's authors, to reproduce their figures.",
        allowed=("sample", "batch0"),
    )


@dataclasses.dataclass
class LossConfig:
    """What is minimised."""

    name: object = setting(
        "cross_entropy",
        "A name of plankton_jax.losses, or a function (level_logits, labels) -> loss of each "
        "example; labels are `b levels`.",
    )
    label_smoothing: float = setting(
        0.0,
        "Share of the target spread evenly over all classes (Szegedy et al. 2016).",
        low=0,
        high=0.99,
    )
    level_weights: tuple[tuple[float, ...], ...] = setting(
        (),
        "Of level_cross_entropy: weights of the levels, coarse to fine; later rows take over at "
        "level_epochs. The branch papers' and the report's: (.98, .01, .01), (.1, .8, .1), "
        "(.1, .2, .7), (.01, .01, .98). Empty: all levels alike.",
    )
    level_epochs: tuple[float, ...] = setting(
        (), "Epochs (from 0) at which the second and later rows of level_weights begin."
    )
    level_schedule: str = setting(
        "step",
        "step: a row holds until the next; linear: weights move from row to row, which are reached "
        "at level_epochs; learned: weights are trained, from uncertainty (Kendall et al. 2018).",
        allowed=("step", "linear", "learned"),
    )
    tree_alpha: float = setting(
        0.1,
        "Of hierarchical_cross_entropy: an edge of the tree counts exp(-alpha h), h its lower "
        "node's height (Bertinetto et al. 2020).",
        low=0,
    )
    tree_beta: float = setting(
        10.0,
        "Of tree_soft_labels: a class at distance d from the true one, 1 across the whole tree, "
        "has a share of the label proportional to exp(-beta d) (Bertinetto et al. 2020).",
        low=0,
    )


@dataclasses.dataclass
class OptimConfig:
    """How parameters move. Epochs may be fractions."""

    name: str = setting(
        "adamw", "adamw (Loshchilov & Hutter 2019) or sgd with momentum.", allowed=OPTIMIZERS
    )
    learning_rate: float = setting(
        1e-3, "Peak learning rate, a step; AdamW's customary one.", low=0
    )
    weight_decay: float = setting(
        0.05,
        "Decoupled decay a step, times the learning rate (Loshchilov & Hutter 2019).",
        low=0,
    )
    beta1: float = setting(
        0.9, "AdamW's decay of the first moment, a step (Kingma & Ba 2015).", low=0, high=0.9999
    )
    beta2: float = setting(
        0.999,
        "AdamW's decay of the second moment, a step (Kingma & Ba 2015).",
        low=0,
        high=0.999999,
    )
    epsilon: float = setting(1e-8, "AdamW's offset of the denominator (Kingma & Ba 2015).", low=0)
    momentum: float = setting(0.9, "SGD's momentum, as in PyTorch.", low=0, high=0.9999)
    nesterov: bool = setting(True, "SGD with Nesterov's look-ahead, as in PyTorch.")
    gradient_clip: float = setting(
        0.0, "Largest norm of the whole gradient (Pascanu et al. 2013); 0: no clipping.", low=0
    )
    schedule: object = setting(
        "cosine",
        "Course of the learning rate: a name, or a function of the step that returns a factor, "
        "warm-up included.",
    )
    warmup_epochs: float = setting(1.0, "Linear warm-up from 0, epochs (Goyal et al. 2017).", low=0)
    final_factor: float = setting(
        0.0, "Share of the peak that cosine ends at (Loshchilov & Hutter 2017).", low=0, high=1
    )
    step_epochs: tuple[float, ...] = setting((), "Epochs at which schedule=step multiplies.")
    step_factor: tuple[float, ...] = setting(
        (0.1,), "What schedule=step multiplies by: at all of step_epochs, or at each."
    )
    plateau_monitor: str = setting(
        "macro_f1", "Validation metric that schedule=plateau watches; level2/macro_f1 for a level."
    )
    plateau_mode: str = setting("max", "Whether more is better.", allowed=("max", "min"))
    plateau_factor: float = setting(
        0.1, "What a plateau multiplies by; PyTorch's default, as those below.", low=0, high=1
    )
    plateau_patience: int = setting(10, "Evaluations without gain that are borne.", low=0)
    plateau_threshold: float = setting(1e-4, "Relative gain that counts.", low=0)
    plateau_cooldown: int = setting(0, "Evaluations to wait after a cut.", low=0)
    learning_rate_rules: tuple[tuple[str, float], ...] = setting(
        ((".*", 1.0),),
        "(regex, factor) over parameter paths; the first match counts, 0 freezes. Every parameter "
        "must be covered and every rule must match one.",
    )
    weight_decay_rules: tuple[tuple[str, float], ...] = setting(
        ((f".*({'|'.join(UNDECAYED)})$", 0.0), (".*", 1.0)),
        "(regex, factor) over parameter paths, as learning_rate_rules. Spared are, as in timm, "
        "offsets, factors, tokens and what says where a token is.",
    )


@dataclasses.dataclass
class TrainConfig:
    """How long and in what arithmetic."""

    epochs: float = setting(10.0, "Length of the run; an epoch draws as many images as train has.")
    batch_size: int = setting(64, "Images a step, over all devices and processes.", low=1)
    evaluate_every_epochs: float = setting(
        1.0, "Epochs between two validations; a run ends with one in any case."
    )
    precision: str = setting(
        "float32",
        "Arithmetic of the network; parameters and statistics are float32 in both.",
        allowed=("float32", "bfloat16"),
    )
    ema_decay: float = setting(
        0.0,
        "Decay a step of the moving average of the parameters (Polyak & Juditsky 1992), which is "
        "then what is evaluated; 0: none.",
        low=0,
        high=0.99999,
    )


@dataclasses.dataclass
class CheckpointConfig:
    """What is kept of a run."""

    every_steps: int = setting(
        0,
        "Steps between two saves beside those after each validation; 0: only those.",
        low=0,
        affects_result=False,
    )
    keep: int = setting(2, "Newest checkpoints kept.", low=1, affects_result=False)
    monitor: str = setting(
        "macro_f1", "Validation metric by which the best is chosen; level2/macro_f1 for a level."
    )
    mode: str = setting("max", "Whether more is better.", allowed=("max", "min"))


@dataclasses.dataclass
class LoggingConfig:
    """What is told of a run while it goes."""

    every_steps: int = setting(
        50, "Steps between two lines of training metrics.", low=1, affects_result=False
    )
    tensorboard: bool = setting(True, "Write TensorBoard events.", affects_result=False)
    trackers: tuple[str, ...] = setting(
        (),
        "Services that metrics go to as well: mlflow, wandb; of the extra `tracking`, set up by "
        "their own environment variables.",
        affects_result=False,
    )
    compilation_cache: str = setting(
        "~/.cache/plankton_jax/xla",
        "Folder of compiled programs, which makes later starts quick; empty: none.",
        affects_result=False,
    )


@dataclasses.dataclass
class Config:
    """A whole run."""

    seed: int = setting(
        0, "Seed of the initial parameters, sampling, augmentation, dropout.", low=0
    )
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    split: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    augmentation: AugmentationConfig = dataclasses.field(default_factory=AugmentationConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    head: HeadConfig = dataclasses.field(default_factory=HeadConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)


def walk(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """Yields (dotted name, field, value) of every setting, depth first."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field, value


def coerced(value: Any, kind: Any) -> Any:
    """A value of a setting as its type has it, so that what means the same is the same: whole
    numbers where any are allowed become floats, lists tuples. Values of a wrong type stay."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(kind) is tuple and isinstance(value, (tuple, list)):
        kinds = typing.get_args(kind)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        return tuple(map(coerced, value, kinds))
    return value


def setting_names(config: Config) -> list[str]:
    """The dotted names of all settings."""
    return [name for name, _, _ in walk(config)]


def result_settings(config: Config) -> dict[str, Any]:
    """The settings that can change a result, by dotted name."""
    return {n: v for n, field, v in walk(config) if field.metadata.get("affects_result", True)}
