"""Batches ready for the device: read, decoded, augmented and resized on the host by Grain.

A Grain element is a whole batch of this process, a function of the batch's number alone: the number
of loader processes and threads cannot change the stream, nothing is lost at its end, and the
number of the next batch is all the state there is. So loader processes that end or hang are started
anew from there. Starts threads, or processes with shared memory, and ends them when closed.
"""

import dataclasses
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grain
import numpy as np
from jaxtyping import Integer

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.batches import AS_IT_IS, UNREADABLE, Batch, BatchMaker, InOrder, Sampler
from plankton_jax.data.cached_features import FeatureBatchMaker, FeatureFiles
from plankton_jax.data.dataset import Dataset
from plankton_jax.data.geometry import Geometry
from plankton_jax.data.loader_processes import (
    IntoSlots,
    Watched,
    begin_loader_process,
    find_culprit,
    parse_flags_for_grain,
)
from plankton_jax.data.slots import Slots
from plankton_jax.errors import UserError

_READY = 2  # batches of a loader process that may wait, beside those that its threads make
_SECONDS_TO_CLOSE = 10  # for loader processes to end by themselves
_ATTEMPTS = 3  # at one batch, before processes that end or hang stop the run


class BatchIterator:
    """Batches `start`, ..., `stop - 1` in order. Close it, or use it in a `with` statement.

    Attributes:
      next_batch: number of the batch that comes next; making an iterator that starts there
        continues the stream.
    """

    def __init__(
        self,
        maker: BatchMaker | FeatureBatchMaker,
        start: int,
        stop: int,
        worker_count: int,
        threads: int,
        timeout: float,
        notify: Callable[[str], None],
    ):
        self.next_batch = start
        self._stop = stop
        self._maker, self._workers, self._threads = maker, worker_count, threads
        self._timeout, self._notify = timeout, notify
        self._told: set[int] = set()
        self._failures = 0
        self._others = set(multiprocessing.active_children())
        self._slots: Slots | None = None
        self._closing: threading.Thread | None = None
        self._start()

    def _start(self) -> None:
        """Makes the pipeline from the next batch on; its processes start with the first batch."""
        options = grain.ReadOptions(
            num_threads=self._threads, prefetch_buffer_size=2 * self._threads
        )
        numbers = grain.MapDataset.range(self.next_batch, self._stop)
        if not self._workers:
            self._batches: Any = iter(numbers.map(self._maker).to_iter_dataset(options))
            self._take = self._next
            return
        parse_flags_for_grain()
        count = self._workers * (self._threads + _READY)
        self._slots = Slots(self._maker.layout, count, self.next_batch)
        self._all_started = self.next_batch + self._workers  # each makes one of as many batches
        pipeline = numbers.map(IntoSlots(self._maker, self._slots)).to_iter_dataset(options)
        # What is large lies in the slots; the rest comes quicker by a process's pipe.
        by_pipe = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
        pipeline = grain.experimental.WithOptionsIterDataset(pipeline, by_pipe).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=_READY),
            worker_init_fn=begin_loader_process,
        )
        self._batches = iter(pipeline)
        self._take = Watched(self._batches, self._timeout)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __len__(self) -> int:
        """Batches that are still to come."""
        return self._stop - self.next_batch

    def __next__(self) -> Batch:
        if not len(self):  # also when asked again, after the thread that watches has ended
            self.close()
            raise StopIteration
        try:
            batch = self._take()
            while isinstance(batch, str):
                self._start_again(batch)
                batch = self._take()
            if self._slots:
                batch |= self._slots.copy(self.next_batch)
                self._slots.release(self.next_batch + 1)
                if self.next_batch + 1 == self._all_started:
                    self._slots.remove_name()
        except BaseException:  # nothing is left running
            self.close()
            raise
        self._failures = 0
        self.next_batch += 1
        self._tell(batch.pop(UNREADABLE))
        return batch

    def _next(self) -> Batch:
        return next(self._batches)

    def _start_again(self, problem: str) -> None:
        """New processes for those that ended or hang.

        Raises:
          UserError: it is not the first time at this batch, and no record that may be left out is
            to blame.
        """
        self._failures += 1
        self._kill()
        self.close()
        if self._failures == _ATTEMPTS and not self._leave_out_culprit():
            rows = self._maker.rows(self.next_batch).tolist()
            raise UserError(
                f"config.data.worker_count: {problem} {_ATTEMPTS} times at batch "
                f"{self.next_batch} or soon after it; of its {len(rows)} images the first is "
                f"{self._maker.dataset.describe(rows[0])}. Look at the memory that is free and at "
                "the messages above, or load with config.data.worker_count=0 and more "
                "config.data.threads."
            )
        self._notify(
            f"warning: {problem}; loader processes start anew at batch {self.next_batch}, the "
            "stream of images stays the same"
        )
        self._start()

    def _leave_out_culprit(self) -> bool:
        """Looks for a record that ends or stops the process that reads it, and leaves it out.

        Raises:
          UserError: there is one, and records that cannot be read are not to be left out.
        """
        maker = self._maker
        if isinstance(maker, FeatureBatchMaker):
            return False
        ahead = self._workers * (self._threads + _READY)
        numbers = range(self.next_batch, min(self.next_batch + ahead, self._stop))
        row = find_culprit(maker, numbers, self._timeout)
        if row is None:
            return False
        self._maker = dataclasses.replace(maker, deadly=maker.deadly | {row})
        if not maker.skip_unreadable:
            raise UserError(
                f"{self._maker.problem(row)} Or leave it out with config.data.unreadable=skip."
            )
        self._failures = 0
        return True

    def _kill(self) -> None:
        """Ends the loader processes at once."""
        for process in multiprocessing.active_children():
            if process not in self._others and process.name.startswith("grain-"):
                process.kill()

    def _tell(self, unreadable: Integer[np.ndarray, " b"]) -> None:
        """Tells once of each record that could not be read."""
        for row in unreadable[unreadable >= 0].tolist():
            if row not in self._told:
                self._told.add(row)
                problem = self._maker.problem(row) or f"{self._maker.dataset.describe(row)}."
                self._notify(f"warning: left out: {problem}")

    def close(self) -> None:
        """Ends the threads or processes; may be called again."""
        take, self._take = self._take, self._next
        if isinstance(take, Watched):
            take.stop()
        if not self._slots:
            self._batches.close()
            return
        self._slots.release(self._stop)  # a thread that waits for a slot would keep its process
        if not self._closing:  # a signal may have interrupted an earlier call
            # Grain waits for its processes, also for one that hangs.
            self._closing = threading.Thread(
                target=self._batches.close, daemon=True, name="loader-close"
            )
            self._closing.start()
        self._closing.join(_SECONDS_TO_CLOSE)
        if self._closing.is_alive():
            self._kill()
            self._closing.join()
        self._closing = None
        self._slots.close()
        self._slots = None

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
    geometry: Geometry = AS_IT_IS,
    skip_unreadable: bool = False,
    timeout: float = 300.0,
    features: FeatureFiles | None = None,
    notify: Callable[[str], None] = print,
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
      skip_unreadable: whether records that cannot be read are left out, see `BatchMaker`, instead
        of ending the iteration.
      timeout: seconds after which loader processes that give no batch are started anew.
      features: what comes in the place of images.
      notify: called with sentences on processes that failed and records that were left out.

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
        skip_unreadable,
    )
    made = maker if features is None else FeatureBatchMaker(maker, features)
    stop = start_batch + num_batches
    return BatchIterator(made, start_batch, stop, worker_count, threads, timeout, notify)


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
    geometry: Geometry = AS_IT_IS,
    skip_unreadable: bool = False,
    timeout: float = 300.0,
    augmentation: AugmentationConfig | None = None,
    seed: int = 0,
    start_batch: int = 0,
    features: FeatureFiles | None = None,
    notify: Callable[[str], None] = print,
) -> BatchIterator:
    """All `rows` once, in order, by default resized only; the last batch is padded to full size.

    Arguments and errors as in `make_train_iterator`. Every process gets as many batches, also one
    that has nothing but padding in the last.
    """
    _check_batch_size(batch_size, process_count)
    maker = BatchMaker(
        dataset,
        InOrder(rows),
        batch_size,
        image_size,
        augmentation,
        seed,
        process_index,
        process_count,
        measurements,
        geometry,
        skip_unreadable,
    )
    made = maker if features is None else FeatureBatchMaker(maker, features)
    stop = -(-len(rows) // batch_size)
    return BatchIterator(made, start_batch, stop, worker_count, threads, timeout, notify)


def _check_batch_size(batch_size: int, process_count: int) -> None:
    if batch_size % process_count:
        raise UserError(
            f"config.train.batch_size: found {batch_size}; allowed: a multiple of the "
            f"{process_count} processes of this run."
        )
