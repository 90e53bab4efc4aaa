"""Memory that batches lie in on their way from loader processes."""

import errno
import os
import pickle
import threading
from multiprocessing import shared_memory

import ml_dtypes
import numpy as np
import pytest

from plankton_jax.data import slots
from plankton_jax.data.slots import Slots, aligned_empty
from plankton_jax.errors import UserError

LAYOUT = {
    "image": ((3, 5, 7, 1), np.dtype(np.uint8)),
    "feature:a": ((3, 2), np.dtype(ml_dtypes.bfloat16)),
    "feature:b": ((3, 4), np.dtype(np.float32)),
}


@pytest.fixture
def two():
    """Two slots, of which batch 10 is taken first."""
    made = Slots(LAYOUT, 2, 10)
    yield made
    made.close()


def fill(made, number):
    for values in made.arrays(number).values():
        values[...] = number


def test_arrays_are_aligned_and_apart(two):
    for arrays in (two.arrays(10), aligned_empty(LAYOUT)):
        assert {n: (a.shape, a.dtype) for n, a in arrays.items()} == LAYOUT
        assert all(values.ctypes.data % 64 == 0 for values in arrays.values())
    fill(two, 10), fill(two, 11)
    for number in (10, 11):
        for values in two.arrays(number).values():
            np.testing.assert_array_equal(values.astype(int), number)
    np.testing.assert_array_equal(two.arrays(12)["image"], 10)  # in the place of batch 10


def test_a_slot_is_written_once_it_was_taken(two):
    other = pickle.loads(pickle.dumps(two))
    other.wait(11)
    waiting = threading.Thread(target=lambda: (other.wait(12), fill(other, 12)), daemon=True)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    two.release(11)
    waiting.join(10)
    assert not waiting.is_alive()
    np.testing.assert_array_equal(two.arrays(12)["image"], 12)


def test_without_its_name_it_serves_those_who_have_it(two):
    other = pickle.loads(pickle.dumps(two))
    two.remove_name(), two.remove_name()
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(two._segment.name)
    fill(other, 10)
    np.testing.assert_array_equal(two.arrays(10)["image"], 10)


def test_too_little_shared_memory_is_told_and_nothing_kept(monkeypatch):
    def allocate(descriptor, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    segments = set(slots._MOUNT.glob("psm_*"))
    monkeypatch.setattr(os, "posix_fallocate", allocate)
    large = {"image": ((64, 224, 224, 1), np.dtype(np.uint8))}
    with pytest.raises(UserError, match="worker_count: loader processes need 12 MiB of shared"):
        Slots(large, 4, 0)
    assert set(slots._MOUNT.glob("psm_*")) <= segments
    monkeypatch.setattr(slots, "_MOUNT", slots._MOUNT / "not_there")  # systems without it
    Slots(large, 4, 0).close()
