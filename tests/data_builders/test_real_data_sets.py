"""The real images beside the project: every one is found, and is what its own table says."""

import collections
import csv
import gzip
import io
import json
import pathlib
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import data_builders
from plankton_jax.taxonomy import Taxonomy


def load(directory: pathlib.Path) -> tuple[pa.Table, Taxonomy, dict]:
    index = pa.ipc.open_file(directory / "index.arrow").read_all()
    tree = Taxonomy.from_json(json.loads((directory / "taxonomy.json").read_text()))
    return index, tree, json.loads((directory / "metadata.json").read_text())


def needed(path: pathlib.Path) -> pathlib.Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared/data")
    return path


def test_whoi_gallery(real_images, tmp_path):
    root = needed(real_images / "whoi-gallery")
    directory = data_builders.prepare("image_folder", data_dir=tmp_path, source=root / "images")
    index, tree, metadata = load(directory)
    with (root / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = {(row["group"], row["class"], row["file"]) for row in csv.DictReader(file)}
    assert {tuple(identifier.split("/")) for identifier in index["id"].to_pylist()} == rows
    assert metadata["num_examples"] == len(rows) == 924
    assert metadata["rejected"] == {}
    assert tree.num_leaves == 185
    counts = collections.Counter((group, name) for group, name, _ in rows)
    found = collections.Counter(tree.path(leaf) for leaf in index["leaf"].to_pylist())
    assert found == counts


def test_sizes_are_those_that_pillow_reads(real_images, tmp_path):
    source = needed(real_images / "whoi-gallery" / "images")
    directory = data_builders.prepare("image_folder", data_dir=tmp_path, source=source)
    index, _, _ = load(directory)
    for row in index.slice(0, 200).to_pylist():
        with Image.open(source / row["id"]) as image:
            assert image.size == (row["width"], row["height"])


def test_ndsb_archive(real_images, tmp_path):
    source = needed(real_images / "ndsb" / "train.zip")
    directory = data_builders.prepare("image_folder", data_dir=tmp_path, source=source)
    index, tree, metadata = load(directory)
    assert metadata["num_examples"] == 24_264 and metadata["rejected"] == {}
    assert tree.num_leaves == 121 and tree.level_names == ("taxon",)
    records = tfds.builder_from_directory(directory).as_data_source("all")
    with zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        assert sorted(index["id"].to_pylist()) == sorted(name.split("/", 1)[1] for name in names)
        for row in np.random.default_rng(0).integers(0, len(names), 50).tolist():
            identifier = index["id"][row].as_py()
            assert records[row]["image"] == archive.read(f"train/{identifier}")
            assert tree.leaf_names[records[row]["leaf"]] == identifier.split("/")[0]


@pytest.mark.slow
def test_fashion_mnist(real_images, tmp_path):
    source = needed(real_images / "fashion-mnist")
    directory = data_builders.prepare("fashion_mnist", data_dir=tmp_path, source=source)
    index, tree, metadata = load(directory)
    assert metadata["num_examples"] == 70_000
    assert collections.Counter(index["split"].to_pylist()) == {"train": 60_000, "test": 10_000}
    assert np.bincount(index["leaf"].to_numpy()).tolist() == [7_000] * 10
    records = tfds.builder_from_directory(directory).as_data_source("all")
    with gzip.open(source / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    for number in range(0, 10_000, 500):
        image = Image.open(io.BytesIO(records[60_000 + number]["image"]))
        np.testing.assert_array_equal(np.asarray(image), pixels[number])
    # Mean and deviation of the training images, as torchvision's users quote them.
    assert metadata["mean"] == pytest.approx(0.2860, abs=0.005)
    assert metadata["std"] == pytest.approx(0.3530, abs=0.005)
