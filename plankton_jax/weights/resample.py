"""Resizing of position embeddings and relative position biases, as timm does it, in NumPy."""

import math

import numpy as np
from jaxtyping import Float


def resize_position_embedding(
    embedding: Float[np.ndarray, "1 old d"], new_grid: int, prefix_tokens: int
) -> Float[np.ndarray, "1 new d"]:
    """The embedding of a square grid at another size; those of prefix tokens stay as they are.

    Antialiased bicubic interpolation, equal to timm's `resample_abs_pos_embed`. An embedding that
    fits already is returned unchanged. `old - prefix_tokens` must be a square number.
    """
    prefix, patches = embedding[:, :prefix_tokens], embedding[:, prefix_tokens:]
    old_grid = math.isqrt(patches.shape[1])
    if old_grid == new_grid:
        return embedding
    weights = _cubic_weights(old_grid, new_grid)
    grid = patches.reshape(old_grid, old_grid, -1).astype(np.float64)
    resized = np.einsum("yh,xw,hwd->yxd", weights, weights, grid, optimize=True)
    flat = resized.reshape(1, new_grid**2, -1).astype(embedding.dtype)
    return np.concatenate([prefix, flat], axis=1)


def _cubic_weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """The share of each old sample in each new one; every row adds up to 1.

    Keys 1981 with a = -1/2, stretched by the scale when shrinking. Samples beyond the edge have no
    share. (PyTorch takes a = -3/4 without antialiasing and -1/2 with it.)
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(old) - centres[:, None]) / max(scale, 1.0)
    a = -0.5
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def resize_relative_table(
    table: Float[np.ndarray, "old h"], window: int
) -> Float[np.ndarray, "new h"]:
    """A table of relative position biases of a square window at another size.

    Equal to timm's `resize_rel_pos_bias_table`, after BEiT (Bao et al. 2021): the old values sit at
    distances that grow geometrically from the centre, and the new ones are interpolated linearly
    between them. `old` must be the square of an odd number.
    """
    old, new = math.isqrt(table.shape[0]), 2 * window - 1
    if old == new:
        return table
    targets = np.arange(-(window - 1), window)
    positions = _geometric_positions(old // 2, window - 1)
    weights = np.stack([np.interp(targets, positions, unit) for unit in np.eye(old)], axis=1)
    grid = table.reshape(old, old, -1).astype(np.float64)
    resized = np.einsum("yh,xw,hwd->yxd", weights, weights, grid, optimize=True)
    return resized.reshape(new**2, -1).astype(table.dtype)


def _geometric_positions(steps: int, reach: int) -> Float[np.ndarray, " positions"]:
    """0 and, on both sides of it, `steps` distances 1, 1 + q, 1 + q + q^2, ... of about `reach`.

    q is found by bisection between 1.01 and 1.5, to one millionth.
    """
    low, high = 1.01, 1.5
    q = low
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q**steps) / (1 - q) > reach:
            high = q
        else:
            low = q
    distances = np.cumsum(q ** np.arange(steps))
    return np.concatenate([-distances[::-1], [0.0], distances])
