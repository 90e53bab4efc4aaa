"""Sources that make no data set, as a user of the train command meets them."""

import zipfile

import cv2
import numpy as np
import pytest
from command_runs import run

pytestmark = pytest.mark.slow


def _png(seed: int) -> bytes:
    image = np.random.default_rng(seed).integers(0, 255, (20, 30), dtype=np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def _folder(root, *classes: str):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for copy in range(3):
            (root / name / f"{copy}.png").write_bytes(_png(10 * number + copy))
    root.mkdir(exist_ok=True)
    return root


def _corrupt_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in "ab":
            for number in range(5):
                archive.writestr(f"{name}/{number}.png", _png(number))
    path.write_bytes(path.read_bytes()[:700])
    return path


SOURCES = {
    "empty": (lambda path: _folder(path), "is empty"),
    "one_class": (lambda path: _folder(path, "copepod"), "one class only"),
    "clash": (lambda path: _folder(path, "egg mass", "egg_mass", "other"), "egg_mass"),
    "corrupt.zip": (_corrupt_zip, "Copy or download it again"),
    "unknown_taxa": (lambda path: _folder(path, "copepod", "salp"), "salp"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_bad_source_ends_with_status_2_and_leaves_nothing(tmp_path, name):
    make, words = SOURCES[name]
    arguments = [
        *("--config", "configs/image_folder.py", "--workdir", tmp_path / "run"),
        f"--config.data.source={make(tmp_path / name)}",
        f"--config.data.data_dir={tmp_path / 'data'}",
    ]
    if name == "unknown_taxa":
        tree = tmp_path / "tree.csv"
        tree.write_text("level1,taxon\nanimal,copepod\nanimal,krill\n")
        arguments.append(f"--config.data.taxonomy_csv={tree}")
    told = run("train", *arguments, status=2).stderr
    assert words in told and told.startswith("error: ")
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "data").rglob("*.array_record*"))
