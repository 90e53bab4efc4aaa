"""What a frozen backbone, and one whose features are kept, spare a training step.

    python benchmarks/frozen_backbone.py [--kinds trained frozen kept]

The head bacnn on swin_s3_tiny_224 at 224 pixels, batch 8 and the tree of ZooScan v1: milliseconds
a step of the training loop's own body (the median), and MiB that XLA sets aside for it, which are
parameters, optimiser state and batch, and what lies between forward and backward pass. The peer is
the backbone that is trained. Writes `results/frozen_backbone.<device>.json`. Most of its minutes on
two cores are compiling.
"""

import argparse
import pathlib
import statistics
import time
import types
from typing import Any

import jax
from _results import device_name, row, versions, write_results
from _training import make_batch

from plankton_jax import experiment, feature_cache, train
from plankton_jax.config import Config
from plankton_jax.models.features import flatten_features, unflatten_features
from plankton_jax.taxonomy import Taxonomy
from plankton_jax.train_step import normalise

NAME, SIZE, BATCH, STEPS = "swin_s3_tiny_224", 224, 8, 5
KINDS = ("trained", "frozen", "kept")
TREE = pathlib.Path(__file__).parents[1] / "data_builders" / "zooscan" / "v1.csv"


def make_training(frozen: bool) -> tuple[Config, experiment.Training]:
    """The run's own network, optimiser and step, without its images."""
    config = Config()
    config.data.image_size, config.data.normalisation = SIZE, "dataset"
    config.model.name, config.model.in_channels, config.model.head = NAME, 3, "bacnn"
    config.model.freeze_backbone = frozen
    config.loss.name = "level_cross_entropy"
    config.train.batch_size = BATCH
    data: Any = types.SimpleNamespace(
        taxonomy=Taxonomy.from_csv(TREE),
        rows={"train": range(100 * BATCH)},
        description=lambda: {"mean": 0.9, "std": 0.1},
    )
    return config, experiment.make_training(config, data)


def with_features(
    batch: dict[str, jax.Array], config: Config, training: experiment.Training
) -> dict[str, Any]:
    """The batch with what the head reads of the backbone in the place of the images."""
    network, state = training.network, training.state
    arrays, num_stages = feature_cache.features_read(network, config, state)

    @jax.jit
    def read(images):
        images = normalise(images, network.mean, network.std)
        found = flatten_features(network.backbone(state.params, state.model_state, images))
        return {array.name: found[array.name] for array in arrays}

    features = unflatten_features(read(batch["image"]), num_stages)
    return {"features": features} | {key: batch[key] for key in batch if key != "image"}


def measure(kind: str) -> dict[str, float]:
    """Milliseconds and MiB of a step of a kind."""
    config, training = make_training(frozen=kind != "trained")
    batch = make_batch(BATCH, SIZE)
    if kind == "kept":
        batch = with_features(batch, config, training)
    held = [training.state, train.device_window(None)]
    run = jax.jit(train.accumulating(training.train_step), donate_argnums=(0, 1))
    compiled = run.lower(*held, batch).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    times = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        held[:] = jax.block_until_ready(compiled(*held, batch))
        times.append(time.perf_counter() - began)
    return {
        "step_ms": 1000 * statistics.median(times[1:]),  # the first one warms up
        "held_mib": memory.argument_size_in_bytes / 2**20,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
    }


def main() -> None:
    """Measures each kind and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    found = {kind: measure(kind) for kind in options.kinds}
    rows, peer = [], found.get("trained")
    for kind, sides in found.items():
        step, memory = sides["step_ms"], sides["held_mib"] + sides["temporary_mib"]
        for what, unit, value, of_peer in (
            ("step", "ms", step, peer and peer["step_ms"]),
            ("memory", "MiB", memory, peer and peer["held_mib"] + peer["temporary_mib"]),
        ):
            line = row(
                f"{kind}, {what}", unit, round(value, 1), of_peer and round(of_peer, 1), "trained",
                less_is_better=True,
            )  # fmt: skip
            rows.append(line | ({"sides": sides} if what == "memory" else {}))
    device = jax.devices()[0]
    name = device_name(device.platform, device.device_kind)
    notes = {"network": NAME, "head": "bacnn", "batch_size": BATCH, "image_size": SIZE}
    used = versions(("jax", "jaxlib", "flax"))
    write_results("frozen_backbone", rows, used, device=name, notes=notes)


if __name__ == "__main__":
    main()
