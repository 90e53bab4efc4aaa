"""Memory that loader processes fill with batches and the main process copies them out of.

It is allocated once and used again and again: the first writing of new shared memory costs a
process about 7 ms for a batch of 6 MB (a page fault for every 4 KB), a third of what making the
batch does.
NumPy and shared memory; allocates and frees one segment of it.
"""

import functools
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from typing import Any

import numpy as np

from plankton_jax.errors import UserError

Layout = dict[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and type of each of a batch's large arrays."""

_ALIGNMENT = 64  # bytes; XLA on a CPU takes an array that lies so as it is and copies any other
_SECONDS_BETWEEN_LOOKS = 0.001
_MOUNT = pathlib.Path("/dev/shm")  # where Linux keeps shared memory; containers make it small


class Slots:
    """Slots for the large arrays of batches; batch n lies in slot n % count.

    A batch may be written once the main process has copied the one that was in its slot before.
    Made in the main process, which closes it; pickled, it opens the same memory in another one.
    """

    def __init__(self, layout: Layout, count: int, first: int):
        """Allocates the memory.

        Args:
          layout: what a slot holds.
          count: of slots.
          first: number of the batch that is copied first.

        Raises:
          UserError: there is not so much shared memory.
        """
        size = _ALIGNMENT + count * _slot_bytes(layout)
        self._segment = shared_memory.SharedMemory(create=True, size=size)
        self._layout, self._count, self._has_name = layout, count, True
        try:
            _allocate(self._segment.name, size)
            self.release(first)
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _opened, (self._segment.name, self._layout, self._count)

    @property
    def _next(self) -> np.ndarray:
        """The number of the batch that is copied next; all before it were."""
        return np.ndarray((1,), np.int64, self._segment.buf)

    def arrays(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a batch's slot, to be written or read in place."""
        start = _ALIGNMENT + number % self._count * _slot_bytes(self._layout)
        memory = self._segment.buf
        assert memory is not None  # it is not closed
        return _laid_out(self._layout, memory, start)

    def copy(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a batch, in memory of their own."""
        copies = aligned_empty(self._layout)
        for name, values in self.arrays(number).items():
            np.copyto(copies[name], values)
        return copies

    def wait(self, number: int) -> None:
        """Returns when a batch may be written."""
        while self._next[0] + self._count <= number:
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def release(self, following: int) -> None:
        """Tells the other processes which batch is copied next."""
        self._next[0] = following

    def remove_name(self) -> None:
        """No other process opens the memory from now on, and it is freed when the last process that
        has it open ends, however that ends. May be called again."""
        if self._has_name:
            self._has_name = False
            self._segment.unlink()

    def close(self) -> None:
        """Frees the memory; an array of a slot must not be looked at afterwards."""
        self.remove_name()
        self._segment.close()


def _opened(name: str, layout: Layout, count: int) -> Slots:
    """The slots of another process."""
    slots = object.__new__(Slots)
    slots._segment = _segment(name)
    slots._layout, slots._count = layout, count
    return slots


@functools.cache
def _segment(name: str) -> shared_memory.SharedMemory:
    """Kept until the process ends, for its threads may be writing until then."""
    return shared_memory.SharedMemory(name)


def _slot_bytes(layout: Layout) -> int:
    return sum(_padded(shape, dtype) for shape, dtype in layout.values())


def _padded(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of an array with what is left free behind it."""
    size = math.prod(shape) * dtype.itemsize
    return size + -size % _ALIGNMENT


def _laid_out(layout: Layout, memory: memoryview | np.ndarray, start: int) -> dict[str, np.ndarray]:
    """The arrays one behind the other in memory, from a byte on."""
    arrays = {}
    for name, (shape, dtype) in layout.items():
        arrays[name] = np.ndarray(shape, dtype, memory, start)
        start += _padded(shape, dtype)
    return arrays


def _allocate(name: str, size: int) -> None:
    """Writing more than there is would end a process without a word, so it is reserved."""
    if not _MOUNT.is_dir():
        return
    try:
        with (_MOUNT / name).open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise UserError(
            f"config.data.worker_count: loader processes need {size / 2**20:.0f} MiB of shared "
            f"memory for their batches, {_MOUNT} has {shutil.disk_usage(_MOUNT).free / 2**20:.0f} "
            "MiB free. Make it larger (docker run --shm-size=2g), take fewer processes or a "
            "smaller batch, or load with config.data.worker_count=0 and more config.data.threads."
        ) from error


def aligned_empty(layout: Layout) -> dict[str, np.ndarray]:
    """New arrays, not set, each of which begins at a multiple of `_ALIGNMENT`."""
    memory = np.empty(_slot_bytes(layout) + _ALIGNMENT, np.uint8)
    return _laid_out(layout, memory, -memory.ctypes.data % _ALIGNMENT)
