"""The stream of batches: the same however it is made, complete, resumable, and closed cleanly."""

import multiprocessing
import threading
import time

import cv2
import data_support
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.dataset import open_dataset
from plankton_jax.data.geometry import (
    Geometry,
    decode_grey,
    no_draws,
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


def test_opencv_does_not_start_threads_of_its_own(tiny):
    train_batches(tiny, count=1)
    assert cv2.getNumThreads() == 1
