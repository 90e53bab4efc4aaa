"""What loader processes do, what they need to start, and the thread of the main process that waits
for them. Handles signals in a loader process; starts one thread."""

import dataclasses
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from absl import flags

from plankton_jax.data.batches import Batch, BatchMaker
from plankton_jax.data.cached_features import FeatureBatchMaker
from plankton_jax.data.slots import Slots

_SECONDS_AFTER_SIGTERM = 30  # for the main process to take its last batches and save


@dataclasses.dataclass(frozen=True)
class IntoSlots:
    """Makes batches in a loader process: large arrays into their slots, the rest as a result."""

    maker: BatchMaker | FeatureBatchMaker
    slots: Slots

    def __call__(self, number: int) -> Batch:
        self.slots.wait(number)
        arrays = self.slots.arrays(number)
        batch = self.maker.fill(number, arrays)
        return {name: values for name, values in batch.items() if name not in arrays}


def begin_loader_process(worker: int, count: int) -> None:
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


def find_culprit(maker: BatchMaker, numbers: Iterable[int], timeout: float) -> int | None:
    """The row of these batches whose record ends a process that reads it, or keeps it for `timeout`
    seconds; None when all can be read or are told to be unreadable."""
    rows = list(dict.fromkeys(row for n in numbers for row in maker.rows(n).tolist()))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_read_one_by_one, args=(maker, rows, theirs), daemon=True)
    process.start()
    theirs.close()
    read = -1  # rows; the process needs some seconds before the first
    try:
        while ours.poll(timeout):
            read = ours.recv()
    except EOFError:  # it has ended
        process.join()
        if process.exitcode == 0:
            return None
    finally:
        process.kill()
        process.join()
        ours.close()
    return rows[read] if 0 <= read < len(rows) else None


def _read_one_by_one(maker: BatchMaker, rows: list[int], told: Connection) -> None:
    for number, row in enumerate(rows):
        told.send(number)
        maker.problem(row)


class Watched:
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


def parse_flags_for_grain() -> None:
    """Grain reads absl's flags when it starts processes; not every program has parsed any."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
