"""Reads weights files in the safetensors format, which holds arrays and no code."""

import os

import numpy as np
import safetensors
import safetensors.numpy

from plankton_jax.errors import UserError


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name.

    Raises:
      UserError: a file that is missing, unreadable or of another format.
    """
    try:
        return safetensors.numpy.load_file(path)
    except OSError as error:
        reason = error.strerror or "no such file"
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = f"not in the safetensors format, or with a number type NumPy lacks ({error})"
    raise UserError(f"weights: {os.fspath(path)} cannot be read: {reason}.")
