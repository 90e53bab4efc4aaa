"""The stream of batches: the same however it is made, complete, resumable, and closed cleanly."""

import multiprocessing
import os
import signal
import threading
import time

import cv2
import data_support
import numpy as np
import pytest
from command_runs import shared_memory
from hypothesis import given, settings
from hypothesis import strategies as st

from plankton_jax.config import AugmentationConfig
from plankton_jax.data import loader
from plankton_jax.data.dataset import open_dataset
from plankton_jax.data.draws import no_draws
from plankton_jax.data.geometry import (
    Geometry,
    decode_grey,
    render,
    resize_square,
)
from plankton_jax.data.loader import make_eval_batches, make_train_iterator
from plankton_jax.data.sampling import UniformSampler, WeightedSampler
from plankton_jax.errors import UserError

AUGMENTATION = AugmentationConfig(scale_jitter=0.1, shift=0.05, contrast=0.2)


def train_batches(dataset, start=0, count=7, batch_size=12, **settings):
    sampler = UniformSampler(np.arange(len(dataset)), 5)
    with make_train_iterator(
        dataset, sampler, batch_size, 32, AUGMENTATION, 9, start, count, **settings
    ) as iterator:
        return list(iterator)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_batch_has_the_contract_s_arrays(tiny):
    batch = train_batches(tiny, count=1)[0]
    described = {name: (str(values.dtype), values.shape) for name, values in batch.items()}
    assert described == {
        "image": ("uint8", (12, 32, 32, 1)),
        "measurements": ("float32", (12, 0)),
        "leaf": ("int32", (12,)),
        "index": ("int64", (12,)),
        "mask": ("bool", (12,)),
    }
    assert batch["mask"].all()
    np.testing.assert_array_equal(batch["leaf"], tiny.leaf[batch["index"]])


def test_measurements_come_with_their_images(tiny):
    names = ("log_elongation", "log_side")
    rows = np.array([5, 9, 0])
    with make_eval_batches(tiny, rows, 4, 32, measurements=names) as iterator:
        batch = next(iterator)
    for row, (elongation, side) in zip(rows, batch["measurements"], strict=False):
        height, width = decode_grey(tiny.read_images(np.array([row]))[0]).shape
        assert np.exp(elongation) == pytest.approx(max(height, width) / min(height, width))
        assert (64 * np.exp(side)) ** 2 == pytest.approx(height * width, rel=1e-5)
    np.testing.assert_array_equal(batch["measurements"][3], 0)
    drawn = train_batches(tiny, count=1, measurements=names)[0]
    for number, row in enumerate(drawn["index"]):
        np.testing.assert_allclose(
            drawn["measurements"][number, 0],
            abs(np.log(tiny.height[row] / tiny.width[row])),
            rtol=1e-5,
        )


def test_a_scale_bar_is_cut_off_and_sides_count_in_micrometres(tiny):
    rows, framed = np.array([5, 9]), Geometry("preserve_size", 7, 10.5)
    names = ("log_height", "log_width", "log_side")
    with make_eval_batches(tiny, rows, 2, 32, measurements=names, geometry=framed) as iterator:
        batch = next(iterator)
    for place, row in enumerate(rows):
        image = decode_grey(tiny.read_images(np.array([row]))[0])[:-7]
        height, width, side = 64 * np.exp(batch["measurements"][place])
        assert (height, width) == pytest.approx((image.shape[0] * 10.5, image.shape[1] * 10.5))
        assert side**2 == pytest.approx(height * width, rel=1e-5)
        expected = np.empty((32, 32), np.uint8)
        render([image], 32, no_draws(1), [expected], "preserve_size")
        np.testing.assert_array_equal(batch["image"][place, :, :, 0], expected)


def test_workers_and_threads_do_not_change_the_stream(tiny):
    expected = train_batches(tiny, threads=1)
    assert_same(train_batches(tiny, threads=3), expected)
    for worker_count in (1, 2):  # seven batches: not a multiple of two
        found = train_batches(tiny, worker_count=worker_count, threads=1)
        assert_same(found, expected)
        assert all(type(values) is np.ndarray for batch in found for values in batch.values())
    assert not multiprocessing.active_children()


@given(st.integers(0, 8), st.integers(0, 4))
@settings(max_examples=8, deadline=None)
def test_resuming_at_any_batch_continues_the_stream(tiny_directory, start, count):
    tiny = open_dataset(tiny_directory)
    whole = train_batches(tiny, count=12)
    assert_same(train_batches(tiny, start, count), whole[start : start + count])


def test_the_next_batch_is_the_whole_state(tiny):
    sampler = WeightedSampler(np.arange(103), tiny.leaf, tiny.taxonomy.num_leaves, 1)
    whole = make_train_iterator(tiny, sampler, 8, 16, AUGMENTATION, 2, 0, 9)
    with whole:
        first = [next(whole) for _ in range(4)]
        assert whole.next_batch == 4 and len(whole) == 5
        rest = list(whole)
    again = make_train_iterator(tiny, sampler, 8, 16, AUGMENTATION, 2, 4, 5)
    with again:
        assert_same(list(again), rest)
    assert len(first) + len(rest) == 9


def test_hosts_together_make_what_one_makes(tiny):
    expected = train_batches(tiny)
    hosts = [train_batches(tiny, process_index=host, process_count=3) for host in range(3)]
    for number, batch in enumerate(expected):
        for name, values in batch.items():
            for host in range(3):
                np.testing.assert_array_equal(hosts[host][number][name], values[host::3])


def test_an_epoch_of_batches_has_every_image_once(tiny):
    batches = train_batches(tiny, count=103, batch_size=1)
    assert sorted(int(batch["index"][0]) for batch in batches) == list(range(103))


@pytest.mark.parametrize("settings", [{}, {"worker_count": 2}])
def test_evaluation_is_in_order_resized_and_padded(tiny, settings):
    rows = np.arange(102, -1, -3)
    with make_eval_batches(tiny, rows, 8, 24, **settings) as batches:
        assert len(batches) == 5
        found = list(batches)
    mask = np.concatenate([batch["mask"] for batch in found])
    index = np.concatenate([batch["index"] for batch in found])
    leaf = np.concatenate([batch["leaf"] for batch in found])
    image = np.concatenate([batch["image"] for batch in found])
    np.testing.assert_array_equal(mask, np.arange(40) < 35)
    np.testing.assert_array_equal(index, [*rows, *[-1] * 5])
    np.testing.assert_array_equal(leaf, [*tiny.leaf[rows], *[0] * 5])
    assert not image[35:].any()
    for place, data in enumerate(tiny.read_images(rows)):
        np.testing.assert_array_equal(image[place, :, :, 0], resize_square(decode_grey(data), 24))


def test_evaluation_on_hosts_has_equal_counts(tiny):
    rows = np.arange(17)
    hosts = [
        list(make_eval_batches(tiny, rows, 8, 16, process_index=host, process_count=4))
        for host in range(4)
    ]
    assert [len(batches) for batches in hosts] == [3] * 4
    seen = np.concatenate([b["index"][b["mask"]] for batches in hosts for b in batches])
    np.testing.assert_array_equal(np.sort(seen), rows)
    assert list(make_eval_batches(tiny, rows[:0], 8, 16)) == []


def test_batch_size_must_divide_among_processes(tiny):
    with pytest.raises(UserError, match="batch_size: found 12; allowed: a multiple of the 5"):
        train_batches(tiny, process_count=5)


@pytest.mark.parametrize("worker_count", [0, 2])
def test_an_image_that_does_not_decode_is_named(tmp_path, worker_count):
    good = data_support.png(data_support.smooth_image(10, 10))
    images = [good] * 5 + [b"nonsense"] + [good] * 2
    directory = data_support.write_data_set(tmp_path / "d", images, [0] * 4 + [1] * 4)
    batches = make_eval_batches(open_dataset(directory), np.arange(8), 2, 8, worker_count)
    with batches, pytest.raises(UserError, match=r'record "class_1/0005.png" \(row 5\): not a rea'):
        list(batches)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("worker_count", [0, 1])
def test_closing_early_leaves_nothing_behind(tiny, worker_count):
    before = threading.active_count()
    sampler = UniformSampler(np.arange(103), 0)
    iterator = make_train_iterator(tiny, sampler, 4, 16, None, 0, 0, 10**9, worker_count)
    next(iterator)
    iterator.close()
    iterator.close()
    assert not multiprocessing.active_children()
    if worker_count == 0:
        deadline = time.monotonic() + 10
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= before


@pytest.mark.slow
@pytest.mark.parametrize(("worker_count", "threads"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_closing_takes_no_time_when_all_slots_are_full(tiny, worker_count, threads):
    sampler = UniformSampler(np.arange(103), 0)
    iterator = make_train_iterator(
        tiny, sampler, 4, 16, None, 0, 0, 10**9, worker_count, threads
    )  # fmt: skip
    next(iterator)
    time.sleep(2)  # its processes wait for slots
    began = time.monotonic()
    iterator.close()
    assert time.monotonic() - began < 5
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("taken", [3, 7])
def test_no_shared_memory_is_left_at_the_end_or_when_closed_early(tiny, taken):
    side, batch_size = 61, 37  # a batch has a size in bytes that no other test's has
    sampler, seen = UniformSampler(np.arange(103), 0), set()
    with make_train_iterator(tiny, sampler, batch_size, side, None, 0, 0, 7, 2) as iterator:
        for _ in range(taken):
            next(iterator)
            seen |= shared_memory(batch_size * side**2)
    assert len(seen) == 1
    with pytest.raises(StopIteration if taken == 7 else ValueError):
        next(iterator)
    assert not shared_memory(batch_size * side**2)
    assert not multiprocessing.active_children()


def test_opencv_does_not_start_threads_of_its_own(tiny):
    train_batches(tiny, count=1)
    assert cv2.getNumThreads() == 1


# ---- what goes wrong while it runs ---------------------------------------------------------------


@pytest.fixture
def rotten(tmp_path):
    """Ten images, of which the rows 0, 3, 4 and 9 cannot be read."""
    good = [data_support.png(data_support.smooth_image(10, 10, seed)) for seed in range(10)]
    images = [b"rot" if row in (0, 3, 4, 9) else image for row, image in enumerate(good)]
    return open_dataset(data_support.write_data_set(tmp_path / "d", images, [0] * 5 + [1] * 5))


@pytest.mark.parametrize("worker_count", [0, 1])
def test_training_goes_on_without_what_cannot_be_read(rotten, worker_count):
    told = []
    settings = {"skip_unreadable": True, "notify": told.append, "worker_count": worker_count}
    clean = train_batches(rotten, count=4, batch_size=5, **settings)
    drawn = UniformSampler(np.arange(10), 5)(np.arange(20))
    for number, batch in enumerate(clean):
        wanted = drawn[5 * number : 5 * number + 5]
        good = ~np.isin(wanted, (0, 3, 4, 9))
        assert batch["mask"].all() and batch.keys() == {
            "image", "measurements", "leaf", "index", "mask",
        }  # fmt: skip
        np.testing.assert_array_equal(batch["index"][good], wanted[good])
        np.testing.assert_array_equal(batch["leaf"], rotten.leaf[batch["index"]])
        for place in np.flatnonzero(~good):
            before = next(p for k in range(1, 6) if good[p := (place - k) % 5])
            np.testing.assert_array_equal(batch["image"][place], batch["image"][before])
            assert batch["index"][place] == wanted[before]
    assert len(told) == 4 and all("not a readable image" in text for text in told)
    assert sorted(text.split('record "')[1][:15] for text in told) == sorted(
        f"class_{row // 5}/{row:04d}.pn" for row in (0, 3, 4, 9)
    )


def test_an_evaluation_leaves_out_what_cannot_be_read(rotten):
    told = []
    batches = make_eval_batches(
        rotten, np.arange(10), 4, 8, skip_unreadable=True, notify=told.append
    )
    with batches:
        found = list(batches)
    index = np.concatenate([batch["index"] for batch in found])
    np.testing.assert_array_equal(index, [-1, 1, 2, -1, -1, 5, 6, 7, 8, -1, -1, -1])
    np.testing.assert_array_equal(np.concatenate([b["mask"] for b in found]), index >= 0)
    assert len(told) == 4


def test_a_batch_without_any_readable_image_stops(tmp_path):
    directory = data_support.write_data_set(tmp_path / "d", [b"rot"] * 6, [0] * 6)
    with pytest.raises(UserError, match="not a readable image.*No other image of its batch"):
        train_batches(open_dataset(directory), batch_size=3, skip_unreadable=True)


@pytest.fixture
def damaged(tmp_path):
    """Forty images in one shard, of which a byte of row 11 is not what was written."""
    images = [data_support.png(data_support.smooth_image(20, 20, seed)) for seed in range(40)]
    directory = data_support.write_data_set(tmp_path / "d", images, [0] * 40, shards=1)
    data_support.flip_byte(directory, images[11])
    return open_dataset(directory)


@pytest.mark.parametrize("worker_count", [0, 1])
def test_a_damaged_record_takes_no_other_with_it(damaged, worker_count):
    told = []
    settings = {"worker_count": worker_count, "skip_unreadable": True, "notify": told.append}
    with make_eval_batches(damaged, np.arange(40), 8, 8, **settings) as batches:
        index = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(index, np.where(np.arange(40) == 11, -1, np.arange(40)))
    assert len(told) == 1
    assert "left out: data set" in told[0] and 'record "class_0/0011.png" (row 11)' in told[0]
    drawn = UniformSampler(np.arange(40), 5)(np.arange(84))
    found = np.concatenate([batch["index"] for batch in train_batches(damaged, **settings)])
    np.testing.assert_array_equal(found[drawn != 11], drawn[drawn != 11])
    assert 11 not in found


def test_a_damaged_record_stops_and_is_named(damaged):
    with make_eval_batches(damaged, np.arange(40), 8, 8) as batches:
        with pytest.raises(UserError, match=r'record "class_0/0011.png" \(row 11\): shard tiny-'):
            list(batches)
    assert len(damaged.read_images(np.array([12, 3, 10]))) == 3


def _ended(signal_number):
    """Sends a signal to every loader process."""
    children = [c for c in multiprocessing.active_children() if c.name.startswith("grain-")]
    for child in children:
        os.kill(child.pid, signal_number)
    return len(children)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_loader_processes_that_end_or_hang_start_anew(tiny, number):
    count = 40  # far more than all buffers hold
    expected, told = train_batches(tiny, count=count), []
    sampler = UniformSampler(np.arange(len(tiny)), 5)
    with make_train_iterator(
        tiny, sampler, 12, 32, AUGMENTATION, 9, 0, count, 2, timeout=20, notify=told.append
    ) as iterator:
        found = [next(iterator) for _ in range(3)]
        assert _ended(number) == 2
        found += list(iterator)
    assert_same(found, expected)
    assert told and all("loader processes start anew at batch" in text for text in told)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_closing_waits_for_no_process_that_hangs(tiny, monkeypatch):
    monkeypatch.setattr(loader, "_SECONDS_TO_CLOSE", 1)
    sampler = UniformSampler(np.arange(len(tiny)), 5)
    with make_train_iterator(tiny, sampler, 12, 32, AUGMENTATION, 9, 0, 40, 2) as iterator:
        next(iterator)
        assert _ended(signal.SIGSTOP) == 2
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_loader_processes_that_end_again_and_again_stop_the_run(tiny):
    with make_train_iterator(
        tiny, _Deadly(), 12, 32, None, 9, 4, 3, 1, notify=lambda text: None
    ) as iterator:
        with pytest.raises(UserError, match="3 times at batch 4 or soon after it; of its 12 i"):
            next(iterator)
    assert not multiprocessing.active_children()


class _Fatal:
    """A data set of which row 11 ends or stops any process but the one it was made in."""

    def __init__(self, dataset, hang):
        self.dataset, self.hang, self.home = dataset, hang, os.getpid()

    def __getattr__(self, name):
        if name in ("dataset", "__setstate__"):  # asked for while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def read_images(self, rows):
        if os.getpid() != self.home and 11 in rows:
            if not self.hang:
                os._exit(17)
            time.sleep(600)
        return self.dataset.read_images(rows)


@pytest.mark.slow
@pytest.mark.parametrize("hang", [False, True])
def test_a_record_that_ends_or_stops_its_process_is_named_and_left_out(tiny, hang):
    told = []
    settings = {"worker_count": 1, "timeout": 8, "notify": told.append}
    dataset = _Fatal(tiny, hang)
    with make_eval_batches(dataset, np.arange(40), 8, 8, **settings) as batches:
        with pytest.raises(UserError, match=r"row 11\): reading it ends or stops .*=skip"):
            list(batches)
    told.clear()
    with make_eval_batches(
        dataset, np.arange(40), 8, 8, skip_unreadable=True, **settings
    ) as batches:
        index = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(index, np.where(np.arange(40) == 11, -1, np.arange(40)))
    assert [text for text in told if "left out" in text and "row 11" in text]
    assert not multiprocessing.active_children()


class _Deadly:
    """A sampler that ends any process but the one it was made in."""

    def __init__(self):
        self.home = os.getpid()

    def __call__(self, positions):
        if os.getpid() != self.home:
            os._exit(17)
        return positions % 103
