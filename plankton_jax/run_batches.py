"""The batches of a run from its configuration: images, or cached features of its frozen backbone.

Reads what the run was built from; starts the loader's threads or processes.
"""

from collections.abc import Callable
from typing import Any

import jax

from plankton_jax.config import Config
from plankton_jax.data import loader
from plankton_jax.data.batches import Batch
from plankton_jax.data.cached_features import FEATURE, FeatureFiles
from plankton_jax.models.features import unflatten_features
from plankton_jax.run_data import Data, geometry, make_sampler


def train_batches(
    config: Config,
    data: Data,
    *,
    start: int,
    stop: int,
    notify: Callable[[str], None],
    features: FeatureFiles | None = None,
) -> loader.BatchIterator:
    """This process's share of the training batches `start`, ..., `stop - 1`.

    Args:
      notify: called with sentences on what the loader meets.
      features: what comes in the place of images.
    """
    return loader.make_train_iterator(
        data.dataset,
        make_sampler(config, data),
        augmentation=config.augmentation,
        seed=config.seed,
        start_batch=start,
        num_batches=stop - start,
        worker_count=config.data.worker_count,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        features=features,
        notify=notify,
        **_loading(config),
    )


def eval_batches(
    config: Config,
    data: Data,
    rows: Any,
    *,
    notify: Callable[[str], None],
    start: int = 0,
    features: FeatureFiles | None = None,
    worker_count: int = 0,
    augmented: bool = False,
) -> loader.BatchIterator:
    """All `rows` once, in order, from batch `start` on, as they are or as training augments them;
    the last one is padded."""
    return loader.make_eval_batches(
        data.dataset,
        rows,
        augmentation=config.augmentation if augmented else None,
        seed=config.seed,
        start_batch=start,
        worker_count=worker_count,
        features=features,
        notify=notify,
        **_loading(config),
    )


def to_device(
    batch: Batch, features: FeatureFiles | None = None, *, masked: bool = False
) -> dict[str, Any]:
    """What a step reads of a batch, on the device; features put together as the network has them.

    `masked` is for batches that may be padded.
    """
    names = ("measurements", "leaf", "mask") if masked else ("measurements", "leaf")
    read: dict[str, Any] = {name: batch[name] for name in names}
    if features is None:
        read["image"] = batch["image"]
    else:
        stored = {a.name: batch[FEATURE + a.name] for a in features.arrays}
        read["features"] = unflatten_features(stored, features.num_stages)
    return jax.device_put(read)


def _loading(config: Config) -> dict[str, Any]:
    """What all batches of a run share."""
    return {
        "batch_size": config.train.batch_size,
        "image_size": config.data.image_size,
        "threads": config.data.threads,
        "measurements": config.data.measurements,
        "geometry": geometry(config),
        "skip_unreadable": config.data.unreadable == "skip",
        "timeout": config.data.worker_timeout,
    }
