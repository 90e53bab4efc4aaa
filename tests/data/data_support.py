"""Small images and built data sets, written by the contract and not by the builders."""

import hashlib
import json
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from plankton_jax.taxonomy import Taxonomy


def serialise(**features: bytes | int) -> bytes:
    """A serialised `tf.train.Example`, by protobuf's own library."""
    example = tf_example_pb2.Example()
    for name, value in features.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return example.SerializeToString()


def _shape(image: bytes) -> tuple[int, int]:
    """Height and width; 1 by 1 for what is no image."""
    decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE) if image else None
    return (1, 1) if decoded is None else decoded.shape[:2]


def write_data_set(
    directory: pathlib.Path,
    images: Sequence[bytes],
    leaf: Sequence[int],
    split: Sequence[str] | None = None,
    shards: int = 2,
) -> pathlib.Path:
    """Writes a built data set of these image files; the class -1 is no label."""
    directory.mkdir(parents=True, exist_ok=True)
    count, num_leaves = len(images), max(1, *(k + 1 for k in leaf))
    ids = [f"class_{k}/{i:04d}.png" for i, k in enumerate(leaf)]
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids]
    split = split or [""] * count
    heights, widths = zip(*map(_shape, images), strict=True)
    table = {
        "id": pa.array(ids),
        "leaf": pa.array(leaf, pa.int32()),
        "height": pa.array(heights, pa.int32()),
        "width": pa.array(widths, pa.int32()),
        "bytes": pa.array([len(image) for image in images], pa.int32()),
        "group": pa.array([""] * count),
        "split": pa.array(split),
        "hash": pa.array([int.from_bytes(d, "little") for d in digests], pa.uint64()),
    }
    batch = pa.RecordBatch.from_pydict(table)
    with pa.OSFile(str(directory / "index.arrow"), "wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
    lengths = [len(part) for part in np.array_split(np.arange(count), shards)]
    start = 0
    for shard, length in enumerate(lengths):
        name = f"tiny-images.array_record-{shard:05d}-of-{shards:05d}"
        writer = array_record_module.ArrayRecordWriter(str(directory / name), "group_size:1")
        for i in range(start, start + length):
            writer.write(serialise(image=images[i], id=ids[i].encode(), leaf=leaf[i], group=b""))
        writer.close()
        start += length
    taxonomy = Taxonomy.flat([f"class_{k}" for k in range(num_leaves)])
    metadata = {"name": "tiny", "fingerprint": "0", "num_examples": count, "format_version": 1}
    metadata |= {"licence": "CC0-1.0", "rejected": {}, "duplicates": 0}
    info = {
        "name": "tiny",
        "fileFormat": "array_record",
        "splits": [{"name": "images", "shardLengths": [str(length) for length in lengths]}],
    }
    for name, value in (
        ("taxonomy.json", taxonomy.to_json()),
        ("metadata.json", metadata | {"mean": 0.5, "std": 0.2}),
        ("dataset_info.json", info),
    ):
        (directory / name).write_text(json.dumps(value))
    return directory


def flip_byte(directory: pathlib.Path, image: bytes) -> None:
    """Damages the one record that holds this image, on the disk and outside of the index."""
    for path in directory.glob("*.array_record*"):
        data = bytearray(path.read_bytes())
        if (place := data.find(image)) >= 0:
            data[place + len(image) // 2] ^= 1
            path.write_bytes(data)


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A grey image without detail finer than a few pixels, bright at its border."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), min(height, width) / 10)
    image = (image - image.min()) / (image.max() - image.min())
    return np.rint(40 + 180 * image).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()
