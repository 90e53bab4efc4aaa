"""Which settings would do nothing, or the reverse of what they are for, beside others. Pure and
light; each setting is of its type already.
"""

import dataclasses

from plankton_jax.config import Config
from plankton_jax.names import ATTENTION_HEADS, BRANCH_HEADS

UNSMOOTHED = ("hierarchical_cross_entropy", "tree_soft_labels")


def ineffective_problems(config: Config) -> list[str]:
    """Settings that would do nothing, or the reverse of what they are for, beside others."""
    problems = []
    if callable(config.loss.name) and config.loss.label_smoothing:
        problems.append(
            f"config.loss.label_smoothing: found {config.loss.label_smoothing} with a loss that is "
            "a function; allowed: 0. Smooth inside the function."
        )
    if config.loss.label_smoothing and config.loss.name in UNSMOOTHED:
        problems.append(
            f"config.loss.label_smoothing: found {config.loss.label_smoothing} with config.loss."
            f"name={config.loss.name}, whose labels the tree spreads; allowed: 0."
        )
    if config.loss.label_smoothing and config.model.head == "sbacnn":
        problems.append(
            f"config.loss.label_smoothing: found {config.loss.label_smoothing} with config.model."
            'head="sbacnn", whose sides would then learn from images of the other sides; allowed: '
            "0."
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
    if plateau and config.train.evaluate_every_epochs >= config.train.epochs:
        problems.append(
            "config.train.evaluate_every_epochs: found "
            f"{config.train.evaluate_every_epochs} with config.optim.schedule=plateau, which looks "
            f"at validations; allowed: less than config.train.epochs, which is "
            f"{config.train.epochs}."
        )
    if config.split.together and config.split.method not in ("hash", "grouped"):
        problems.append(
            f'config.split.together: found "{config.split.together}" with config.split.method='
            f'{config.split.method}; allowed with it: "", or method hash or grouped.'
        )
    problems += _unused_problems(config)
    if config.data.seed and config.data.dataset != "synthetic_plankton":
        problems.append(
            f"config.data.seed: found {config.data.seed}; allowed: 0, as only synthetic_plankton "
            "is drawn. The seed of a run is config.seed."
        )
    return problems


def _unused_problems(config: Config) -> list[str]:
    """Settings that were given a value and that another setting leaves without effect."""
    optim, schedule = config.optim, config.optim.schedule
    adamw, named = optim.name == "adamw", isinstance(schedule, str)
    weighted = config.sampling.name == "weighted"
    repeats = config.sampling.name == "repeat_factor"
    plateau = [field.name for field in dataclasses.fields(optim) if field.name[:8] == "plateau_"]
    augmentation = [field.name for field in dataclasses.fields(config.augmentation)]
    manual = augmentation[1 : augmentation.index("policy")]
    randomly = config.augmentation.policy == "randaugment"
    head, loss = config.model.head, config.loss.name
    branched = head in BRANCH_HEADS
    widths = ("bcnn", "hbcnn", "concat")
    coupled = head in (*ATTENTION_HEADS, "add", "concat")
    one_width = coupled and not (head == "concat" and config.head.branch_widths)
    sized = bool({"log_side", "log_height", "log_width"} & set(config.data.measurements))
    levels, stepwise = loss == "level_cross_entropy", loss == "hierarchical_cross_entropy"
    level_settings = ("level_weights", "level_epochs", "level_schedule")
    trained = not config.model.freeze_backbone
    rules = (
        ("optim", ("momentum", "nesterov"), not adamw, "optim.name=sgd"),
        ("optim", ("beta1", "beta2", "epsilon"), adamw, "optim.name=adamw"),
        ("optim", ("final_factor",), schedule == "cosine", "optim.schedule=cosine"),
        ("optim", ("step_epochs", "step_factor"), schedule == "step", "optim.schedule=step"),
        ("optim", plateau, schedule == "plateau", "optim.schedule=plateau"),
        ("optim", ("warmup_epochs",), named, "a schedule that is no function"),
        ("split", ("group_depth",), config.split.method == "grouped", "split.method=grouped"),
        ("data", ("pixel_size_um",), sized, "a size among data.measurements (log_side, ...)"),
        ("data", ("worker_timeout",), config.data.worker_count > 0, "data.worker_count over 0"),
        ("sampling", ("power", "weights"), weighted, "sampling.name=weighted"),
        ("sampling", ("threshold",), repeats, "sampling.name=repeat_factor"),
        ("head", ("branches", "taps"), branched, "a head with branches"),
        ("head", ("window",), branched and config.head.branches != "dense", "Swin blocks"),
        ("head", ("branch_widths",), head in widths, "model.head=bcnn, hbcnn or concat"),
        ("head", ("trunk",), branched and head != "sbacnn", "a head with branches but sbacnn"),
        ("head", ("connections",), head == "hbcnn", "model.head=hbcnn"),
        ("head", ("bilinear",), branched, "a head with branches"),
        ("head", ("bilinear_width",), config.head.bilinear, "head.bilinear=True"),
        ("head", ("width",), one_width, "bacnn, sbacnn, add, or concat without branch_widths"),
        ("head", ("attention_width", "attention"), head in ATTENTION_HEADS, "attention"),
        ("model", ("drop_path_rate", "rematerialise"), trained, "model.freeze_backbone=False"),
        ("loss", level_settings, levels, "loss.name=level_cross_entropy"),
        ("loss", ("tree_alpha",), stepwise, "loss.name=hierarchical_cross_entropy"),
        ("loss", ("tree_beta",), loss == "tree_soft_labels", "loss.name=tree_soft_labels"),
        ("augmentation", manual, config.augmentation.manual, "augmentation.manual=True"),
        (
            "augmentation",
            ("policy_operations", "policy_magnitude"),
            randomly,
            "augmentation.policy=randaugment",
        ),
    )
    problems, untouched = [], Config()
    for group, names, counts, where in rules:
        for name in names:
            value, default = (getattr(getattr(c, group), name) for c in (config, untouched))
            if value != default and not counts:
                problems.append(
                    f"config.{group}.{name}: found {value!r}, which counts with {where} alone; "
                    f"allowed here: {default!r}."
                )
    late = [epoch for epoch in optim.step_epochs if epoch >= config.train.epochs]
    if schedule == "step" and late:
        problems.append(
            f"config.optim.step_epochs: found {late}; allowed: less than config.train.epochs, "
            f"which is {config.train.epochs}."
        )
    return problems
