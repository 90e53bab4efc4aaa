"""Training and evaluating on real images through the commands. Skipped where they are absent."""

import json

import pytest
from command_runs import run
from image_files import make_folder

pytestmark = pytest.mark.slow


def test_a_real_folder_of_two_levels_and_tiny_classes(real_images, tmp_path):
    gallery = real_images / "whoi-gallery" / "images"
    arguments = [
        *("--config", "configs/image_folder.py", "--workdir", tmp_path / "run"),
        f"--config.data.source={gallery}",
        f"--config.data.data_dir={tmp_path / 'data'}",
        "--config.data.image_size=32",
        "--config.model.name=plankton_cnn_tiny",
        "--config.train.epochs=2",
    ]
    told = run("train", *arguments).stderr
    assert "924 images, 185 classes" in told and "have no image in test and are not" in told
    printed = run("evaluate", "--run", tmp_path / "run", "--split", "test", "--json").stdout
    levels = json.loads(printed)["levels"]
    assert [level["name"] for level in levels] == ["level1", "taxon"]
    assert all(0 <= level["micro_accuracy"] <= 1 for level in levels)
    table = (tmp_path / "run" / "predictions" / "test_classes.csv").read_text().splitlines()
    assert len(table) == 186


def test_a_run_is_evaluated_when_its_images_are_gone(tmp_path):
    images = tmp_path / "images"
    make_folder(images, {"a": 20, "b": 20})
    arguments = [
        *("--config", "configs/image_folder.py", "--workdir", tmp_path / "run"),
        f"--config.data.source={images}",
        f"--config.data.data_dir={tmp_path / 'data'}",
        *("--config.data.image_size=24", "--config.train.batch_size=16"),
        *("--config.model.name=plankton_cnn_tiny", "--config.train.epochs=2"),
    ]
    run("train", *arguments)
    images.rename(tmp_path / "elsewhere")
    run("evaluate", "--run", tmp_path / "run")
    assert "done" in run("train", *arguments).stderr
