"""Fashion-MNIST from small files in the official format, and every way in which they can be bad."""

import gzip
import json
import pathlib
import struct

import cv2
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds

import data_builders
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

COUNTS = {"train": 12, "t10k": 5}


def idx(array: np.ndarray) -> bytes:
    """The array in the format of the official files, as their page describes it."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    result = {}
    for name, count in COUNTS.items():
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        result[f"{name}-images-idx3-ubyte.gz"] = images
        result[f"{name}-labels-idx1-ubyte.gz"] = np.arange(count, dtype=np.uint8) % 10
    return result


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    root = tmp_path / "source"
    root.mkdir()
    for name, array in arrays().items():
        (root / name).write_bytes(gzip.compress(idx(array)))
    return root


def prepare(tmp_path: pathlib.Path, source: pathlib.Path | None) -> pathlib.Path:
    return data_builders.prepare("fashion_mnist", data_dir=tmp_path / "data", source=source)


def test_images_labels_and_official_split(tmp_path, source):
    directory = prepare(tmp_path, source)
    records = list(tfds.builder_from_directory(directory).as_data_source("all"))
    index = pa.ipc.open_file(directory / "index.arrow").read_all()
    assert index["id"].to_pylist()[:2] == ["train-00000", "train-00001"]
    assert index["id"].to_pylist()[-1] == "test-00004"
    assert index["split"].to_pylist() == ["train"] * 12 + ["test"] * 5
    given = arrays()
    images = np.concatenate([given[name] for name in given if "images" in name])
    labels = np.concatenate([given[name] for name in given if "labels" in name])
    np.testing.assert_array_equal(index["leaf"].to_numpy(), labels)
    for record, image in zip(records, images, strict=True):
        pixels = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(pixels, image)


def test_tree(tmp_path, source):
    directory = prepare(tmp_path, source)
    tree = Taxonomy.from_json(json.loads((directory / "taxonomy.json").read_text()))
    assert tree.level_names == ("level1", "level2", "taxon")
    assert [len(names) for names in tree.node_names] == [2, 6, 10]
    assert tree.path(0) == ("Clothes", "Tops", "T-shirt/top")
    assert tree.path(9) == ("Goods", "Shoes", "Ankle boot")


def truncated_gzip(content: bytes) -> bytes:
    return gzip.compress(content)[:-9]


def shorter(content: bytes) -> bytes:
    return gzip.compress(content[:-1])


def longer(content: bytes) -> bytes:
    return gzip.compress(content + b"\0")


def wrong_magic(content: bytes) -> bytes:
    return gzip.compress(b"\0\0\x0d" + content[3:])


def huge(content: bytes) -> bytes:
    return gzip.compress(content[:4] + b"\xff" * (len(content) - 4))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (truncated_gzip, "is no whole gzip file"),
        (shorter, "and holds"),
        (longer, "and holds more"),
        (wrong_magic, "begins with 00000d"),
        (huge, "and holds"),
        (lambda content: content, "is no whole gzip file"),
        (lambda content: b"", "begins with nothing"),
    ],
)
def test_every_bad_file_is_named(tmp_path, source, damage, text):
    names = sorted(arrays())
    for name in names:
        (source / name).write_bytes(damage(idx(arrays()[name])))
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, source)
    assert len(caught.value.problems) == 4
    for name, problem in zip(names, sorted(caught.value.problems), strict=True):
        assert name in problem and text in problem and "config.data.source" in problem
    assert not (tmp_path / "data").exists()


def test_files_that_do_not_belong_together(tmp_path, source):
    (source / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.full(11, 10))))
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, source)
    assert "12 images" in str(caught.value) and "11 labels" in str(caught.value)
    assert "holds label 10" in str(caught.value)


def test_missing_folder_and_files(tmp_path, source):
    for name in COUNTS:
        (source / f"{name}-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, source)
    assert len(caught.value.problems) == 2 and "t10k-labels" in str(caught.value)
    with pytest.raises(UserError, match="is not a folder"):
        prepare(tmp_path, tmp_path / "nowhere")
    with pytest.raises(UserError, match="config.data.source: not set"):
        prepare(tmp_path, None)
