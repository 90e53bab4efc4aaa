"""The reader of one feature, against protobuf's own library and TFDS's parser."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.proto import tf_example_pb2

from plankton_jax.data.records import bytes_feature

names = st.text(max_size=20)
values = st.one_of(st.binary(max_size=40_000), st.integers(-(2**63), 2**63 - 1))


@given(st.dictionaries(names, values, max_size=8), st.binary(max_size=70_000))
def test_finds_the_feature_among_any_others(others, image):
    example = tf_example_pb2.Example()
    for name, value in (others | {"image": image}).items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    for deterministic in (False, True):
        record = example.SerializeToString(deterministic=deterministic)
        assert bytes_feature(record, b"image") == image


def test_agrees_with_what_tfds_writes_and_reads():
    text = tfds.features.Tensor(shape=(), dtype=np.object_)
    features = tfds.features.FeaturesDict(
        {"image": text, "id": text, "leaf": tfds.features.Scalar(np.int32), "split": text}
    )
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    example = {"image": b"\x0a\x05image" * 30, "id": "a/b c.png", "leaf": 5, "split": ""}
    record = serializer.serialize_example(features.encode_example(example))
    parsed = features.deserialize_example_np(record)
    assert bytes_feature(record, b"image") == parsed["image"] == example["image"]
    assert bytes_feature(record, b"id") == parsed["id"] == b"a/b c.png"


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_damaged_record_is_an_error_or_harmless(image, data):
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(image)
    record = example.SerializeToString()
    cut = data.draw(st.integers(0, len(record) - 1))
    with pytest.raises(ValueError):
        bytes_feature(record[:cut], b"image")
    with pytest.raises(ValueError):
        bytes_feature(record, b"leaf")
