"""Weights and inputs made from names and shapes alone, so that no test has to store them."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np


def generator(name: str) -> np.random.Generator:
    """A stream of random numbers that depends on the name alone."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def random_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Values for a state dict in timm's naming, at scales that keep activations near 1."""
    return {name: _values(name, tuple(shape)) for name, shape in shapes.items()}


def random_images(name: str, batch: int, size: int, channels: int = 3) -> np.ndarray:
    """Standard normal images, `b h w c` float32."""
    return generator(name).normal(size=(batch, size, size, channels)).astype(np.float32)


def checksums(gradients: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The norm of each array and its product with a random direction of length 1, float64."""
    return {name: np.array(_checksum(name, value)) for name, value in gradients.items()}


def thinned(name: str, value: np.ndarray, kept: int) -> np.ndarray:
    """As many values of a larger array, from places that its name alone chooses; 0: all of it."""
    if not 0 < kept < value.size:
        return value
    return value.ravel()[generator(f"places of {name}").integers(value.size, size=kept)]


def _checksum(name: str, value: np.ndarray) -> tuple[float, float]:
    value = np.asarray(value, np.float64).ravel()
    direction = generator(f"direction of {name}").normal(size=value.shape)
    return float(np.linalg.norm(value)), float(value @ direction / np.linalg.norm(direction))


def _values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = generator(name).normal(size=shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        values = 1.0 + 0.5 * np.tanh(noise)
    elif name.endswith("weight") and len(shape) == 1:  # of a normalisation
        values = 1.0 + 0.1 * noise
    elif name.endswith("weight"):
        values = noise / math.sqrt(math.prod(shape[1:]))
    else:
        values = 0.1 * noise
    return values.astype(np.float32)
