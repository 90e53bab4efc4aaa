"""Where the time of a loaded image goes: index, read, decode, warp, the rest of a batch, transfer.

One thread, flips and rotation of the NDSB training images to 224 pixels, each part timed alone over
the same batches; and what a run waits for its loader, with a step that leaves the processor alone.

    python benchmarks/loader_parts.py --ndsb train.zip

About a minute; writes `benchmarks/results/loader_parts.<device>.json` and a temporary folder.
"""

import argparse
import pathlib
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from _results import row, versions, write_results

import data_builders
from plankton_jax.config import AugmentationConfig
from plankton_jax.data.dataset import open_dataset
from plankton_jax.data.draws import draw_augmentations
from plankton_jax.data.geometry import decode_grey, render
from plankton_jax.data.loader import make_train_iterator
from plankton_jax.data.sampling import UniformSampler

SIZE, BATCH, BATCHES = 224, 128, 40
STEP_SECONDS, STEPS = 0.06, 60


def parts(dataset: Any, sampler: UniformSampler) -> dict[str, float]:
    """Microseconds an image of each part: medians over batches."""
    times: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        result = work(*arguments)
        times.setdefault(name, []).append((time.perf_counter() - began) / BATCH * 1e6)
        return result

    augmentation = AugmentationConfig()
    for number in range(BATCHES):
        positions = np.arange(number * BATCH, (number + 1) * BATCH)
        rows = timed("index: draw rows", sampler, positions)
        files = timed("read: records of the shards", dataset.read_images, rows)
        images = timed("decode", list, map(decode_grey, files))
        draws = timed("draw augmentations", draw_augmentations, augmentation, 0, positions, SIZE)
        out = np.empty((BATCH, SIZE, SIZE, 1), np.uint8)
        timed("warp", render, images, SIZE, draws, list(out[..., 0]))
        timed("transfer", lambda pixels: jax.block_until_ready(jax.device_put(pixels)), out)
    return {name: statistics.median(values) for name, values in times.items()}


def whole(dataset: Any, sampler: UniformSampler) -> float:
    """Microseconds an image of the loader itself, on one thread."""
    with make_train_iterator(
        dataset, sampler, BATCH, SIZE, AugmentationConfig(), 0, 0, 2 * BATCHES, threads=1
    ) as batches:
        for _ in range(BATCHES):
            next(batches)
        began = time.perf_counter()
        for batch in batches:
            jax.block_until_ready(jax.device_put(batch))
        return (time.perf_counter() - began) / (BATCHES * BATCH) * 1e6


class Accelerator:
    """A device that takes a fixed time for a step and none of the processor's: its own thread, fed
    as JAX feeds one, a step ahead at most."""

    def __init__(self) -> None:
        self.idle = 0.0
        self._steps: queue.Queue[Any] = queue.Queue(1)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def step(self, batch: Any) -> None:
        """Dispatches a step; waits while one is running and another one waits already."""
        self._steps.put(batch)

    def finish(self) -> None:
        """Waits for the last step."""
        self._steps.put(None)
        self._thread.join()

    def _run(self) -> None:
        batch, ended = self._steps.get(), time.perf_counter()
        while batch is not None:
            self.idle += time.perf_counter() - ended
            jax.block_until_ready(batch)
            time.sleep(STEP_SECONDS)
            ended = time.perf_counter()
            batch = self._steps.get()


def idle_share(dataset: Any, sampler: UniformSampler) -> float:
    """The share of a run in which the device waits for a batch: the training loop's order of things
    around steps that take longer than the loader does."""
    device = Accelerator()
    with make_train_iterator(
        dataset, sampler, BATCH, SIZE, AugmentationConfig(), 0, 0, STEPS + 1
    ) as batches:
        batch = jax.device_put({"image": next(batches)["image"]})
        began = time.perf_counter()
        for _ in range(STEPS):
            device.step(batch)
            batch = jax.device_put({"image": next(batches)["image"]})
    device.finish()
    return device.idle / (time.perf_counter() - began)


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ndsb", type=pathlib.Path, required=True, help="class folders, or a zip")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loader-parts-") as temporary:
        built = data_builders.prepare("image_folder", data_dir=temporary, source=options.ndsb)
        dataset = open_dataset(built)
        sampler = UniformSampler(np.arange(len(dataset)), 0)
        found = parts(dataset, sampler)
        total = whole(dataset, sampler)
        idle = [idle_share(dataset, sampler) for _ in range(3)]
    rows = [row(name, "us/image", round(value, 2)) for name, value in found.items()]
    rest = max(total - sum(found.values()), 0.0)
    rows += [
        row("rest of a batch, threads of Grain", "us/image", round(rest, 2)),
        row("the loader as a whole, one thread", "us/image", round(total, 2)),
        row(
            f"waiting for the loader, steps of {1000 * STEP_SECONDS:.0f} ms on {BATCH} images",
            "%", round(100 * statistics.median(idle), 2), 2, "limit", less_is_better=True,
        ),
    ]  # fmt: skip
    write_results("loader_parts", rows, versions(("jax", "grain", "opencv-python-headless")))


if __name__ == "__main__":
    main()
