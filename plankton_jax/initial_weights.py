"""What a run starts from: a file of weights, public ones, or the backbone of another run. Reads
files; otherwise pure.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from plankton_jax import models, weights
from plankton_jax.config import KERAS_HUB, Config
from plankton_jax.errors import UserError
from plankton_jax.pretrained import PRETRAINED


def are_drawn(name: object) -> bool:
    """Whether a backbone that nothing is loaded into begins with random numbers, as all do but the
    presets of KerasHub; of a function nothing is known."""
    if not isinstance(name, str):
        return False
    preset = name.startswith(KERAS_HUB) and not name.endswith(".json") and "{" not in name
    return not preset


def load(
    config: Config,
    classifier: models.Classifier,
    num_classes: int,
    notify: Callable[[str], None],
) -> tuple[Any, Any, weights.Provenance]:
    """Parameters, model state and provenance of the configured weights.

    The head of a file is taken too when it has these classes; what is amiss in it is an error then.
    Of a run it is the backbone alone, so that another head may learn on it.

    Raises:
      UserError: no such file or run, or weights of another network.
    """
    settings = config.model
    if settings.initial_weights and pathlib.Path(settings.initial_weights).is_dir():
        return _of_run(pathlib.Path(settings.initial_weights), config, classifier, notify)
    if settings.initial_weights and not pathlib.Path(settings.initial_weights).is_file():
        raise UserError(
            f"config.model.initial_weights: there is no file {settings.initial_weights}. Public "
            "weights are named by config.model.pretrained."
        )
    source = weights.open_source(
        settings.initial_weights or settings.pretrained,
        settings.weights_cache,
        architecture=models.get_info(settings.name) if isinstance(settings.name, str) else None,
        notify=notify,
    )
    notify(f"starting from {source.provenance.source}; {source.provenance.licence_sentence}")
    with weights.naming(source.path):
        with_head = weights.fits_head(source.state_dict, classifier, num_classes)
        name = settings.name if isinstance(settings.name, str) else None
        with weights.explaining(source.state_dict, name):
            loaded = weights.from_timm(source.state_dict, classifier, with_head=with_head)
        if not with_head:
            notify(
                f"{source.path}: it has no head of this run's classes, which starts anew; one of "
                "other classes is left out"
            )
    if left_out := weights.left_out(source.state_dict, classifier):
        notify(f"{source.path}: left out: {', '.join(left_out)}")
    if kept := weights.kept_parts(source.state_dict, classifier):
        notify(f"{source.path}: not in it, so with initial values: {', '.join(kept)}")
    if made_for := _made_for(config, classifier, source):
        notify(f"{source.path}: these weights are made for {', '.join(made_for)}")
    return *jax.tree.map(jnp.asarray, loaded), source.provenance


def _made_for(config: Config, classifier: models.Classifier, source: weights.Source) -> list[str]:
    """The settings that the weights are made for and the run has otherwise, as far as is known."""
    known = source.info or PRETRAINED.get(source.provenance.tag)
    pool = weights.source_pool(source.state_dict, classifier)
    settings = (
        ("data.image_size", config.data.image_size, known and known.image_size),
        ("data.normalisation", config.data.normalisation, known and "backbone"),
        (
            "model.in_channels",
            config.model.in_channels,
            weights.source_channels(source.state_dict, classifier),
        ),
        ("model.pool", pool and classifier.backbone.config.pool, pool),
    )
    return [
        f"config.{name}={theirs} (found {found})"
        for name, found, theirs in settings
        if theirs and theirs != found
    ]


def _of_run(
    run: pathlib.Path,
    config: Config,
    classifier: models.Classifier,
    notify: Callable[[str], None],
) -> tuple[Any, Any, weights.Provenance]:
    """The backbone of a run's best checkpoint, averages where it has them; all else as drawn."""
    from plankton_jax import run_directory
    from plankton_jax.checkpoints import Checkpoints

    setting = f"config.model.initial_weights {run}"
    saved, description = run_directory.read_run(run)
    if saved.model.name != config.model.name:
        raise UserError(
            f"{setting}: a run of {saved.model.name}; wanted: one of {config.model.name}."
        )
    options = saved.checkpoint
    with Checkpoints(
        run, keep=options.keep, monitor=options.monitor, mode=options.mode, read_only=True
    ) as checkpoints:
        step = checkpoints.best or next(iter(checkpoints.steps[-1:]), None)
        if step is None:
            raise UserError(f"{setting}: it has no checkpoint yet. Train it first.")
        state, digest = checkpoints.arrays(step)
    source = state["ema"] or state
    _, params, model_state = models.split_model(classifier)
    found = [dict(params), dict(model_state)]
    for own, name in zip(found, ("params", "model_state"), strict=True):
        wanted, given = own.get("backbone", {}), source[name].get("backbone", {})
        _require_same_shapes(setting, wanted, given)
        if wanted:
            own["backbone"] = jax.tree.map(jnp.asarray, given)
    earlier = run_directory.read_provenance(run)
    mean, std = (float(description[name]) for name in ("mean", "std"))
    notify(f"starting from the backbone of {run}, step {step}")
    provenance = weights.Provenance(
        source=f"backbone of the run {run}, step {step}",
        sha256=digest,
        licence=earlier.licence if earlier else "",
        mean=earlier.mean if earlier and earlier.mean else (mean,) * 3,
        std=earlier.std if earlier and earlier.std else (std,) * 3,
    )
    return found[0], found[1], provenance


def _require_same_shapes(setting: str, wanted: Any, given: Any) -> None:
    shapes = [
        {name: value.shape for name, value in models.flatten_paths(tree).items()}
        for tree in (wanted, given)
    ]
    if shapes[0] != shapes[1]:
        names = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))[:3]
        raise UserError(
            f"{setting}: its backbone has other arrays than this run's, such as "
            f"{', '.join(f'{name} {shape}' for name, shape in names)}. Use the same "
            "config.data.image_size, config.model.in_channels and head's needs."
        )
