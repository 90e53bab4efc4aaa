"""Attention inside windows: the module, its relative position bias, the mask of shifted windows.

Windows are square, of `window` tokens a side and `n = window ** 2` tokens, row by row. Pure
functions of arrays and sizes, and a Flax NNX module.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.models.attention import attend
from plankton_jax.models.transformer import Linear, weight_init

# Added to the scores of tokens that a shift brought together from opposite sides of the map.
MASKED = -100.0


class WindowAttention(nnx.Module):
    """Self-attention inside windows, with a learnt bias for each head and relative position."""

    def __init__(self, width: int, heads: int, window: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.qkv = Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.proj = Linear(width, width, dtype=dtype, rngs=rngs)
        positions = (2 * window - 1) ** 2
        self.relative_position_bias_table = nnx.Param(
            weight_init(rngs.params(), (positions, heads))
        )
        self.heads = heads
        self.window = window

    def __call__(
        self, x: Float[Array, "b h w d"], mask: Float[Array, "windows n n"] | None
    ) -> Float[Array, "b h w d"]:
        """Attends; sides that windows do not fill are padded with zeros, which take part."""
        height, width = x.shape[1:3]
        missing = (-height % self.window, -width % self.window)
        if any(missing):
            x = jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
        bias = relative_bias(self.relative_position_bias_table[...], self.window)[None]
        if mask is not None:
            bias = bias + mask[:, None]
        attended = attend(self._split(self.qkv(x)), bias[None])
        return self.proj(self._join(attended, x.shape)[:, :height, :width])

    def _split(self, qkv: Float[Array, "b h w 3*d"]) -> Float[Array, "3 b windows heads n k"]:
        """Queries, keys and values of each window and head, in one transposition."""
        batch, height, width, channels = qkv.shape
        side, heads = self.window, self.heads
        grid = (height // side, width // side)
        x = qkv.reshape(batch, grid[0], side, grid[1], side, 3, heads, channels // (3 * heads))
        x = x.transpose(5, 0, 1, 3, 6, 2, 4, 7)
        return x.reshape(3, batch, grid[0] * grid[1], heads, side * side, -1)

    def _join(
        self, x: Float[Array, "b windows heads n k"], shape: tuple[int, ...]
    ) -> Float[Array, "b h w d"]:
        """The windows and heads back in their places."""
        batch, height, width, channels = shape
        side = self.window
        grid = (height // side, width // side)
        x = x.reshape(batch, *grid, self.heads, side, side, channels // self.heads)
        return x.transpose(0, 1, 4, 2, 5, 3, 6).reshape(shape)


def relative_bias(table: Float[Array, "positions h"], window: int) -> Float[Array, "h n n"]:
    """The bias of every pair of tokens (query, key) from one value for each relative position.

    `table` lists row differences -window+1 .. window-1 (query minus key), and for each of them the
    column differences. (Liu et al. 2021, section 3.2.) Written with copies and slices alone: a
    gather's gradient is a scatter, slow on a CPU and in no fixed order on a GPU.
    """
    span = 2 * window - 1
    grid = table.T.reshape(-1, span, span)
    columns = _toeplitz(grid, window)  # head, row difference, column, column
    rows = _toeplitz(columns.transpose(0, 2, 3, 1), window)  # head, column, column, row, row
    return rows.transpose(0, 3, 1, 4, 2).reshape(-1, window**2, window**2)


def _toeplitz(values: Float[Array, "*n span"], size: int) -> Float[Array, "*n size size"]:
    """`out[..., i, j] = values[..., size - 1 + i - j]`.

    Rows that are one element longer than their period run one step ahead each time, so that
    cutting the repeated, reversed values into shorter rows shifts them against each other.
    """
    lead, span = values.shape[:-1], values.shape[-1]
    reversed_ = jnp.pad(values[..., ::-1], [(0, 0)] * len(lead) + [(0, 1)])
    repeated = jnp.broadcast_to(reversed_[..., None, :], (*lead, size, span + 1))
    flat = repeated.reshape(*lead, size * (span + 1))
    return flat[..., : size * span].reshape(*lead, size, span)[..., size - 1 :]


def shift_mask(side: int, window: int, shift: int) -> Float[np.ndarray, "windows n n"]:
    """What is added to the scores in windows shifted by `shift` on a map of `side` tokens.

    0 between tokens that were neighbours, `MASKED` between those that the map's wrapping brought
    together. The map counts as padded to whole windows.
    """
    padded = -(-side // window) * window
    position = np.arange(padded)
    part = (position >= padded - window).astype(int) + (position >= padded - shift)
    region = (3 * part[:, None] + part).reshape(padded // window, window, -1, window)
    region = region.transpose(0, 2, 1, 3).reshape(-1, window**2)
    apart = region[:, :, None] != region[:, None, :]
    return np.where(apart, np.float32(MASKED), np.float32(0.0))
