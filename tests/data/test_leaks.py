"""Nearly equal images are found, told and kept together; groups are not divided."""

import csv
import json
import pathlib
import subprocess
import sys
import zipfile

import cv2
import data_support
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import make_folder

import data_builders
from plankton_jax.config import Config
from plankton_jax.data.dataset import open_dataset
from plankton_jax.data.geometry import decode_grey
from plankton_jax.data.leaks import NearDuplicates, find_candidates, find_near_duplicates
from plankton_jax.data.splits import joined, split_rows
from plankton_jax.errors import UserError
from plankton_jax.run_data import open_data

ROOT = pathlib.Path(__file__).parents[2]


def organism(seed: int, noise: int = 0) -> bytes:
    """A dark shape on a bright ground, and on request faint noise, as PNG."""
    random = np.random.default_rng(seed)
    image = np.full((40, 48), 230, np.uint8)
    for _ in range(3):
        centre = random.integers(8, 36, 2).tolist()
        axes = random.integers(3, 12, 2).tolist()
        cv2.ellipse(image, centre, axes, float(random.uniform(0, 180)), 0, 360, 90, -1)
    if noise:
        shifts = np.random.default_rng(noise).integers(-1, 2, image.shape)
        image = np.clip(image.astype(int) + shifts, 0, 255).astype(np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    files: dict[str, bytes | int] = {
        f"{'ab'[seed % 2]}/{seed:03d}.png": organism(seed) for seed in range(120)
    }
    files |= {"a/again.png": organism(1), "b/noisy.png": organism(2, noise=5)}
    return make_folder(tmp_path_factory.mktemp("leaks") / "images", files)


def test_equal_and_nearly_equal_images_are_found(tmp_path, source):
    dataset = open_dataset(data_builders.prepare("image_folder", data_dir=tmp_path, source=source))
    found = find_near_duplicates(dataset)
    ids = dataset.ids(found.pairs.reshape(-1))
    named = zip(ids[::2], ids[1::2], found.identical, strict=True)
    pairs = {frozenset((one, other)): same for one, other, same in named}
    assert pairs[frozenset(("a/again.png", "b/001.png"))]
    assert pairs.pop(frozenset(("a/002.png", "b/noisy.png"))) == np.False_
    assert len(pairs) < 4  # shapes that are drawn at random are not alike


def _reencoded(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], 0)


def _noised(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.clip(image + random.integers(-1, 2, image.shape), 0, 255).astype(np.uint8)


def _cropped(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return image[1:, 1:]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> list[np.ndarray]:
    """300 different images of the synthetic data set."""
    dataset = open_dataset(
        data_builders.prepare(
            "synthetic_plankton", data_dir=tmp_path_factory.mktemp("drawn"), num_examples=300
        )
    )
    return [decode_grey(file) for file in dataset.read_images(np.arange(300))]


@pytest.mark.parametrize(
    ("altered", "share"), [(_reencoded, 0.99), (_noised, 0.99), (_cropped, 0.8)]
)
def test_altered_copies_are_found_and_other_images_are_not(tmp_path, drawn, altered, share):
    random = np.random.default_rng(0)
    images = [*drawn, *(altered(image, random) for image in drawn[:100])]
    files = [data_support.png(image) for image in images]
    told = []
    found = find_near_duplicates(
        open_dataset(data_support.write_data_set(tmp_path / "d", files, [0] * 400)),
        progress=lambda *numbers: told.append(numbers),
    )
    copies = found.pairs[:, 1] - found.pairs[:, 0] == 300
    assert copies.sum() >= share * 100
    assert (~copies).sum() <= 1
    assert ("images", 400, 400) in told and told[-1][0] == "pairs" and told[-1][1] == told[-1][2]


def test_blank_images_are_like_blank_images_alone(tmp_path):
    blank, other = (np.full((40, 40), level, np.uint8) for level in (250, 251))
    faint = blank.copy()
    faint[18:22, 18:22] = 200
    files = [data_support.png(image) for image in (blank, faint, other, faint + 1)]
    found = find_near_duplicates(
        open_dataset(data_support.write_data_set(tmp_path / "d", files, [0] * 4))
    )
    assert found.pairs.tolist() == [[0, 2], [1, 3]] and not found.identical.any()


def test_many_blank_images_are_chained_and_not_all_compared():
    small = np.full((3000, 8, 9), 250, np.uint8)
    small[::3, 4, 4] = 10  # a third is not blank, if nearly
    pairs = find_candidates(small, np.full((3000, 2), 40))
    assert (pairs[:, 0] < pairs[:, 1]).all() and len(pairs) < 20 * 3000
    groups = joined(np.arange(3000, dtype=np.uint64), pairs)
    assert len(np.unique(groups)) == 2
    assert find_candidates(small[:0], np.empty((0, 2), int)).shape == (0, 2)


def test_the_command_tells_and_the_split_keeps_them_together(tmp_path, source):
    run = subprocess.run(
        [
            *(sys.executable, "-m", "plankton_jax.data", "--dataset", "image_folder"),
            *("--source", source, "--data-dir", tmp_path / "data", "--out", tmp_path / "page"),
            *("--leaks", "--augmentations", "--config.split.seed=3"),
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "122 images" in run.stdout and "licence: that of the source folder" in run.stdout
    assert "imbalance: 1" in run.stdout and "height, percentiles" in run.stdout
    assert "1 of them equal at every pixel" in run.stdout
    for name in ("contact_sheet.png", "class_counts.png", "augmentations.png"):
        assert (tmp_path / "page" / name).stat().st_size > 5_000
    with (tmp_path / "page" / "class_counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row[part]) for row in rows for part in ("train", "validation", "test")) == 122
    config = Config()
    config.data.dataset, config.data.source = "image_folder", str(source)
    config.data.data_dir, config.split.together = str(tmp_path / "data"), "near_duplicates"
    for config.split.seed in range(8):
        data = open_data(config)
        parts = {}
        for part, rows in data.rows.items():
            parts |= dict.fromkeys(data.dataset.ids(rows), part)
        assert parts["a/again.png"] == parts["b/001.png"]
        assert parts["a/002.png"] == parts["b/noisy.png"]
    config.split.together = "duplicates"
    assert len(open_data(config).rows["train"])


def test_near_duplicates_have_to_be_looked_for_first(tmp_path, source):
    config = Config()
    config.data.dataset, config.data.source = "image_folder", str(source)
    config.data.data_dir, config.split.together = str(tmp_path / "data"), "near_duplicates"
    with pytest.raises(UserError, match=r"near_duplicates.csv. Find them first: .* --leaks"):
        open_data(config)


PAIRS = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=20)


@given(PAIRS, st.integers(1, 30))
def test_joined_groups_are_the_connected_ones(pairs, size):
    groups = (np.arange(30) // size).astype(np.uint64) * np.uint64(1 << 58)
    found = joined(groups, np.array(pairs, np.int64).reshape(-1, 2))
    parent = list(range(30))

    def root(one: int) -> int:
        while parent[one] != one:
            one = parent[one]
        return one

    for one, other in [*pairs, *((row, row // size * size) for row in range(30))]:
        parent[root(one)] = root(other)
    expected = [root(row) for row in range(30)]
    for one in range(30):
        for other in range(30):
            assert (found[one] == found[other]) == (expected[one] == expected[other])


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_no_group_is_divided(seed, groups):
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 1 << 64, 500, dtype=np.uint64)
    of = random.integers(0, groups, 500)
    rows = split_rows(hashes, of, seed=seed, method="grouped", groups=hashes[:groups][of % groups])
    sets = [set(of[found].tolist()) for found in rows.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert sum(map(len, rows.values())) == 500


def test_grouped_by_years_or_bins(tmp_path):
    with zipfile.ZipFile(tmp_path / "2006.zip", "w") as archive:
        for year in range(2006, 2014):
            for sample in range(6):
                for number in range(2):
                    name = f"{year}/mix/S{year}{sample}_{number:05d}.png"
                    archive.writestr(name, organism(year * 100 + sample * 10 + number))
        archive.writestr("2006/Chaetoceros/T_1.png", organism(1))
    config = Config()
    config.data.dataset, config.data.source = "whoi", str(tmp_path / "2006.zip")
    config.data.data_dir, config.split.method = str(tmp_path / "data"), "grouped"
    for config.split.group_depth, cut in ((0, 2), (1, 1)):
        data = open_data(config)
        sets = []
        for part in ("train", "validation", "test"):
            ids = data.dataset.ids(data.rows[part])
            names = [(i.split("/")[0], i.split("/")[2].rpartition("_")[0]) for i in ids]
            sets.append({name[:cut] for name in names})
        assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
        assert all(sets)
    config.data.dataset, config.data.source = "synthetic_plankton", ""
    config.data.num_examples = 50
    with pytest.raises(UserError, match='found "grouped", but no image of this data set has'):
        open_data(config)
    assert json.loads((data.dataset.directory / "metadata.json").read_text())["name"] == "whoi"


def test_a_run_knows_its_rows_and_their_weights(tmp_path):
    table = tmp_path / "weights.csv"
    config = Config()
    config.data.num_examples, config.data.data_dir = 60, str(tmp_path / "data")
    config.sampling.name = "weighted"
    seen = {}
    for weight in ("", "2", "3"):
        config.sampling.weights = str(table) if weight else ""
        table.write_text(f"id,weight\n00000007,{weight}\n00000008,{weight}\n")
        data = open_data(config)
        seen[data.description()["rows_sha256"]] = weight
        assert data.description() == open_data(config).description()
    config.sampling.class_cap = 1
    seen[open_data(config).description()["rows_sha256"]] = "capped"
    assert len(seen) == 4
    for text, words in (
        ("id,weight\nnobody,1\n", "1 ids are not in the data set .nobody"),
        ("id,weight\n00000007,-1\n", "1 weights are negative"),
        ("name,weight\na,1\n", "cannot be read as a csv with the columns id and weight"),
        ("id,weight\n", "it has no rows"),
        ("id,weight\n00000007,5\n00000007,0\n", "an id is there twice"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=words):
            open_data(config)


def test_a_pair_is_of_two_parts_or_labels_where_both_have_one():
    found = NearDuplicates(np.array([[0, 1], [0, 2], [1, 3], [2, 3]]), np.zeros(4, bool))
    np.testing.assert_array_equal(found.across(np.array([0, 1, -1, 1])), [0])
