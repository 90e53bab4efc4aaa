"""Batches ready for the device: read, decoded, augmented and resized on the host by Grain.

A Grain element is a whole batch of this process, a function of the batch's number alone: the number
of loader processes and threads cannot change the stream, nothing is lost at its end, and the
number of the next batch is all the state there is. Starts threads or processes and ends them when
closed; decides the number of OpenCV's threads (one).
"""

import dataclasses
import math
import signal
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import cv2
import grain
import numpy as np
from absl import flags
from jaxtyping import Integer, UInt8

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.dataset import Dataset
from plankton_jax.data.geometry import (
    Draws,
    Geometry,
    decode_grey,
    draw_augmentations,
    no_draws,
    render,
    without_bottom,
)
from plankton_jax.data.measurements import measure
from plankton_jax.errors import UserError

Batch = dict[str, np.ndarray]
"""image uint8 `b h w 1`; measurements float32 `b m`, none by default; leaf int32 `b`; index int64
`b`, the row in the data set's index, -1 for padding; mask bool `b`, False for padding."""

_ALIGNMENT = 64  # bytes; XLA on a CPU takes an array that lies so as it is and copies any other
_DECODED_TOGETHER = 64  # images; bounds what a thread holds of large ones
_SECONDS_AFTER_SIGTERM = 30  # for the main process to take its last batches and save
_SMALLEST_SHARED = 1 << 16  # bytes; smaller arrays come from a process quicker by its pipe

_AS_IT_IS = Geometry()

Sampler = Callable[[Integer[np.ndarray, " p"]], Integer[np.ndarray, " p"]]
"""From positions in the stream of draws to rows; -1 for a position that has none."""


@dataclasses.dataclass(frozen=True)
class BatchMaker:
    """Makes this process's share of any batch from its number; picklable.

    Of the global batch's positions `number * batch_size ...` a process takes every
    `process_count`-th, from `process_index` on, so the processes make together what one would.
    """

    dataset: Dataset
    sampler: Sampler
    batch_size: int
    image_size: int
    augmentation: AugmentationConfig | None
    seed: int
    process_index: int
    process_count: int
    measurements: tuple[str, ...] = ()
    geometry: Geometry = _AS_IT_IS

    def __call__(self, number: int) -> Batch:
        cv2.setNumThreads(1)  # threads across batches scale, threads within an image do not
        places = np.arange(self.process_index, self.batch_size, self.process_count)
        positions = number * self.batch_size + places
        rows = self.sampler(positions)
        mask = rows >= 0
        images = _aligned_bytes((len(rows), self.image_size, self.image_size, 1))
        images[~mask] = 0
        kept = np.flatnonzero(mask)
        for start in range(0, len(kept), _DECODED_TOGETHER):
            places = kept[start : start + _DECODED_TOGETHER]
            drawn = rows[places]
            files = self.dataset.read_images(drawn)
            decoded = [self._decode(f, r) for f, r in zip(files, drawn.tolist(), strict=True)]
            out = [images[place, :, :, 0] for place in places.tolist()]
            render(
                decoded, self.image_size, self._draws(positions[places]), out, self.geometry.kind
            )
        leaf = np.zeros(len(rows), np.int32)
        leaf[mask] = self.dataset.leaf[rows[mask]]
        measured = measure(self.dataset, rows, self.measurements, self.geometry)
        return {
            "image": images,
            "measurements": measured,
            "leaf": leaf,
            "index": rows,
            "mask": mask,
        }

    def _draws(self, positions: np.ndarray) -> Draws:
        if self.augmentation is None:
            return no_draws(len(positions))
        return draw_augmentations(self.augmentation, self.seed, positions)

    def _decode(self, file: bytes, row: int) -> np.ndarray:
        try:
            image = decode_grey(file)
        except ValueError as error:
            raise UserError(
                f"{self.dataset.describe(row)}: {error}. Build the data set again without it."
            ) from error
        return without_bottom(image, self.geometry.crop_bottom_px)


@dataclasses.dataclass(frozen=True)
class InOrder:
    """The sampler of an evaluation: position p is the p-th of `rows`, -1 after the last."""

    rows: Integer[np.ndarray, " n"]

    def __call__(self, positions: Integer[np.ndarray, " p"]) -> Integer[np.ndarray, " p"]:
        drawn = np.full(len(positions), -1, np.int64)
        inside = positions < len(self.rows)
        drawn[inside] = self.rows[positions[inside]]
        return drawn


class BatchIterator:
    """Batches `start`, ..., `stop - 1` in order. Close it, or use it in a `with` statement.

    Attributes:
      next_batch: number of the batch that comes next; making an iterator that starts there
        continues the stream.
    """

    def __init__(self, maker: BatchMaker, start: int, stop: int, worker_count: int, threads: int):
        self.next_batch = start
        self._stop = stop
        read_options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        pipeline = grain.MapDataset.range(start, stop).map(maker).to_iter_dataset(read_options)
        if worker_count:
            _parse_flags_for_grain()
            options = grain.experimental.DatasetOptions(min_shm_size=_SMALLEST_SHARED)
            pipeline = grain.experimental.WithOptionsIterDataset(pipeline, options).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=worker_count, per_worker_buffer_size=2),
                worker_init_fn=_outlive_signals,
            )
        self._batches: Any = iter(pipeline)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __len__(self) -> int:
        """Batches that are still to come."""
        return self._stop - self.next_batch

    def __next__(self) -> Batch:
        try:
            batch = next(self._batches)
        except BaseException:  # the end of the stream included: nothing is left running
            self.close()
            raise
        self.next_batch += 1
        return {name: _own(values) for name, values in batch.items()}

    def close(self) -> None:
        """Ends the threads or processes; may be called again."""
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def make_train_iterator(
    dataset: Dataset,
    sampler: Sampler,
    batch_size: int,
    image_size: int,
    augmentation: AugmentationConfig | None,
    seed: int,
    start_batch: int,
    num_batches: int,
    worker_count: int = 0,
    threads: int = 2,
    process_index: int = 0,
    process_count: int = 1,
    measurements: tuple[str, ...] = (),
    geometry: Geometry = _AS_IT_IS,
) -> BatchIterator:
    """Augmented batches `start_batch`, ..., `start_batch + num_batches - 1` of the endless stream.

    Args:
      sampler: what is drawn at each position; batch n holds positions from n * batch_size on.
      batch_size: of all processes together.
      image_size: side of the square images, pixels.
      augmentation: None for none.
      seed: of the augmentation.
      worker_count: loader processes; 0 loads in threads of this one.
      threads: that make batches side by side, in each loader process.
      process_index: which of the `process_count` hosts this is.
      measurements: names of `plankton_jax.data.measurements`, columns of the batch's array.
      geometry: how images are framed.

    Raises:
      UserError: batch_size cannot be divided among the processes. Iterating raises it for a
        record that cannot be read, naming its id and row.
    """
    _check_batch_size(batch_size, process_count)
    maker = BatchMaker(
        dataset,
        sampler,
        batch_size,
        image_size,
        augmentation,
        seed,
        process_index,
        process_count,
        measurements,
        geometry,
    )
    return BatchIterator(maker, start_batch, start_batch + num_batches, worker_count, threads)


def make_eval_batches(
    dataset: Dataset,
    rows: Integer[np.ndarray, " n"],
    batch_size: int,
    image_size: int,
    worker_count: int = 0,
    threads: int = 2,
    process_index: int = 0,
    process_count: int = 1,
    measurements: tuple[str, ...] = (),
    geometry: Geometry = _AS_IT_IS,
) -> BatchIterator:
    """All `rows` once, in order, resized only; the last batch is padded to full size.

    Arguments and errors as in `make_train_iterator`. Every process gets as many batches, also one
    that has nothing but padding in the last.
    """
    _check_batch_size(batch_size, process_count)
    maker = BatchMaker(
        dataset,
        InOrder(rows),
        batch_size,
        image_size,
        None,
        0,
        process_index,
        process_count,
        measurements,
        geometry,
    )
    return BatchIterator(maker, 0, -(-len(rows) // batch_size), worker_count, threads)


def _check_batch_size(batch_size: int, process_count: int) -> None:
    if batch_size % process_count:
        raise UserError(
            f"config.train.batch_size: found {batch_size}; allowed: a multiple of the "
            f"{process_count} processes of this run."
        )


def _parse_flags_for_grain() -> None:
    """Grain reads absl's flags when it starts processes; not every program has parsed any."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _outlive_signals(worker: int, count: int) -> None:
    """A terminal's Ctrl-C and a scheduler's SIGTERM go to every process of a job; the main one
    saves and then ends the others."""
    del worker, count
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not ignored for ever: it is also how Python ends what a program forgot to close.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_SECONDS_AFTER_SIGTERM))


def _aligned_bytes(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """A new array, not set, which begins at a multiple of `_ALIGNMENT`."""
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].reshape(shape)


def _own(values: np.ndarray) -> np.ndarray:
    """The values outside of memory shared with a loader process, which must not outlive it."""
    return np.array(values) if type(values) is not np.ndarray else values
