"""Opening a built data set, reading from it, and what a broken one is told."""

import json
import pickle
import shutil

import data_support
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds

import data_builders
from plankton_jax.data.dataset import open_dataset
from plankton_jax.errors import UserError


def test_columns_ids_and_images(tiny):
    assert len(tiny) == len(tiny.leaf) == 103 and tiny.name == "tiny"
    assert tiny.leaf.dtype == np.int32 and tiny.hashes.dtype == np.uint64
    rows = np.array([102, 0, 51, 52, 0, 7])
    images = tiny.read_images(rows)
    assert images[1] == images[4]
    for row, identifier, image in zip(rows, tiny.ids(rows), images, strict=True):
        assert identifier == f"class_{tiny.leaf[row]}/{row:04d}.png"
        assert len(image) == tiny.byte_sizes[row]
    assert tiny.read_images(np.array([], np.int64)) == []


def test_pickling_reopens_in_the_other_process(tiny):
    tiny.read_images(np.arange(3))
    again = pickle.loads(pickle.dumps(tiny))
    assert len(pickle.dumps(tiny)) < 1000
    assert again.read_images(np.arange(60)) == tiny.read_images(np.arange(60))


def test_official_parts(tmp_path):
    image = data_support.png(data_support.smooth_image(8, 8))
    split = ["train", "test", "", "validation"]
    made = data_support.write_data_set(tmp_path / "d", [image] * 4, [0, 1, 0, 1], split)
    assert open_dataset(made).official_parts().tolist() == [0, 2, -1, 1]


def test_a_built_image_folder_reads_as_tfds_reads_it(tmp_path):
    for k in range(6):
        path = tmp_path / "images" / f"class_{k % 3}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data_support.png(data_support.smooth_image(9 + k, 12, k)))
    source = tmp_path / "images"
    directory = data_builders.prepare("image_folder", data_dir=tmp_path / "built", source=source)
    dataset = open_dataset(directory)
    records = tfds.builder_from_directory(directory).as_data_source("all")
    images = dataset.read_images(np.arange(6))
    ids = dataset.ids(np.arange(6))
    for row, record in enumerate(records):
        assert images[row] == record["image"] == (source / ids[row]).read_bytes()
        assert dataset.leaf[row] == record["leaf"] and dataset.height[row] == record["height"]


@pytest.fixture
def broken(tiny_directory, tmp_path):
    return shutil.copytree(tiny_directory, tmp_path / "broken")


def test_missing_and_foreign_directories(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        open_dataset(tmp_path / "nothing")
    with pytest.raises(UserError, match="not a built data set, it lacks index.arrow, taxonomy"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["taxonomy.json", "metadata.json", "dataset_info.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"splits": 3, "format_version": 7}'])
def test_damaged_json(broken, name, text):
    (broken / name).write_text(text)
    with pytest.raises(UserError, match=name):
        open_dataset(broken)


def test_damaged_index(broken):
    path = broken / "index.arrow"
    whole = path.read_bytes()
    for data in (b"", whole[:100], whole[: len(whole) // 2], b"x" * 500):
        path.write_bytes(data)
        with pytest.raises(UserError, match="index.arrow"):
            open_dataset(broken)


def test_index_of_other_columns(broken):
    batch = pa.RecordBatch.from_pydict({"leaf": pa.array([1.5])})
    with pa.OSFile(str(broken / "index.arrow"), "wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
    with pytest.raises(UserError) as raised:
        open_dataset(broken)
    assert len(raised.value.problems) == 8
    assert "column leaf is double; int32 is needed" in str(raised.value)


def test_index_and_shards_out_of_step(broken, tiny_directory):
    info = json.loads((broken / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["52", "50"]
    (broken / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="out of step; examples: 103 in index.arrow, 102"):
        open_dataset(broken)
    info["splits"][0]["shardLengths"] = ["50", "53"]
    (broken / "dataset_info.json").write_text(json.dumps(info))
    dataset = open_dataset(broken)
    with pytest.raises(UserError, match="has 52 records where"):
        dataset.read_images(np.arange(3))


def test_exchanged_shards_are_noticed(broken):
    first, second = sorted(broken.glob("*.array_record*"))
    held = second.read_bytes()
    shutil.copy(first, second)
    dataset = open_dataset(broken)
    with pytest.raises(UserError):
        dataset.read_images(np.arange(103))
    second.write_bytes(held[: len(held) // 2])
    with pytest.raises(UserError, match="cannot be read|damaged|records where"):
        open_dataset(broken).read_images(np.arange(103))
    second.unlink()
    with pytest.raises(UserError, match="1 of 2 shards are missing"):
        open_dataset(broken)
