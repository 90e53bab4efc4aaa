"""The drawn data set: a function of seed and index, long-tailed, and built as every other."""

import hashlib
import json
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data_builders
from data_builders.base import Options
from data_builders.synthetic_plankton import classes, debris, drawing, shapes
from data_builders.synthetic_plankton.dice import Dice, generator
from data_builders.synthetic_plankton.synthetic_plankton_dataset_builder import Builder
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

NUM_BUILT = 200
NAMES = [entry.name for entry in classes.CLASSES]


def digest(indices, seed: int) -> str:
    content = hashlib.sha256()
    for index in indices:
        leaf, image = drawing.draw(index, seed)
        content.update(bytes([leaf]) + str(image.shape).encode() + image.tobytes())
    return content.hexdigest()


def first_index_of(leaf: int, seed: int = 0) -> int:
    return next(index for index in range(20_000) if classes.leaf_of(index, seed) == leaf)


def test_another_process_draws_the_same():
    code = "from test_synthetic_plankton import digest; print(digest(range(40, 60), seed=3))"
    here = pathlib.Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{here}:{here.parents[1]}", "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == digest(range(40, 60), seed=3)


def test_an_image_does_not_depend_on_those_drawn_before():
    forward = [drawing.draw(index, 5) for index in range(30)]
    for index in reversed(range(30)):
        leaf, image = drawing.draw(index, 5)
        assert leaf == forward[index][0]
        np.testing.assert_array_equal(image, forward[index][1])


@given(index=st.integers(0, 2**62), seed=st.integers(0, 2**63))
def test_any_seed_and_index_draw_a_grey_image(index, seed):
    leaf, image = drawing.draw(index, seed)
    assert leaf == classes.leaf_of(index, seed)
    assert image.dtype == np.uint8 and image.ndim == 2
    assert 8 <= min(image.shape) and max(image.shape) <= 2 * drawing.LARGEST
    assert image.std() > 1  # never an empty picture


@pytest.mark.parametrize("leaf", range(len(NAMES)), ids=NAMES)
def test_every_class_shows_something_on_a_bright_background(leaf):
    drawn, image = drawing.draw(first_index_of(leaf), 0)
    assert drawn == leaf
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert np.median(border) > 170
    noise = 1.5 * np.subtract(*np.percentile(border, [75, 25]))
    assert np.abs(image - np.median(border)).max() > noise + 8


def test_images_and_sizes_differ_between_and_within_classes():
    drawn = [drawing.draw(index, 0) for index in range(400)]
    assert len({image.tobytes() for _, image in drawn}) == 400
    sides = np.array([max(image.shape) for _, image in drawn])
    assert sides.min() < 45 and sides.max() > 110
    leaves = np.array([leaf for leaf, _ in drawn])
    largest = NAMES.index("detritus_dark")
    assert np.ptp(sides[leaves == largest]) > 40


def test_size_alone_does_not_tell_organisms_from_the_rest():
    drawn = [drawing.draw(index, 1) for index in range(600)]
    sides = np.array([max(image.shape) for _, image in drawn])
    relevant = np.array([classes.CLASSES[leaf].relevance == "relevant" for leaf, _ in drawn])
    best = max(
        max(np.mean((sides > cut) == relevant), np.mean((sides <= cut) == relevant))
        for cut in range(20, 220)
    )
    majority = max(relevant.mean(), 1 - relevant.mean())
    assert best < majority + 0.1


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_class_counts_follow_the_shares(seed):
    shares = np.array([entry.share for entry in classes.CLASSES])
    for number in (1_000, 10_000, 20_000):
        leaves = [classes.leaf_of(index, seed) for index in range(number)]
        counts = np.bincount(leaves, minlength=len(shares))
        # A Kronecker sequence of the golden ratio strays by a few points at most.
        assert np.abs(counts - number * shares / shares.sum()).max() < 4
        if number >= 10_000:
            assert counts.min() >= 8


def test_imbalance_is_at_least_200():
    shares = [entry.share for entry in classes.CLASSES]
    assert max(shares) / min(shares) >= 200
    counts = np.bincount([classes.leaf_of(index, 0) for index in range(20_000)])
    assert counts.max() / counts.min() >= 200


def test_tree_has_three_levels_under_relevant_and_irrelevant(tmp_path):
    taxonomy = Builder(data_dir=tmp_path).taxonomy()
    assert taxonomy.depth == 3
    assert set(taxonomy.node_names[0]) == {"relevant", "irrelevant"}
    assert taxonomy.num_leaves >= 20
    assert {"crustacean", "gelatinous", "detritus", "artefact"} <= set(taxonomy.node_names[1])
    assert len(taxonomy.leaves_under(0, 0)) > 1 and len(taxonomy.leaves_under(0, 1)) > 1


def test_a_bubble_is_dark_at_its_rim_and_bright_within():
    dice = Dice(generator(0, 0))
    ink = np.median([stroke.ink for stroke in debris.bubble(dice).strokes[:1]])
    assert ink > 2 * debris.bubble(dice).strokes[-1].ink
    assert debris.bubble(dice).strokes[-1].ink < shapes.CLEAR + 12


@given(
    number=st.integers(4, 60),
    widths=st.lists(st.floats(0, 1), min_size=2, max_size=7),
)
def test_a_profile_stays_within_the_widths_given(number, widths):
    positions = tuple(i / (len(widths) - 1) for i in range(len(widths)))
    result = shapes.profile(number, positions, tuple(widths))
    assert result.shape == (number,)
    assert min(widths) - 1e-9 <= result.min() and result.max() <= max(widths) + 1e-9


def test_png_holds_the_pixels_drawn():
    _, image = drawing.draw(11, 0)
    data = np.frombuffer(drawing.encode(image), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), image)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> pathlib.Path:
    data_dir = tmp_path_factory.mktemp("drawn")
    return data_builders.prepare("synthetic_plankton", data_dir=data_dir, num_examples=NUM_BUILT)


def test_built_data_set_is_complete(built):
    with pa.memory_map(str(built / "index.arrow")) as file:
        index = pa.ipc.open_file(file).read_all()
    assert index.num_rows == NUM_BUILT
    expected = [classes.leaf_of(i, 0) for i in range(NUM_BUILT)]
    np.testing.assert_array_equal(index["leaf"].to_numpy(), expected)
    assert len(set(index["id"].to_pylist())) == NUM_BUILT
    shapes_drawn = [drawing.draw(i, 0)[1].shape for i in (0, 7, NUM_BUILT - 1)]
    for row, (height, width) in zip((0, 7, NUM_BUILT - 1), shapes_drawn, strict=True):
        assert (index["height"][row].as_py(), index["width"][row].as_py()) == (height, width)
    tree = Taxonomy.from_json(json.loads((built / "taxonomy.json").read_text()))
    assert list(tree.leaf_names) == NAMES
    metadata = json.loads((built / "metadata.json").read_text())
    assert metadata["licence"] == "CC0-1.0" and metadata["num_examples"] == NUM_BUILT
    assert metadata["rejected"] == {} and metadata["duplicates"] == 0
    assert 0.6 < metadata["mean"] < 0.9 and 0.05 < metadata["std"] < 0.3


def test_stored_images_are_those_drawn(built):
    source = Builder(data_dir=built.parents[2], config=Options(num_examples=NUM_BUILT))
    assert pathlib.Path(source.data_dir) == built
    records = source.as_data_source("all")
    for index in (0, NUM_BUILT - 1):
        pixels = np.frombuffer(records[index]["image"], np.uint8)
        image = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, drawing.draw(index, 0)[1])


def test_a_larger_set_begins_with_the_images_of_a_smaller(tmp_path):
    small, large = (
        Builder(data_dir=tmp_path, config=Options(num_examples=number, seed=2)).items(0)
        for number in (5, 9)
    )
    for mine, theirs in zip(small, large, strict=False):
        assert (mine.id, mine.leaf, mine.image) == (theirs.id, theirs.leaf, theirs.image)


def test_options_name_the_directory_and_are_checked(tmp_path):
    names = {
        Builder(data_dir=tmp_path, config=Options(num_examples=n, seed=s)).options.name
        for n, s in ((None, 0), (5, 0), (5, 1))
    }
    assert len(names) == 3
    with pytest.raises(UserError, match="config.data.num_examples: found 0"):
        data_builders.prepare("synthetic_plankton", data_dir=tmp_path / "none", num_examples=0)
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="config.data.source"):
        Builder(data_dir=tmp_path, config=Options(source="x"))
