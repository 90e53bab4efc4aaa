"""What a built data set holds: TFDS's files, the index that describes them, its companions."""

import csv
import hashlib
import json
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from image_files import encoded, make_folder
from PIL import Image

import data_builders
from data_builders import _shards, _staging
from plankton_jax.taxonomy import Taxonomy

FILES: dict[str, bytes | int] = {
    "copepod__Crustacea/one of many.PNG": encoded(".png", seed=1, height=20, width=30),
    "copepod__Crustacea/ééé.jpg": encoded(".jpg", seed=2, height=50, width=10, channels=3),
    "diatom chain/a.TIF": encoded(".tif", seed=3, dtype=np.uint16),
    "diatom chain/b.bmp": encoded(".bmp", seed=4),
    "diatom chain/c.png": encoded(".png", seed=1, height=20, width=30),
    "jelly/a.png": encoded(".png", seed=5, channels=4, dtype=np.uint16),
    "jelly/broken.jpg": encoded(".jpg", seed=6)[:-40],
    "jelly/.hidden.jpg": b"?",
    "jelly/Thumbs.db": b"?",
    "labels.csv": b"file,class\n",
}
LEFT_OUT = ("jelly/broken.jpg", "jelly/.hidden.jpg", "jelly/Thumbs.db", "labels.csv")
IDS = sorted(set(FILES) - set(LEFT_OUT))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("built")
    source = make_folder(root / "images", FILES)
    return data_builders.prepare("image_folder", data_dir=root / "data", source=source)


def read_index(directory: pathlib.Path) -> pa.Table:
    with pa.memory_map(str(directory / "index.arrow")) as file:
        reader = pa.ipc.open_file(file)
        assert reader.num_record_batches == 1
        return reader.read_all()


def read_csv(path: pathlib.Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_index_has_the_agreed_columns(built):
    index = read_index(built)
    texts = [(name, pa.string()) for name in ("id", "group", "split")]
    numbers = [(name, pa.int32()) for name in ("leaf", "height", "width", "bytes")]
    schema = pa.schema([texts[0], *numbers, *texts[1:], ("hash", pa.uint64())])
    assert index.schema == schema
    assert index["id"].to_pylist() == IDS
    assert index["leaf"].to_pylist() == [0, 0, 1, 1, 1, 2]
    assert index["bytes"].to_pylist() == [len(FILES[name]) for name in IDS]
    assert set(index["group"].to_pylist()) == set(index["split"].to_pylist()) == {""}
    hashes = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in IDS]
    assert index["hash"].to_pylist() == [int.from_bytes(digest, "little") for digest in hashes]


def test_index_is_memory_mapped_without_a_copy(built):
    before = pa.total_allocated_bytes()
    index = read_index(built)
    assert pa.total_allocated_bytes() == before
    assert index.num_rows == len(IDS)


def test_tfds_reads_the_records_in_the_order_of_the_index(built):
    builder = tfds.builder_from_directory(built)
    source = builder.as_data_source("all")
    index = read_index(built).to_pylist()
    assert len(source) == len(index) == builder.info.splits.total_num_examples
    for record, row in zip(source, index, strict=True):
        assert record["image"] == FILES[row["id"]]
        for name in ("id", "group", "split"):
            assert record[name].decode() == row[name]
        for name in ("leaf", "height", "width"):
            assert record[name] == row[name]
        pixels = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_GRAYSCALE)
        assert pixels.shape == (row["height"], row["width"])


def test_array_record_reads_the_same_without_tfds(built):
    (shard,) = built.glob("*.array_record*")
    reader = array_record_module.ArrayRecordReader(str(shard))
    records = [_shards.deserialise(data) for data in reader.read_all()]
    assert [record.id for record in records] == IDS
    assert [record.image for record in records] == [FILES[name] for name in IDS]


def test_records_are_written_as_tfds_would(built):
    features = tfds.builder_from_directory(built).info.features
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    record = _shards.Record("a/ü.png", 7, b"\0\xff", 3, 4, "sample 1", "test")
    example = {name: getattr(record, name) for name in record.__slots__ if name != "features"}
    theirs = serializer.get_tf_example(features.encode_example(example))
    assert theirs == _shards.Example.FromString(_shards.serialise(record))
    assert _shards.deserialise(_shards.serialise(record)) == record


def test_companion_files(built):
    taxonomy = Taxonomy.from_json(json.loads((built / "taxonomy.json").read_text()))
    assert taxonomy.level_names == ("taxon",)
    assert taxonomy.leaf_names == ("copepod__Crustacea", "diatom chain", "jelly")
    assert read_csv(built / "rejected.csv") == [
        ["path", "reason"],
        ["jelly/broken.jpg", "truncated"],
        ["labels.csv", "not an image"],
    ]
    assert read_csv(built / "duplicates.csv") == [
        ["id", "duplicate_of"],
        ["diatom chain/c.png", "copepod__Crustacea/one of many.PNG"],
    ]
    metadata = json.loads((built / "metadata.json").read_text())
    assert metadata["name"] == "image_folder"
    assert metadata["num_examples"] == len(IDS)
    assert metadata["rejected"] == {"truncated": 1, "not an image": 1}
    assert metadata["duplicates"] == 1
    assert metadata["format_version"] == 1
    assert len(bytes.fromhex(metadata["fingerprint"])) == 32


def test_mean_and_deviation_are_those_of_the_pixels(tmp_path):
    shapes = {"a/0.png": (20, 30), "a/1.png": (9, 9), "b/0.png": (40, 8), "b/1.png": (10, 10)}
    files: dict[str, bytes | int] = {
        name: encoded(".png", seed=seed, height=height, width=width)
        for seed, (name, (height, width)) in enumerate(shapes.items())
    }
    source = make_folder(tmp_path / "images", files)
    directory = data_builders.prepare("image_folder", data_dir=tmp_path / "data", source=source)
    metadata = json.loads((directory / "metadata.json").read_text())
    images = [np.asarray(Image.open(source / name)) / 255 for name in files]
    mean = np.mean([image.mean() for image in images])
    variance = np.mean([np.mean((image - mean) ** 2) for image in images])
    np.testing.assert_allclose(metadata["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(metadata["std"], np.sqrt(variance), rtol=1e-9)


def fingerprint(tmp_path: pathlib.Path, name: str, files: dict[str, bytes | int]) -> str:
    source = make_folder(tmp_path / name, files)
    directory = data_builders.prepare("image_folder", data_dir=tmp_path / "data", source=source)
    return json.loads((directory / "metadata.json").read_text())["fingerprint"]


def test_fingerprint_follows_the_data_alone(tmp_path):
    files: dict[str, bytes | int] = {"a": 2, "b": 2}
    first = fingerprint(tmp_path, "first", files)
    assert fingerprint(tmp_path, "second", files) == first
    pixels = bytearray(encoded(".bmp"))
    one = fingerprint(tmp_path, "third", files | {"a/x.bmp": bytes(pixels)})
    pixels[-1] ^= 1  # same name, same size, another pixel
    other = fingerprint(tmp_path, "fourth", files | {"a/x.bmp": bytes(pixels)})
    assert len({first, one, other}) == 3


def test_many_shards_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(_staging, "MAX_SHARD_BYTES", 4_000)
    source = make_folder(tmp_path / "images", {"a": 9, "b": 8})
    directory = data_builders.prepare("image_folder", data_dir=tmp_path / "data", source=source)
    names = sorted(path.name for path in directory.glob("*.array_record*"))
    assert len(names) > 2
    assert names[0].endswith(f"-00000-of-{len(names):05d}")
    records = tfds.builder_from_directory(directory).as_data_source("all")
    index = read_index(directory)
    assert [record["id"].decode() for record in records] == index["id"].to_pylist()
    paths = sorted(directory.glob("*.array_record*"))
    lengths = tfds.builder_from_directory(directory).info.splits["images"].shard_lengths
    chosen = [
        _shards.deserialise(data).id for data in _shards.read_rows(paths, lengths, [0, 8, 16])
    ]
    assert chosen == ["a/0.png", "a/8.png", "b/7.png"]


SCRIPT = """
import sys
import data_builders
import tensorflow_datasets as tfds
directory = data_builders.prepare("image_folder", data_dir=sys.argv[1], source=sys.argv[2])
assert len(tfds.builder_from_directory(directory).as_data_source("all")) == 4
print(sorted({"tensorflow", "torch", "jax", "keras", "grain"} & set(sys.modules)))
"""


def test_neither_tensorflow_nor_jax_is_imported(tmp_path):
    source = make_folder(tmp_path / "images", {"a": 2, "b": 2})
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "data"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
