"""Reads weights files and writes safetensors, a format that holds arrays and no code."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from plankton_jax.errors import UserError
from plankton_jax.files import replacing
from plankton_jax.weights.torch_files import MAGIC, read_torch


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name.

    Raises:
      UserError: a file that is missing, unreadable, cut short or of another format.
    """
    return _read_safetensors(path)[0]


def read_file(path: str | os.PathLike) -> tuple[Any, dict[str, str]]:
    """What a safetensors or PyTorch file holds, and the metadata of the former.

    Raises:
      UserError: the file cannot be read, or holds code.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise _unreadable(path, error) from error
    if start.startswith(MAGIC):
        return read_torch(path), {}
    return _read_safetensors(path)


def write_safetensors(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Writes a safetensors file whole or not at all.

    Raises:
      OSError: it cannot be written there.
    """
    whole = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    # safetensors' own `save_file` hides what the system says, and others could not read its file.
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(whole, metadata))


def file_sha256(path: str | os.PathLike) -> str:
    """The sha256 of a file's bytes."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_safetensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {name: _array(file, name, path) for name in file.keys()}, file.metadata() or {}
    except OSError as error:
        raise _unreadable(path, error) from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(
            f"weights: {os.fspath(path)} cannot be read: cut short, or not in the safetensors "
            f"format ({error}). Get it anew."
        ) from error


def _array(file: Any, name: str, path: str | os.PathLike) -> np.ndarray:
    """One array of an open file."""
    try:
        return file.get_tensor(name)
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:
        kind = file.get_slice(name).get_dtype()
        raise UserError(
            f"weights: {os.fspath(path)} cannot be read: {name} has the number type {kind}, which "
            "NumPy lacks. Save the file with float32 numbers."
        ) from error


def _unreadable(path: str | os.PathLike, error: OSError) -> UserError:
    reason = error.strerror or "no such file"
    return UserError(f"weights: {os.fspath(path)} cannot be read: {reason}.")
