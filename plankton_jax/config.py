"""Every setting of a run: typed, documented, validated. Imports nothing heavy and touches nothing.

A configuration file's `get_config(arg)` returns a `Config`. Each field carries its meaning, unit
and source, the values allowed, and whether it can change a result: those that cannot may differ
when a run is continued.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Iterator
from typing import Any

from plankton_jax.errors import near_miss, raise_all
from plankton_jax.names import BACKBONES, HEADS

LOSSES = ("cross_entropy",)
SCHEDULES = ("constant", "cosine", "step", "plateau")
OPTIMIZERS = ("adamw", "sgd")
MEASUREMENTS = ("log_side", "log_elongation")
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
        "Folder or zip of the original images, for the builders that read one (image_folder, "
        "fashion_mnist).",
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
    image_size: int = setting(64, "Side of the square that enters the network, pixels.", low=8)
    geometry: str = setting(
        "squash",
        "How an image becomes a square: squash: both axes to the side, as the report does; pad: "
        "the longer axis to the side, the rest filled with the median of the image's border.",
        allowed=("squash", "pad"),
    )
    measurements: tuple[str, ...] = setting(
        (),
        "Numbers of the original image that the head sees beside the features, which the resize to "
        "a square loses: log_side, of the side of a square of the same area in pixels; "
        "log_elongation, of the longer side over the shorter.",
    )
    normalisation: str = setting(
        "dataset",
        "Mean and standard deviation that images are normalised with: the data set's own or the "
        "backbone's pretrained weights'.",
        allowed=("dataset", "backbone"),
    )
    worker_count: int = setting(
        0, "Loader processes; 0 loads in threads of this one.", low=0, affects_result=False
    )
    threads: int = setting(
        2, "Threads that decode and warp inside each loader process.", low=1, affects_result=False
    )


@dataclasses.dataclass
class SplitConfig:
    """Which images are trained on, chosen by and tested on."""

    method: str = setting(
        "hash",
        "hash: by a hash of the example id; stratified: the same within each class; official: the "
        "data set's own split.",
        allowed=("hash", "stratified", "official"),
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
        "(power 1 is the report's weighted random sampler).",
        allowed=("uniform", "weighted"),
    )
    power: float = setting(1.0, "Exponent of the weighted sampler.", low=0.0)


@dataclasses.dataclass
class AugmentationConfig:
    """Random changes of a training image, all made in one warp of the original pixels.

    The defaults are the report's manual recipe: both flips, rotation uniform in 0..180 degrees,
    then the resize to a square.
    """

    horizontal_flip: float = setting(0.5, "Probability of a left-right flip.", low=0, high=1)
    vertical_flip: float = setting(0.5, "Probability of an up-down flip.", low=0, high=1)
    rotation_degrees: float = setting(
        180.0, "Rotation is uniform in 0..this many degrees.", low=0, high=360
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


@dataclasses.dataclass
class ModelConfig:
    """The network: a backbone and a head."""

    name: object = setting(
        "plankton_cnn_tiny",
        "Backbone: a name of plankton_jax.models, or a function that makes one.",
    )
    head: object = setting("linear", "Head: a name of plankton_jax.heads, or a class.")
    in_channels: int = setting(1, "Channels that enter the network; 3 repeats the grey one.")
    drop_rate: float = setting(0.0, "Dropout before the head.", low=0, high=0.99)
    drop_path_rate: float = setting(0.0, "Stochastic depth of the last block.", low=0, high=0.99)
    pool: str = setting(
        "", 'Pooling of transformers: "token" or "mean"; empty: as the architecture has it.'
    )
    initial_weights: str = setting(
        "",
        "A safetensors file in timm's naming to start from; a head of other classes is left out.",
    )
    freeze_backbone: bool = setting(
        False, "Train the head alone: the backbone runs in inference mode and is not updated."
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
        0.0, "Share of the target spread evenly over all classes.", low=0, high=0.99
    )


@dataclasses.dataclass
class OptimConfig:
    """How parameters move. Epochs may be fractions."""

    name: str = setting("adamw", "Optimiser; sgd uses momentum.", allowed=OPTIMIZERS)
    learning_rate: float = setting(1e-3, "Peak learning rate.", low=0)
    weight_decay: float = setting(0.05, "Decoupled weight decay, times the learning rate.", low=0)
    beta1: float = setting(0.9, "AdamW's first moment decay.", low=0, high=0.9999)
    beta2: float = setting(0.999, "AdamW's second moment decay.", low=0, high=0.999999)
    epsilon: float = setting(1e-8, "AdamW's denominator offset.", low=0)
    momentum: float = setting(0.9, "SGD's momentum.", low=0, high=0.9999)
    nesterov: bool = setting(True, "SGD with Nesterov's look-ahead.")
    gradient_clip: float = setting(0.0, "Largest global gradient norm; 0: no clipping.", low=0)
    schedule: object = setting(
        "cosine",
        "Course of the learning rate: a name, or a function of the step that returns a factor, "
        "warm-up included.",
    )
    warmup_epochs: float = setting(1.0, "Linear warm-up from 0, epochs.", low=0)
    final_factor: float = setting(0.0, "Share of the peak that cosine ends at.", low=0, high=1)
    step_epochs: tuple[float, ...] = setting((), "Epochs at which schedule=step multiplies.")
    step_factor: float = setting(0.1, "What schedule=step multiplies by.", low=0, high=1)
    plateau_monitor: str = setting(
        "macro_f1", "Validation metric that schedule=plateau watches; level2/macro_f1 for a level."
    )
    plateau_mode: str = setting("max", "Whether more is better.", allowed=("max", "min"))
    plateau_factor: float = setting(0.1, "What a plateau multiplies by.", low=0, high=1)
    plateau_patience: int = setting(10, "Evaluations without gain that are borne.", low=0)
    plateau_threshold: float = setting(1e-4, "Relative gain that counts.", low=0)
    plateau_cooldown: int = setting(0, "Evaluations to wait after a cut.", low=0)
    learning_rate_rules: tuple[tuple[str, float], ...] = setting(
        ((".*", 1.0),),
        "(regex, factor) over parameter paths; the first match counts, 0 freezes. Every parameter "
        "must be covered and every rule must match one.",
    )
    weight_decay_rules: tuple[tuple[str, float], ...] = setting(
        ((".*(bias|scale)$", 0.0), (".*", 1.0)),
        "(regex, factor) over parameter paths, as learning_rate_rules.",
    )


@dataclasses.dataclass
class TrainConfig:
    """How long and in what arithmetic."""

    epochs: float = setting(10.0, "Length of the run; an epoch draws as many images as train has.")
    batch_size: int = setting(64, "Images a step, over all devices.", low=1)
    evaluate_every_epochs: float = setting(1.0, "Epochs between two validations.")
    precision: str = setting(
        "float32", "Arithmetic of the network.", allowed=("float32", "bfloat16")
    )
    ema_decay: float = setting(
        0.0,
        "Decay a step of the moving average of the parameters, which is then what is evaluated; "
        "0: none.",
        low=0,
        high=0.99999,
    )


@dataclasses.dataclass
class CheckpointConfig:
    """What is kept of a run."""

    every_steps: int = setting(
        0, "Steps between two saves beside those after each validation; 0: only those.", low=0
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


def validate(config: Config) -> None:
    """Checks every setting and how settings fit together.

    Raises:
      UserError: with one line for every setting that is wrong.
    """
    raise_all(unknown_fields(config) + all_problems(config))


def all_problems(config: Config) -> list[str]:
    """One line for every setting that is wrong by itself or beside others."""
    settings = list(walk(config))
    problems = [
        problem
        for name, field, value in settings
        for problem in _value_problems(name, field, value)
    ]
    if all(_has_type(value, field.type) for _, field, value in settings):
        problems += _joint_problems(config)
    return problems


def unknown_fields(config: Any, prefix: str = "") -> list[str]:
    """One line for every attribute that a configuration file set and that is no setting."""
    fields = {field.name for field in dataclasses.fields(config)}
    problems = [
        f"config.{prefix}{name}: there is no such setting. {near_miss(name, sorted(fields))}"
        for name in vars(config)
        if name not in fields
    ]
    for name in sorted(fields):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            problems += unknown_fields(value, f"{prefix}{name}.")
    return problems


def _value_problems(name: str, field: dataclasses.Field, value: Any) -> list[str]:
    """What is wrong with one value taken alone."""
    name = f"config.{name}"
    if not _has_type(value, field.type):
        return [f"{name}: found {value!r}; allowed: {_type_name(field.type)}."]
    allowed, low, high = (field.metadata.get(key) for key in ("allowed", "low", "high"))
    if allowed and value not in allowed:
        return [f'{name}: found "{value}". {near_miss(value, allowed)}']
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{name}: found {value}; allowed: a finite number."]
    if low is not None and value < low:
        return [f"{name}: found {value}; allowed: {low} or more."]
    if high is not None and value > high:
        return [f"{name}: found {value}; allowed: {high} or less."]
    return []


def _has_type(value: Any, kind: Any) -> bool:
    """Whether `value` is of the annotated type; an int passes for a float, a bool for neither."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is object:  # a name, or the function or class itself
        return isinstance(value, str) or callable(value)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        if arguments[-1] is Ellipsis:
            return all(_has_type(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_has_type, value, arguments))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _type_name(kind: Any) -> str:
    """The type as a reader of a message would name it."""
    if kind is object:
        return "a name, or a function or class"
    return getattr(kind, "__name__", str(kind)) if not typing.get_args(kind) else str(kind)


def _joint_problems(config: Config) -> list[str]:
    """What is wrong with settings taken together, and with names that need more than a list."""
    problems = []
    for name, value, allowed in (
        ("model.name", config.model.name, BACKBONES),
        ("model.head", config.model.head, HEADS),
        ("loss.name", config.loss.name, LOSSES),
        ("optim.schedule", config.optim.schedule, SCHEDULES),
    ):
        if isinstance(value, str) and value not in allowed:
            problems.append(f'config.{name}: found "{value}". {near_miss(value, allowed)}')
    for name, value in (
        ("checkpoint.monitor", config.checkpoint.monitor),
        ("optim.plateau_monitor", config.optim.plateau_monitor),
    ):
        metric = value.rpartition("/")[2]
        if metric not in METRICS:
            problems.append(f'config.{name}: found "{value}". {near_miss(metric, METRICS)}')
    for name, value in (
        ("epochs", config.train.epochs),
        ("evaluate_every_epochs", config.train.evaluate_every_epochs),
    ):
        if value <= 0:
            problems.append(f"config.train.{name}: found {value}; allowed: more than 0.")
    if config.model.in_channels not in (1, 3):
        problems.append(
            f"config.model.in_channels: found {config.model.in_channels}; allowed: 1 or 3."
        )
    if config.model.pool not in ("", "token", "mean"):
        problems.append(
            f'config.model.pool: found "{config.model.pool}"; allowed: "", "token" or "mean".'
        )
    problems += [
        f'config.data.measurements: found "{name}". {near_miss(name, MEASUREMENTS)}'
        for name in config.data.measurements
        if name not in MEASUREMENTS
    ]
    problems += _fraction_problems(config.split.fractions)
    for name in ("learning_rate_rules", "weight_decay_rules"):
        for pattern, _ in getattr(config.optim, name):
            problems += _pattern_problem(f"config.optim.{name}", pattern)
    if config.optim.schedule == "step" and not config.optim.step_epochs:
        problems.append(
            "config.optim.step_epochs: found (); allowed with schedule=step: one epoch or more."
        )
    problems += _ignored_problems(config)
    if (
        config.optim.warmup_epochs >= config.train.epochs
        and config.optim.schedule != "plateau"
        and isinstance(config.optim.schedule, str)
    ):
        problems.append(
            f"config.optim.warmup_epochs: found {config.optim.warmup_epochs}; allowed: less than "
            f"config.train.epochs, which is {config.train.epochs}."
        )
    return problems


def _pattern_problem(name: str, pattern: str) -> list[str]:
    """Says where a regular expression is none."""
    try:
        re.compile(pattern)
    except re.error as error:
        return [f'{name}: found "{pattern}", which is no regular expression ({error}).']
    return []


def _ignored_problems(config: Config) -> list[str]:
    """Settings that would do nothing, or the reverse of what they are for, beside others."""
    problems = []
    if callable(config.loss.name) and config.loss.label_smoothing:
        problems.append(
            f"config.loss.label_smoothing: found {config.loss.label_smoothing} with a loss that is "
            "a function; allowed: 0. Smooth inside the function."
        )
    plateau = config.optim.schedule == "plateau"
    for name, monitor, mode, counts in (
        ("checkpoint.mode", config.checkpoint.monitor, config.checkpoint.mode, True),
        ("optim.plateau_mode", config.optim.plateau_monitor, config.optim.plateau_mode, plateau),
    ):
        better = "min" if monitor.rpartition("/")[2] == "log_loss" else "max"
        if counts and mode != better:
            problems.append(f'config.{name}: found "{mode}" with {monitor}; allowed: "{better}".')
    if plateau and config.split.method != "official" and config.split.fractions[1:2] == (0,):
        problems.append(
            "config.optim.schedule: found plateau with config.split.fractions that leave nothing "
            "to validation; allowed: another schedule, or a share for validation."
        )
    if config.data.seed and config.data.dataset != "synthetic_plankton":
        problems.append(
            f"config.data.seed: found {config.data.seed}; allowed: 0, as only synthetic_plankton "
            "is drawn. The seed of a run is config.seed."
        )
    return problems


def _fraction_problems(fractions: tuple[float, ...]) -> list[str]:
    """What is wrong with the shares of train, validation and test."""
    if len(fractions) != 3 or min(fractions, default=0) < 0 or abs(sum(fractions) - 1) > 1e-6:
        return [
            f"config.split.fractions: found {tuple(fractions)}; allowed: three numbers of 0 or "
            "more that add up to 1 (train, validation, test)."
        ]
    if fractions[0] == 0:
        return ["config.split.fractions: train has no share; allowed: more than 0 for the first."]
    return []


def setting_names(config: Config) -> list[str]:
    """The dotted names of all settings."""
    return [name for name, _, _ in walk(config)]


def result_settings(config: Config) -> dict[str, Any]:
    """The settings that can change a result, by dotted name."""
    return {n: v for n, field, v in walk(config) if field.metadata.get("affects_result", True)}
