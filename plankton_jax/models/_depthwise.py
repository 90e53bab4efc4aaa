"""Depthwise convolution as shifted multiply-adds, with the derivatives written out.

Each channel is convolved with its own kernel. What XLA compiles to on a CPU for a grouped
convolution, and for autodiff's form of this one, is 10 to 90 times slower. Pure functions of
arrays.
"""

import functools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]

# Output rows that one step of the kernel's gradient takes; more make no step quicker.
CHUNK = 14


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_depthwise(
    inputs: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c"], stride: int, pads: Pads
) -> Float[Array, "b h2 w2 c"]:
    """Cross-correlation of each channel with its kernel, zeros around the map.

    `pads` are the zeros before and after, of rows and of columns. Reverse-mode derivatives only.
    """
    padded = _pad(inputs, pads)
    size = [
        (length - window) // stride + 1
        for length, window in zip(padded.shape[1:3], kernel.shape[:2], strict=True)
    ]
    rows, columns = (stride * (length - 1) + 1 for length in size)
    return _sum(
        padded[:, i : i + rows : stride, j : j + columns : stride]
        * kernel[i, j].reshape(1, 1, 1, -1)
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )


def _forward(
    inputs: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    return convolve_depthwise(inputs, kernel, stride, pads), (inputs, kernel)


def _backward(
    stride: int, pads: Pads, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    inputs, kernel = residuals
    return (
        _inputs_gradient(inputs.shape[1:3], kernel, stride, pads, gradient),
        _kernel_gradient(inputs, kernel.shape[:2], stride, pads, gradient),
    )


convolve_depthwise.defvjp(_forward, _backward)


def _inputs_gradient(
    size: tuple[int, ...], kernel: Array, stride: int, pads: Pads, gradient: Array
) -> Array:
    """The convolution of the gradient, spread by the stride, with the kernel turned round."""
    around = []
    for axis in (0, 1):
        before = kernel.shape[axis] - 1 - pads[axis][0]
        spread = stride * (gradient.shape[1 + axis] - 1) + 1
        around.append((before, size[axis] + kernel.shape[axis] - 1 - before - spread))
    padded = _pad(gradient, (around[0], around[1]), stride)
    return convolve_depthwise(padded, kernel[::-1, ::-1], 1, ((0, 0), (0, 0)))


def _kernel_gradient(
    inputs: Array, kernel_size: tuple[int, ...], stride: int, pads: Pads, gradient: Array
) -> Array:
    """For each kernel element the sum of the input it met times the gradient.

    A loop takes some rows of one image at a time and adds their products, column by column, to
    one accumulator for each column of the kernel: these stay in the cache.
    """
    batch, height, width, channels = gradient.shape
    steps = -(-height // CHUNK)
    rows = -(-height // steps)
    # Zeros below fill up the last step; rows that no output meets are cut off.
    needed = stride * (steps * rows - 1) + kernel_size[0]
    below = needed - inputs.shape[1] - pads[0][0]
    padded = _pad(inputs, ((pads[0][0], below), pads[1]))
    gradient = _pad(gradient, ((0, steps * rows - height), (0, 0)))
    columns = stride * (width - 1) + 1

    def cut(step: Array) -> tuple[Array, Array]:
        """The rows of the padded inputs and of the gradient that a step needs."""
        image, first = step // steps, step % steps * rows
        height = stride * (rows - 1) + kernel_size[0]
        return (
            lax.dynamic_slice(
                padded, (image, stride * first, 0, 0), (1, height, *padded.shape[2:])
            )[0],
            lax.dynamic_slice(gradient, (image, first, 0, 0), (1, rows, width, channels))[0],
        )

    def body(step: Array, carry: tuple) -> tuple:
        sums, x, g = carry
        sums = [
            total
            + _sum(
                x[stride * row :][: kernel_size[0], j : j + columns : stride] * g[row : row + 1]
                for row in range(rows)
            )
            for j, total in enumerate(sums)
        ]
        # The next step's rows are cut here: the products of rows cut at an index that is known
        # only when it runs would be fused with the cutting, and are not vectorised then.
        return sums, *cut(step + 1)

    zeros = jnp.zeros((kernel_size[0], width, channels), inputs.dtype)
    sums, _, _ = lax.fori_loop(
        0, batch * steps, body, ([zeros] * kernel_size[1], *cut(jnp.int32(0)))
    )
    return jnp.stack([jnp.sum(each, axis=1) for each in sums], axis=1)


def _pad(x: Array, pads: Pads, stride: int = 1) -> Array:
    """Zeros around the map, where negative cut off, and `stride - 1` between its elements."""
    zero = jnp.zeros((), x.dtype)
    between = stride - 1
    return lax.pad(x, zero, ((0, 0, 0), (*pads[0], between), (*pads[1], between), (0, 0, 0)))


def _sum(terms: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, terms)
