"""Features of a frozen backbone, computed once, so that the steps of a run skip it.

They lie in `<data_dir>/features/<key>/`, where the key stands for all that they depend on, so runs
whose heads read the same features share them. A computation that is stopped goes on where it was.
Runs the backbone; writes that folder.
"""

import contextlib
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plankton_jax.checkpoints import digest
from plankton_jax.command import config_to_json
from plankton_jax.config import Config, walk
from plankton_jax.data.batches import Batch
from plankton_jax.data.cached_features import FeatureFiles, StoredFeature
from plankton_jax.errors import UserError
from plankton_jax.experiment import Network
from plankton_jax.files import lock, read_json, replacing
from plankton_jax.models.features import flatten_features, names_read
from plankton_jax.run_batches import eval_batches
from plankton_jax.run_data import Data
from plankton_jax.tracking import duration
from plankton_jax.train_step import TrainState, normalise

JOURNAL = "journal.json"
"""In the folder: what the features depend on, and how many records are done."""

_FORMAT = 1
_SAVE_EVERY = 10.0  # seconds
_GROUPS = ("augmentation",)
_SETTINGS = (
    "seed",
    "data.image_size",
    "data.geometry",
    "data.crop_bottom_px",
    "data.unreadable",
    "data.normalisation",
    "model.name",
    "model.in_channels",
    "model.pool",
    "model.cache_features",
    "train.precision",
)


def prepare(
    config: Config,
    data: Data,
    network: Network,
    state: TrainState,
    *,
    stopped: Callable[[], bool],
    notify: Callable[[str], None],
) -> FeatureFiles | None:
    """The features of the training images' views and of the validation images.

    Args:
      state: of the run; its backbone is the one.
      stopped: asked after each batch whether to leave off; what is done is kept.
      notify: called with sentences on cost and progress.

    Returns:
      The files, or None when stopped.

    Raises:
      UserError: no space for them, another process is computing them, images that cannot be read.
    """
    arrays, num_stages = features_read(network, config, state)
    described = _description(config, data, network, state, arrays)
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    folder = pathlib.Path(config.data.data_dir) / "features" / key
    rows = (np.sort(data.rows["train"]), np.sort(data.rows["validation"]))
    files = FeatureFiles(folder, arrays, *rows, config.model.cache_features, num_stages)
    where = f"config.model.cache_features: {folder}"
    with lock(folder / ".lock", where, "another process is computing them. Wait for its end."):
        done = _records_done(files, described)
        if done < len(files) and not _compute(
            config, data, network, state, files, described, done, stopped, notify
        ):
            return None
    notify(f"features of {len(files)} images and views: {folder}")
    return files


def features_read(
    network: Network, config: Config, state: TrainState
) -> tuple[tuple[StoredFeature, ...], int]:
    """What a head reads of its backbone, found by tracing both, and the number of stages."""
    size = config.data.image_size
    shape = (1, size, size, config.model.in_channels)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    measurements = jax.ShapeDtypeStruct((1, len(config.data.measurements)), jnp.float32)
    features = jax.eval_shape(network.backbone, state.params, state.model_state, images)

    def logits(features, params, model_state, measurements):
        own = {"key": jax.random.key(0), "train": True}, {"key": None, "train": False}
        return [
            network.apply(params, model_state, features, measurements, **keywords)[0]
            for keywords in own
        ]

    names = names_read(logits, features, state.params, state.model_state, measurements)
    shapes = {name: value for name, value in flatten_features(features).items() if name in names}
    arrays = (StoredFeature(name, x.shape[1:], x.dtype.name) for name, x in shapes.items())
    return tuple(arrays), len(features.stages)


def _description(
    config: Config,
    data: Data,
    network: Network,
    state: TrainState,
    arrays: tuple[StoredFeature, ...],
) -> dict[str, Any]:
    """All that the features depend on, as plain values."""
    saved = config_to_json(config)
    names = [name for name, _, _ in walk(config) if name.startswith(_GROUPS) or name in _SETTINGS]
    settings = {}
    for name in names:
        group, _, last = name.rpartition(".")
        settings[name] = (saved[group] if group else saved)[last]
    backbone = {
        part: values.get("backbone", {})
        for part, values in (("params", state.params), ("model_state", state.model_state))
    }
    described = data.description()
    return {
        "format": _FORMAT,
        "settings": settings,
        "fingerprint": described["fingerprint"],
        "rows_sha256": described["rows_sha256"],
        "mean": list(network.mean),
        "std": list(network.std),
        "backbone_sha256": digest(jax.device_get(backbone)),
        "backbone_program": _program(config, network, state),
        "features": [[array.name, list(array.shape), array.dtype] for array in arrays],
    }


def _program(config: Config, network: Network, state: TrainState) -> str:
    """sha256 of what a user's own backbone computes; that of a named one changes with `_FORMAT`."""
    if isinstance(config.model.name, str):
        return ""
    size = config.data.image_size
    images = jax.ShapeDtypeStruct((1, size, size, config.model.in_channels), jnp.float32)
    lowered = jax.jit(network.backbone).lower(state.params, state.model_state, images)
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()


def _records_done(files: FeatureFiles, described: dict[str, Any]) -> int:
    """Records that an earlier computation wrote; 0 where its files are not as they should be."""
    path = files.directory / JOURNAL
    if not path.is_file() or not files.is_whole():
        return 0
    journal = read_json(path, f"Remove the folder {files.directory}.")
    return int(journal.get("done", 0)) if journal.get("of") == described else 0


def _compute(
    config: Config,
    data: Data,
    network: Network,
    state: TrainState,
    files: FeatureFiles,
    described: dict[str, Any],
    done: int,
    stopped: Callable[[], bool],
    notify: Callable[[str], None],
) -> bool:
    """Writes the records that are not done yet. Returns whether all are."""
    names = {array.name for array in files.arrays}

    @jax.jit
    def run(params, model_state, images):
        images = normalise(images, network.mean, network.std)
        found = flatten_features(network.backbone(params, model_state, images))
        return {name: value for name, value in found.items() if name in names}

    def compute(images: Any) -> dict[str, Any]:
        return run(state.params, state.model_state, images)

    seconds = _seconds_per_batch(config, compute)
    _tell_cost(config, files, done, seconds, notify)
    files.create()
    arrays, missing = files.opened("r+")
    began = told = time.monotonic()
    first = done
    for start, batch, features in _computed(config, data, files, done, compute, notify):
        records = start + np.flatnonzero(batch["there"])
        for name, values in features.items():
            arrays[name][records] = np.asarray(values)[batch["there"]]
        missing[records] = ~batch["mask"][batch["there"]]
        done = start + int(batch["there"].sum())
        now, leaves = time.monotonic(), stopped()
        if now - told >= _SAVE_EVERY or leaves or done == len(files):
            for values in (*arrays.values(), missing):
                values.flush()
            _write_journal(files, described, done)
        if now - told >= _SAVE_EVERY and done < len(files):
            told = now
            left = (now - began) / max(done - first, 1) * (len(files) - done)
            notify(f"features: {done} of {len(files)}, {duration(left)} left")
        if leaves:
            return done == len(files)
    return True


def _computed(
    config: Config,
    data: Data,
    files: FeatureFiles,
    done: int,
    compute: Callable[[Any], dict[str, Any]],
    notify: Callable[[str], None],
) -> Iterator[tuple[int, Batch, dict[str, Any]]]:
    """(first record, batch, features) of all batches with a record that is not done. The next batch
    is loaded while the device computes one."""
    size, train = config.train.batch_size, files.views * len(files.train_rows)
    views = np.tile(files.train_rows, files.views)
    for offset, rows, augmented in ((0, views, True), (train, files.validation_rows, False)):
        number = max(done - offset, 0) // size
        if number * size >= len(rows):
            continue
        workers = config.data.worker_count if augmented else 0
        with eval_batches(
            config, data, rows, start=number, augmented=augmented, worker_count=workers,
            notify=notify,
        ) as batches:  # fmt: skip
            held = None
            for batch in batches:
                start = number * size
                there = np.arange(start, start + size) < len(rows)
                now = (offset + start, batch | {"there": there}, compute(batch["image"]))
                if held:
                    yield held
                held, number = now, number + 1
            if held:
                yield held


def _seconds_per_batch(config: Config, compute: Callable[[Any], dict[str, Any]]) -> float:
    """What the backbone takes for one batch, measured behind its compilation."""
    size = config.data.image_size
    images = jnp.zeros((config.train.batch_size, size, size, 1), jnp.uint8)
    jax.block_until_ready(compute(images))
    began = time.monotonic()
    jax.block_until_ready(compute(images))
    return time.monotonic() - began


def _tell_cost(
    config: Config,
    files: FeatureFiles,
    done: int,
    seconds: float,
    notify: Callable[[str], None],
) -> None:
    """Says what the files take and what they save, before anything is computed.

    Raises:
      UserError: there is not that much space.
    """
    size = config.train.batch_size
    total = len(files) * files.record_bytes
    taken = 0
    with contextlib.suppress(OSError):
        taken = sum(path.stat().st_blocks * 512 for path in files.directory.iterdir())
    existing = next(p for p in (files.directory, *files.directory.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    shapes = ", ".join(f"{a.name} {'x'.join(map(str, a.shape))} {a.dtype}" for a in files.arrays)
    epoch = seconds * (len(files.train_rows) + len(files.validation_rows)) / size
    notify(
        f"features to keep of each image: {shapes}; {files.views} views of "
        f"{len(files.train_rows)} training images and {len(files.validation_rows)} validation "
        f"images as they are: {_gigabytes(total)} in {files.directory} ({_gigabytes(free)} are "
        f"free)"
    )
    notify(
        f"the backbone takes {seconds:.3g} s a batch of {size}: about "
        f"{duration(seconds * (len(files) - done) / size)} now, and about {duration(epoch)} less "
        "for each epoch"
    )
    if total - taken > free:
        raise UserError(
            f"config.model.cache_features: found {files.views}, which takes {_gigabytes(total)} in "
            f"{files.directory}, where {_gigabytes(free)} are free; allowed: fewer views, 0, or "
            "config.data.data_dir on a larger disk."
        )


def _write_journal(files: FeatureFiles, described: dict[str, Any], done: int) -> None:
    with replacing(files.directory / JOURNAL) as temporary:
        temporary.write_text(json.dumps({"done": done, "of": described}, indent=1))


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.3g} MB"
