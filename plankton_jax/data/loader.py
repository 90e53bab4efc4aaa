"""Batches ready for the device: read, decoded, augmented and resized on the host by Grain.

A Grain element is a whole batch of this process, a function of the batch's number alone: the number
of loader processes and threads cannot change the stream, nothing is lost at its end, and the
number of the next batch is all the state there is. So loader processes that end or hang are started
anew from there. Starts threads, or processes with shared memory, and ends them when closed.
"""

import dataclasses
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grain
import numpy as np
from absl import flags
from jaxtyping import Integer

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.batches import AS_IT_IS, UNREADABLE, Batch, BatchMaker, InOrder, Sampler
from plankton_jax.data.cached_features import FeatureBatchMaker, FeatureFiles
from plankton_jax.data.dataset import Dataset
from plankton_jax.data.geometry import Geometry
from plankton_jax.data.slots import Slots, aligned_empty
from plankton_jax.errors import UserError

_SECONDS_AFTER_SIGTERM = 30  # for the main process to take its last batches and save
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
        _parse_flags_for_grain()
        count = self._workers * (self._threads + _READY)
        self._slots = Slots(self._maker.layout, count, self.next_batch)
        self._all_started = self.next_batch + self._workers  # each makes one of as many batches
        pipeline = numbers.map(_IntoSlots(self._maker, self._slots)).to_iter_dataset(options)
        # What is large lies in the slots; the rest comes quicker by a process's pipe.
        by_pipe = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
        pipeline = grain.experimental.WithOptionsIterDataset(pipeline, by_pipe).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=_READY),
            worker_init_fn=_begin_loader_process,
        )
        self._batches = iter(pipeline)
        self._take = _Watched(self._batches, self._timeout)

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
                batch |= _copy(self._slots.arrays(self.next_batch))
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
          UserError: it is not the first time at this batch.
        """
        self._failures += 1
        self._kill()
        self.close()
        if self._failures == _ATTEMPTS:
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
        if isinstance(take, _Watched):
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


class _Watched:
    """Takes batches of loader processes in a thread, so that the caller never waits for ever.

    A call gives a batch, or a sentence on how the processes failed, and raises what they raised.
    The thread cannot be ended while it waits for a process that hangs; it is then left behind.
    """

    def __init__(self, batches: Iterator[Batch], timeout: float):
        self._batches, self._timeout = batches, timeout
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="loader-watch").start()

    def __call__(self) -> Batch | str:
        self._asked.put(True)
        try:
            answer = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            return f"no batch came from a loader process in {self._timeout:g} s"
        if isinstance(answer, RuntimeError) and "exit code" in str(answer):  # Grain's own
            return "a loader process ended without being asked to"
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self) -> None:
        while self._asked.get():
            try:
                self._answers.put(next(self._batches))
            except BaseException as error:  # raised where the batch is asked for
                self._answers.put(error)
                return

    def stop(self) -> None:
        """Ends the thread once it waits for nothing."""
        self._asked.put(False)


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


def _parse_flags_for_grain() -> None:
    """Grain reads absl's flags when it starts processes; not every program has parsed any."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@dataclasses.dataclass(frozen=True)
class _IntoSlots:
    """Makes batches in a loader process: large arrays into their slots, the rest as a result."""

    maker: BatchMaker | FeatureBatchMaker
    slots: Slots

    def __call__(self, number: int) -> Batch:
        self.slots.wait(number)
        arrays = self.slots.arrays(number)
        batch = self.maker.fill(number, arrays)
        return {name: values for name, values in batch.items() if name not in arrays}


def _begin_loader_process(worker: int, count: int) -> None:
    """A terminal's Ctrl-C and a scheduler's SIGTERM go to every process of a job; the main one
    saves and then ends the others. When it is killed itself, they end too."""
    del worker, count
    threading.Thread(target=_end_with_parent, daemon=True, name="loader-parent").start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not ignored for ever: it is also how Python ends what a program forgot to close.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_SECONDS_AFTER_SIGTERM))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # Grain's loops wait for what never comes


def _copy(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    copies = aligned_empty({name: (a.shape, a.dtype) for name, a in arrays.items()})
    for name, values in arrays.items():
        np.copyto(copies[name], values)
    return copies
