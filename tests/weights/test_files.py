"""Weights files: read, or refused with the reason."""

import numpy as np
import pytest
import safetensors.numpy

from plankton_jax.errors import UserError
from plankton_jax.weights import read_safetensors


def test_arrays_come_back(tmp_path):
    arrays = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(2, np.float16),
        "n": np.array(3, np.int64),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "weights.safetensors")
    read = read_safetensors(tmp_path / "weights.safetensors")
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)


def test_files_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(UserError, match="missing.safetensors cannot be read"):
        read_safetensors(tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        read_safetensors(tmp_path)
    for content in (b"", b"PK\x03\x04 a pickle in a zip", b"\xff" * 100):
        (tmp_path / "other.bin").write_bytes(content)
        with pytest.raises(UserError, match="not in the safetensors format"):
            read_safetensors(tmp_path / "other.bin")
