"""What the data page prints and draws, and what a data set without labels is good for."""

import json

import cv2
import data_support
import numpy as np
import pytest
from data_support import write_data_set

from plankton_jax.config import Config, SplitConfig
from plankton_jax.data.__main__ import main
from plankton_jax.data.dataset import open_dataset
from plankton_jax.errors import UserError
from plankton_jax.run_data import Data, class_warnings, open_data
from plankton_jax.taxonomy import Taxonomy


def page(tmp_path, *arguments: object) -> int:
    """Runs the command in this process."""
    out = ("--data-dir", tmp_path / "data", "--out", tmp_path / "page")
    return main([*map(str, (*arguments, *out))])


@pytest.fixture
def unlabelled(tmp_path):
    images = [data_support.png(data_support.smooth_image(20, 30, seed)) for seed in range(6)]
    return write_data_set(tmp_path / "bins", images, [-1] * 6)


def test_a_data_set_without_labels_has_a_page(tmp_path, unlabelled, capsys):
    assert page(tmp_path, "--dataset", unlabelled, "--leaks", "--augmentations") == 0
    told = capsys.readouterr().out
    assert "6 images" in told and "licence: CC0-1.0" in told and "unlabelled 6" in told
    assert "no image has a label" in told and "imbalance" not in told and "warning" not in told
    assert "height, percentiles 0 5 50 95 100: 20 20 20 20 20" in told
    sheet = cv2.imread(str(tmp_path / "page" / "contact_sheet.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.std() > 20


def test_a_data_set_without_labels_is_not_trained_on(unlabelled):
    config = Config()
    config.data.dataset = str(unlabelled)
    with pytest.raises(UserError, match="config.data.labels: none of the 6 images .* has a label"):
        open_data(config)


def test_all_nodes_above_the_leaves_are_counted(tmp_path, capsys):
    images = [data_support.png(data_support.smooth_image(20, 30, seed)) for seed in range(40)]
    directory = write_data_set(tmp_path / "built", images, [*range(20)] * 2)
    paths = [(f"group {k // 2}", f"class {k}") for k in range(20)]
    taxonomy = Taxonomy.from_paths(("level1", "taxon"), paths)
    (directory / "taxonomy.json").write_text(json.dumps(taxonomy.to_json()))
    assert page(tmp_path, "--dataset", directory) == 0
    lines = capsys.readouterr().out.splitlines()
    counts = ", ".join(f"group {k} 4" for k in range(10))
    assert f"level1: 10 classes: {counts}" in lines
    assert any(line.startswith("taxon: 20 classes") and line.endswith(", ...") for line in lines)


def test_every_part_tells_of_the_classes_that_it_lacks(tmp_path):
    leaf = [*range(12)] * 2
    dataset = open_dataset(write_data_set(tmp_path / "d", [b""] * 24, leaf))
    rows = {"train": np.arange(11), "validation": np.array([0, 1]), "test": np.array([11])}
    first = [f"class_{k}" for k in range(12)]
    assert class_warnings(Data(dataset, rows), SplitConfig()) == [
        "1 classes have no image in train and cannot be learned: class_11",
        f"10 classes have no image in validation: {', '.join(first[2:12])}",
        f"11 classes have no image in test and are not tested: {', '.join(first[:11])}",
    ]
    nowhere = Data(dataset, rows | {"test": rows["test"][:0], "train": np.arange(2)})
    assert class_warnings(nowhere, SplitConfig(fractions=(0.8, 0.2, 0.0))) == [
        f"10 classes have no image in train and cannot be learned: {', '.join(first[2:12])}",
    ]


def test_a_part_without_an_image_is_told(tmp_path):
    dataset = open_dataset(write_data_set(tmp_path / "d", [b""] * 4, [0, 1] * 2))
    data = Data(dataset, {"train": np.arange(4), "validation": np.arange(0), "test": np.arange(0)})
    split = SplitConfig(method="grouped", fractions=(0.6, 0.4, 0.0))
    (told,) = class_warnings(data, split)
    assert told.startswith(
        "no image is in validation, of which config.split.fractions asks for 0.4"
    )
    assert "method=grouped" in told and "config.split.group_depth" in told
    split.method = "official"
    assert class_warnings(data, split)[0].endswith("the data set's own split decides")


def test_the_page_of_each_variant_has_its_own_folder(tmp_path, unlabelled, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", str(unlabelled)]) == 0
    settings = ["--data-dir", "data", "--config.data.num_examples=20"]
    assert main(["--dataset", "synthetic_plankton", *settings]) == 0
    pages = {path.name for path in tmp_path.glob("*_page")}
    assert pages == {f"{open_dataset(unlabelled).name}_page", "synthetic_plankton_page"}
