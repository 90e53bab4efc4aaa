"""Batches of stored features: those of the images that a batch of images would have held."""

import ml_dtypes
import numpy as np
import pytest

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.cached_features import FeatureFiles, StoredFeature
from plankton_jax.data.loader import make_eval_batches, make_train_iterator
from plankton_jax.data.sampling import UniformSampler
from plankton_jax.errors import UserError

TRAIN, VALIDATION, VIEWS = np.arange(0, 80, 2), np.arange(1, 26, 2), 3
ARRAYS = (
    StoredFeature("pooled", (2,), "float32"),
    StoredFeature("stages/3", (2, 2, 3), "bfloat16"),
)


@pytest.fixture
def files(tmp_path):
    """Files in which every feature of a record is the number of its row, view by view."""
    made = FeatureFiles(tmp_path, ARRAYS, TRAIN, VALIDATION, VIEWS, num_stages=4)
    made.create()
    arrays, _ = made.opened("r+")
    records = [1000 * view + row for view in range(VIEWS) for row in TRAIN] + [*VALIDATION]
    arrays["pooled"][:] = np.array(records, np.float32)[:, None]
    arrays["stages/3"][:] = (np.array(records) % 1000)[:, None, None, None]
    return made


def batches(dataset, files, start=0, count=20, **settings):
    sampler = UniformSampler(TRAIN, 5)
    options = {"augmentation": AugmentationConfig(), "seed": 9, "features": files, **settings}
    with make_train_iterator(
        dataset, sampler, 8, 32, start_batch=start, num_batches=count, **options
    ) as iterator:
        return list(iterator)


def test_a_batch_holds_the_features_of_the_images_that_are_drawn(tiny, files):
    made = batches(tiny, files)
    drawn = batches(tiny, None)
    seen = set()
    for ours, images in zip(made, drawn, strict=True):
        assert "image" not in ours
        for name in ("leaf", "index", "mask", "measurements"):
            np.testing.assert_array_equal(ours[name], images[name])
        pooled, stage = ours["feature:pooled"], ours["feature:stages/3"]
        assert (pooled.shape, stage.shape) == ((8, 2), (8, 2, 2, 3))
        assert (pooled.dtype, stage.dtype) == (np.float32, ml_dtypes.bfloat16)
        np.testing.assert_array_equal(pooled[:, 0] % 1000, ours["index"])
        np.testing.assert_array_equal(stage[:, 1, 1, 2].astype(np.int64), ours["index"])
        seen.update(pooled[:, 1].astype(int).tolist())
    # Four epochs of 40 images: most of the views come up.
    assert seen <= {1000 * view + row for view in range(VIEWS) for row in TRAIN}
    assert len(seen) > 0.7 * VIEWS * len(TRAIN)


def test_the_stream_is_a_function_of_the_batch_s_number(tiny, files):
    whole = batches(tiny, files)
    for found, expected in (
        (batches(tiny, files, 7, 5), whole[7:12]),
        (batches(tiny, files, worker_count=2, threads=1), whole),
    ):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])


def test_validation_images_come_as_they_are_and_in_order(tiny, files):
    with make_eval_batches(tiny, VALIDATION, 8, 32, features=files) as iterator:
        made = list(iterator)
    assert [batch["mask"].sum() for batch in made] == [8, 5]
    rows = np.concatenate([batch["feature:pooled"][batch["mask"], 0] for batch in made])
    np.testing.assert_array_equal(rows, VALIDATION)


def test_an_image_that_could_not_be_read_is_replaced_or_left_out(tiny, files):
    _, missing = files.opened("r+")
    missing[:] = 0
    missing[np.arange(VIEWS) * len(TRAIN) + 3] = 1  # row 6
    missing[VIEWS * len(TRAIN)] = 1  # row 1
    told = []
    made = batches(tiny, files, notify=told.append)
    assert any("class_" in line for line in told)
    for ours, images in zip(made, batches(tiny, None), strict=True):
        place = np.flatnonzero(images["index"] == 6)
        np.testing.assert_array_equal(ours["index"][place], images["index"][place - 1])
        np.testing.assert_array_equal(ours["feature:pooled"][:, 0] % 1000, ours["index"])
        assert ours["mask"].all() and 6 not in ours["index"]
    with make_eval_batches(tiny, VALIDATION, 16, 32, features=files, notify=told.append) as stream:
        batch = next(stream)
    assert batch["index"][0] == -1 and not batch["mask"][0]
    assert batch["mask"].sum() == len(VALIDATION) - 1
    missing[:] = 1
    with pytest.raises(UserError, match="No other image of its batch can be read"):
        batches(tiny, files)


def test_files_that_are_cut_short_are_not_whole(files):
    assert files.is_whole()
    with (files.directory / "1.features").open("r+b") as file:
        file.truncate(10)
    assert not files.is_whole()
    files.create()
    assert files.is_whole()
