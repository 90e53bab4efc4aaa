"""Bins of an Imaging FlowCytobot in both layouts, labelled by a csv, by scores, or not at all."""

import pathlib

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pytest
from image_files import picture

import data_builders
from data_builders.ifcb._labels import read_labels
from plankton_jax.data.dataset import open_dataset
from plankton_jax.errors import UserError

OLD, NEW = "IFCB5_2012_028_081515", "D20130526T095207_IFCB013"
SIZES = [(5, 7), (0, 0), (11, 3), (4, 4)]
"""Height and width of what each trigger saw; the second saw nothing."""


def pixels(name: str, number: int) -> np.ndarray:
    height, width = SIZES[number - 1]
    return picture(seed=number + 10 * (name == NEW), height=height, width=width)


def write_bin(folder: pathlib.Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    first = 9 if name.startswith("IFCB") else 13
    roi, lines = b"", []
    for number, (height, width) in enumerate(SIZES, start=1):
        cells = ["0.5"] * 24
        cells[first : first + 5] = ["1", "2", str(width), str(height), str(len(roi))]
        lines.append(",".join(cells))
        if width:
            roi += pixels(name, number).tobytes()
    (folder / f"{name}.adc").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.hdr").write_text("sampleNumber: 1\n")
    (folder / f"{name}.roi").write_bytes(roi)


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    write_bin(tmp_path / "bins" / "2012", OLD)
    write_bin(tmp_path / "bins", NEW)
    return tmp_path / "bins"


def build(tmp_path: pathlib.Path, source: pathlib.Path, **options) -> pathlib.Path:
    return data_builders.prepare("ifcb", data_dir=tmp_path / "data", source=source, **options)


def columns(directory: pathlib.Path) -> dict[str, list]:
    return pa.ipc.open_file(directory / "index.arrow").read_all().to_pydict()


PIDS = [f"{name}_{number:05d}" for name in (NEW, OLD) for number in (1, 3, 4)]


def test_bins_without_labels(tmp_path, source):
    directory = build(tmp_path, source)
    found = columns(directory)
    assert found["id"] == PIDS and set(found["leaf"]) == {-1}
    assert found["group"] == [pid[:-6] for pid in PIDS]
    dataset = open_dataset(directory)
    for row, (pid, data) in enumerate(zip(PIDS, dataset.read_images(np.arange(6)), strict=True)):
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(decoded, pixels(pid[:-6], int(pid[-5:])))
        assert (found["height"][row], found["width"][row]) == decoded.shape


def test_labels_from_a_csv_and_a_tree(tmp_path, source):
    labels, tree = tmp_path / "labels.csv", tmp_path / "tree.csv"
    labels.write_text(f"pid,label\n{PIDS[0]},diatom\n{PIDS[1]}.png,ciliate\n{PIDS[5]},diatom\n")
    tree.write_text("level1,taxon\nalgae,diatom\nanimals,ciliate\n")
    directory = build(tmp_path, source, labels=labels, taxonomy_csv=tree)
    assert columns(directory)["leaf"] == [0, 1, -1, -1, -1, 0]
    assert open_dataset(directory).taxonomy.path(1) == ("animals", "ciliate")
    tree.write_text("taxon\ndiatom\nciliates\n")
    with pytest.raises(UserError, match='"ciliate" is not in config.data.taxonomy_csv. Did you'):
        build(tmp_path, source, labels=labels, taxonomy_csv=tree)


def test_labels_from_class_scores(tmp_path, source):
    scores = tmp_path / "scores"
    scores.mkdir()
    with h5py.File(scores / f"{OLD}_class.h5", "w") as file:
        file["class_labels"] = ["diatom", "ciliate"]
        file["roi_numbers"] = [1, 3]
        file["output_scores"] = [[0.2, 0.8], [0.9, 0.1]]
        file["output_classes"] = [1, 0]
        file.attrs["version"] = "v3"
    directory = build(tmp_path, source, labels=scores)
    assert open_dataset(directory).taxonomy.leaf_names == ("ciliate", "diatom")
    assert columns(directory)["leaf"] == [-1, -1, -1, 0, 1, -1]


def test_labels_that_are_of_no_image_are_told(tmp_path, source):
    labels = tmp_path / "labels.csv"
    short = [f"{OLD}_1", f"{NEW}_4.png"]
    gone = [f"{OLD}_00002", f"{NEW}_00005", "other", "IFCB9_1_00001"]
    labels.write_text("\n".join(["pid,label", *(f"{pid},x" for pid in (*short, *gone))]))
    told = []
    directory = build(tmp_path, source, labels=labels, notify=told.append)
    assert columns(directory)["leaf"] == [-1, -1, 0, 0, -1, -1]
    assert "4 of 6 labels are not of an image" in told[0]
    assert f"{gone[0]}, {gone[1]}, {gone[2]} ..." in told[0]
    labels.write_text("\n".join(["pid,label", *(f"{pid},x" for pid in gone)]))
    with pytest.raises(UserError, match="config.data.labels .*none of its 4 labels is of an image"):
        build(tmp_path, source, labels=labels)


def test_progress_knows_the_images_of_bins_that_are_not_read_yet(tmp_path, source, monkeypatch):
    monkeypatch.setattr("data_builders.base.PROGRESS_EVERY", 1)
    steps = []
    build(tmp_path, source, progress=lambda *step: steps.append(step))
    assert [done for done, _ in steps] == [*range(1, 7), 6]
    assert steps[0][1] == pytest.approx(6, abs=1) and steps[-1][1] == 6


def test_what_is_missing_or_too_short_is_left_out(tmp_path, source):
    (source / f"{NEW}.hdr").unlink()
    (source / "notes.hdr").write_text("?")
    roi = source / "2012" / f"{OLD}.roi"
    roi.write_bytes(roi.read_bytes()[:-1])
    directory = build(tmp_path, source)
    assert columns(directory)["id"] == PIDS[3:5]
    rejected = (directory / "rejected.csv").read_text()
    assert f'{NEW},"bin without its' in rejected and "notes,not named as a bin" in rejected
    assert f"{PIDS[5]},reaches beyond the end" in rejected


@pytest.mark.parametrize(
    ("size", "words"),
    [(("inf", "2"), "cannot be read"), ((str(2 << 20), "1"), "a side over 65536 pixels")],
)
def test_regions_of_sizes_that_cannot_be_are_left_out(tmp_path, source, size, words):
    adc = source / f"{NEW}.adc"
    lines = adc.read_text().splitlines()
    cells = lines[0].split(",")
    cells[15:17] = size
    adc.write_text("\n".join([",".join(cells), *lines[1:]]))
    with (source / f"{NEW}.roi").open("ab") as roi:
        roi.write(bytes(2 << 20))
    directory = build(tmp_path, source)
    assert columns(directory)["id"] == PIDS[1:]
    assert words in (directory / "rejected.csv").read_text()


def test_a_region_without_scores_has_no_label(tmp_path, source):
    path = tmp_path / f"{OLD}_class.h5"
    with h5py.File(path, "w") as file:
        file.attrs["version"] = "v3"
        file["class_labels"], file["roi_numbers"] = ["a", "b"], [1, 2]
        file["output_scores"] = [[np.nan, np.nan], [0.1, 0.9]]
    assert list(read_labels(path).values()) == ["b"]


def test_what_is_wrong_with_a_tree_names_its_setting(tmp_path, source):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"pid,label\n{OLD}_00001,Mix\n{OLD}_00002,mix\n")
    with pytest.raises(UserError, match="^config.data.labels: "):
        build(tmp_path, source, labels=labels)
    with pytest.raises(UserError, match="^config.data.taxonomy_csv: .*nothere.csv"):
        build(tmp_path, source, labels=labels, taxonomy_csv=tmp_path / "nothere.csv")


@pytest.mark.parametrize(
    ("labels", "numbers", "scores"),
    [
        (["a", "b"], [1.5, 3.0], [[0.2, 0.8], [0.9, 0.1]]),
        (["a", "b"], 1, [[0.2, 0.8]]),
        (["a", "b"], [b"x", b"y"], [[0.2, 0.8], [0.9, 0.1]]),
        ([], [1, 3], [[], []]),
        (["a", "b"], [1, 3], [[b"x", b"y"], [b"x", b"y"]]),
    ],
)
def test_class_scores_that_cannot_be_are_refused(tmp_path, source, labels, numbers, scores):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["class_labels"] = labels
        file["roi_numbers"], file["output_scores"] = numbers, scores
    with pytest.raises(UserError, match="is no file of class scores|needed: v3, a row a region"):
        build(tmp_path, source, labels=path)


def test_bad_sources_and_labels(tmp_path, source):
    with pytest.raises(UserError, match="holds no whole bin"):
        build(tmp_path, _empty(tmp_path))
    labels = tmp_path / "labels.csv"
    labels.write_text("image,class\na,b\n")
    with pytest.raises(UserError, match="has the columns image, class; needed are pid and label"):
        build(tmp_path, source, labels=labels)
    labels.write_text(f"pid,label\n{PIDS[0]},a\n{PIDS[0]},b\n")
    with pytest.raises(UserError, match='it has "a" already'):
        build(tmp_path, source, labels=labels)
    with pytest.raises(UserError, match="is no file of class scores"):
        (tmp_path / "x.h5").write_bytes(b"no hdf5")
        build(tmp_path, source, labels=tmp_path / "x.h5")


def _empty(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "none").mkdir()
    return tmp_path / "none"
