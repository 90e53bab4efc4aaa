"""Files that hold arrays, but none that a network can have: the file and the array are named."""

import dataclasses
import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from weights_support import random_state_dict, write

from plankton_jax.errors import UserError
from plankton_jax.models import get_info
from plankton_jax.weights import convert, load_model, open_source, save

ARCHITECTURE = get_info("test_vit")


def _convert(path):
    return convert(open_source(str(path), "no cache", architecture=ARCHITECTURE), ARCHITECTURE)


def test_number_types_that_numpy_lacks_are_named(tmp_path):
    header = {"norm.bias": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    text = json.dumps(header).encode()
    path = tmp_path / "t.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0\0")
    with pytest.raises(UserError, match="t.safetensors cannot be read: norm.bias .*F8_E4M3"):
        _convert(path)


def test_files_cut_short_and_web_pages_are_to_be_got_anew(tmp_path):
    whole = write(tmp_path / "t.safetensors", random_state_dict("test_vit")).read_bytes()
    for content in (whole[:-10], b"<!DOCTYPE html><html><body>Not found</body></html>"):
        (tmp_path / "w.bin").write_bytes(content)
        with pytest.raises(UserError, match="w.bin cannot be read: cut short, or not.*Get it anew"):
            _convert(tmp_path / "w.bin")


def test_complex_numbers_are_refused(tmp_path):
    source = random_state_dict("test_vit")
    path = write(tmp_path / "t.safetensors", source)
    save(tmp_path / "x.safetensors", _convert(path))
    write(path, source | {"norm.bias": source["norm.bias"].astype(np.complex64)})
    with pytest.raises(UserError, match="t.safetensors: norm.bias: found complex numbers"):
        _convert(path)
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    arrays["backbone/norm/bias"] = arrays["backbone/norm/bias"].astype(np.complex64)
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors", metadata)
    for read in (load_model, _convert):
        with pytest.raises(UserError, match="x.safetensors: .*norm.bias: found complex numbers"):
            read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("shape", [(2, 50, 64), (1, 50, 32), (1, 1, 64), ()])
def test_position_embeddings_of_no_such_network_are_refused(tmp_path, shape):
    source = random_state_dict("test_vit") | {"pos_embed": np.zeros(shape, np.float32)}
    path = write(tmp_path / "t.safetensors", source)
    with pytest.raises(UserError, match="t.safetensors: pos_embed has shape"):
        _convert(path)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("image_size", "160", "image_size is '160', wanted: int"),
        ("num_classes", 5.0, "num_classes is 5.0, wanted: int"),
        ("in_channels", True, "in_channels is True, wanted: int"),
        ("model", 3, "model is 3, wanted: str"),
        ("provenance", {"source": None}, "source is None, wanted: str"),
        ("provenance", {"mean": 3}, "not iterable"),
    ],
)
def test_metadata_of_other_types_is_refused(tmp_path, field, value, told):
    path = tmp_path / "x.safetensors"
    save(path, _convert(write(tmp_path / "t.safetensors", random_state_dict("test_vit"))))
    with safetensors.safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        values = json.loads(file.metadata()["plankton_jax"])
    values[field] = values[field] | value if isinstance(value, dict) else value
    safetensors.numpy.save_file(arrays, path, {"plankton_jax": json.dumps(values)})
    for read in (load_model, _convert):
        with pytest.raises(UserError, match=f"x.safetensors: .*{told}.*Convert the source anew"):
            read(path)


def test_a_file_of_a_network_that_is_not_here_is_named(tmp_path):
    converted = _convert(write(tmp_path / "t.safetensors", random_state_dict("test_vit")))
    other = dataclasses.replace(converted.info, model="tst_vit")
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(1)}, path, other.metadata())
    for read in (load_model, _convert):
        with pytest.raises(UserError, match='x.safetensors: .*"tst_vit".*Did you mean "test_vit"'):
            read(path)


@pytest.mark.parametrize(
    ("found", "wanted", "pool"),
    [
        ("vit_tiny_patch16_224", "vit_small_patch16_224", ""),
        ("vit_tiny_patch16_224", "vit_small_patch16_224", "mean"),
        ("convnext_atto", "convnext_tiny", ""),
        ("resnet10t", "resnet18", ""),
    ],
)
def test_weights_of_another_size_are_told_in_few_lines(tmp_path, found, wanted, pool):
    path = write(tmp_path / "t.safetensors", random_state_dict(found, pool=pool))
    architecture = get_info(wanted)
    source = open_source(str(path), "no cache", architecture=architecture)
    with pytest.raises(UserError) as error:
        convert(source, architecture)
    first, *lines = error.value.problems
    assert first.startswith(f"{path}: these look like {found}")
    assert f", and {wanted} is wanted." in first
    assert len(lines) <= 11 and all(line.startswith(f"{path}: ") for line in lines)


def test_faults_within_weights_of_the_wanted_network_are_counted(tmp_path):
    source = random_state_dict("test_vit")
    spoilt = {key: np.full_like(value, np.nan) for key, value in source.items()}
    with pytest.raises(UserError) as error:
        _convert(write(tmp_path / "t.safetensors", spoilt))
    assert "cls_token" in error.value.problems[0]
    assert error.value.problems[-1].endswith(f"and {len(source) - 10} more of the kind.")
    assert "these look like" not in str(error.value)
