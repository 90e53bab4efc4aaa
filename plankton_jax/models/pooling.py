"""Pooling over windows with torch's arithmetic, quick on a CPU backwards as well.

Windows are compared or added as shifted slices, and derivatives are written out: XLA's own for a
windowed maximum search every window again, and those of strided slices write element by element.
Arrays are `b h w c`; pure functions. Reverse-mode derivatives only.
"""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from plankton_jax.errors import UserError

Padding = int | Literal["same"]


def global_average(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """The mean of every channel over the map, in float32."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def max_pool(
    x: Float[Array, "b h w c"], size: int, stride: int, padding: Padding = 0
) -> Float[Array, "b h2 w2 c"]:
    """The greatest value of every window; padding never wins.

    The gradient goes to the first of equal values, row by row, as in torch.

    Args:
      size, stride: of the square windows.
      padding: places added on every side, at most half of `size`; or "same": what makes the output
        `ceil(side / stride)` long, the odd one at the far end, as TensorFlow does. For windows of
        the stride's size that is torch's `ceil_mode`.
    """
    return _max_pool(x, _axes(x, size, stride, padding))


def average_pool(
    x: Float[Array, "b h w c"],
    size: int,
    stride: int,
    padding: Padding = 0,
    *,
    count_include_pad: bool = True,
) -> Float[Array, "b h2 w2 c"]:
    """The mean of every window, summed in float32.

    `size`, `stride` and `padding` are those of `max_pool`. `count_include_pad` takes padding as
    zeros that count, as torch does by default; otherwise the mean is over the window's part inside
    the map.
    """
    rows, columns = _axes(x, size, stride, padding)
    sums = jnp.asarray(_sum_pool(x.astype(jnp.float32), (rows, columns)))
    counts = np.full((1, 1), size**2)
    if not count_include_pad:
        counts = rows.inside()[:, None] * columns.inside()
    shares = jnp.asarray(1 / counts.astype(np.float32))[None, :, :, None]
    return (sums * shares).astype(x.dtype)


def refuse_pool(pool: str | None) -> None:
    """For convolutional networks, which have their own pooling at the end.

    Raises:
      UserError: any choice of another.
    """
    if pool is not None:
        raise UserError(
            f'config.model.pool: found "{pool}"; a convolutional network has its own pooling: '
            "leave it empty."
        )


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Windows along one axis of the map: `size` long, `stride` apart, the first at `-before`."""

    length: int
    size: int
    stride: int
    before: int
    after: int

    @property
    def count(self) -> int:
        return (self.length + self.before + self.after - self.size) // self.stride + 1

    @property
    def folded(self) -> int:
        """Elements of the axis with the same remainder by the stride, at most."""
        return -(-self.length // self.stride)

    def inside(self) -> Int[np.ndarray, " count"]:
        """How many elements of each window are inside the map."""
        starts = np.arange(self.count) * self.stride - self.before
        return np.minimum(starts + self.size, self.length) - np.maximum(starts, 0)

    def reach(self) -> tuple[int, int]:
        """How many windows before the first and behind the last the map's elements look for.

        Element `stride * t + r` is at place k of window `t + (r + before - k) / stride`.
        """
        below = max((self.size - 1 - self.before) // self.stride, 0)
        above = self.folded + (self.stride - 1 + self.before) // self.stride - self.count
        return below, max(above, 0)

    def windows_of(self, remainder: int) -> list[tuple[int, slice]]:
        """For elements of a remainder, their places in windows and those windows.

        Windows are counted from the first that is reached for.
        """
        first = (remainder + self.before) % self.stride
        found = []
        for place in range(first, self.size, self.stride):
            start = self.reach()[0] + (remainder + self.before - place) // self.stride
            found.append((place, slice(start, start + self.folded)))
        return found


Axes = tuple[_Axis, _Axis]


def _axes(x: Array, size: int, stride: int, padding: Padding) -> Axes:
    """The windows along the rows and along the columns."""
    axes = []
    for length in x.shape[1:3]:
        if padding == "same":
            missing = max((math.ceil(length / stride) - 1) * stride + size - length, 0)
            before, after = missing // 2, missing - missing // 2
        else:
            before = after = padding
        axes.append(_Axis(length, size, stride, before, after))
    return axes[0], axes[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, axes: Axes) -> Array:
    return _max_forward(x, axes)[0]


def _max_forward(x: Array, axes: Axes) -> tuple[Array, Array]:
    """The maxima, and the place in its window of each."""
    best, *others = _windows(x, axes, -jnp.inf)
    place = jnp.zeros(best.shape, jnp.uint8)
    for number, value in enumerate(others, 1):
        greater = (value > best) | (value != value)  # NaN wins
        best = jnp.where(greater, value, best)
        place = jnp.where(greater, jnp.uint8(number), place)
    return best, place


def _max_backward(axes: Axes, place: Array, gradient: Array) -> tuple[Array]:
    return (_spread(gradient, axes, place),)


_max_pool.defvjp(_max_forward, _max_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum_pool(x: Array, axes: Axes) -> Array:
    first, *others = _windows(x, axes, 0.0)
    return sum(others, start=first)


def _sum_forward(x: Array, axes: Axes) -> tuple[Array, None]:
    return _sum_pool(x, axes), None


def _sum_backward(axes: Axes, residuals: None, gradient: Array) -> tuple[Array]:
    return (_spread(gradient, axes),)


_sum_pool.defvjp(_sum_forward, _sum_backward)


def _windows(x: Array, axes: Axes, fill: float) -> list[Array]:
    """For each place in a window, row by row, the elements that every window has there."""
    rows, columns = axes
    edges = ((0, 0, 0), *((axis.before, axis.after, 0) for axis in axes), (0, 0, 0))
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), edges)
    height, width = ((axis.count - 1) * axis.stride + 1 for axis in axes)
    return [
        padded[:, row : row + height : rows.stride, column : column + width : columns.stride]
        for row in range(rows.size)
        for column in range(columns.size)
    ]


def _spread(
    gradient: Float[Array, "b h2 w2 c"],
    axes: Axes,
    place: UInt8[Array, "b h2 w2 c"] | None = None,
) -> Float[Array, "b h w c"]:
    """What the windows' gradients add up to in each element of the map.

    Each gradient goes to the `place` in its window, or to all of them. Elements whose row and
    column have the same remainders by the stride are computed together.
    """
    rows, columns = axes
    around = ((0, 0), rows.reach(), columns.reach(), (0, 0))
    gradient = jnp.pad(gradient, around)
    if place is not None:
        place = jnp.pad(place, around)
    batch, _, _, channels = gradient.shape

    def part(row: int, column: int) -> Array:
        """The elements of one remainder of row and one of column."""
        total = jnp.zeros((batch, rows.folded, columns.folded, channels), gradient.dtype)
        for y, vertical in rows.windows_of(row):
            for x, horizontal in columns.windows_of(column):
                value = gradient[:, vertical, horizontal]
                if place is not None:
                    here = place[:, vertical, horizontal] == jnp.uint8(y * columns.size + x)
                    value = jnp.where(here, value, jnp.zeros((), value.dtype))
                total += value
        return total

    remainders = range(rows.stride)
    parts = [jnp.stack([part(r, c) for c in remainders], axis=3) for r in remainders]
    full = jnp.stack(parts, axis=2)
    full = full.reshape(batch, rows.folded * rows.stride, columns.folded * columns.stride, channels)
    return full[:, : rows.length, : columns.length]
