"""Depthwise convolution as shifted multiply-adds, with the derivatives written out.

Each channel is convolved with its own kernel. On a CPU XLA's grouped convolution is many times
slower, and so is the kernel's gradient as autodiff derives it. Pure functions of arrays.
"""

import functools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]

# The most rows of an output that one step of a loop takes.
CHUNK = 14


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_depthwise(
    inputs: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c"], stride: int, pads: Pads
) -> Float[Array, "b h2 w2 c"]:
    """Cross-correlation of each channel with its kernel, zeros around the map.

    `pads` are the zeros before and after, of rows and of columns. Reverse-mode derivatives only.
    """
    height, width = (
        (length + sum(around) - window) // stride + 1
        for length, around, window in zip(inputs.shape[1:3], pads, kernel.shape[:2], strict=True)
    )
    chunks = _Chunks(height, kernel.shape[0], stride)
    padded = chunks.pad_inputs(inputs, pads)
    columns = stride * (width - 1) + 1

    def body(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        outputs, x = carry
        products = (
            x[i : i + stride * (chunks.rows - 1) + 1 : stride, j : j + columns : stride]
            * kernel[i, j].reshape(1, 1, -1)
            for i in range(kernel.shape[0])
            for j in range(kernel.shape[1])
        )
        return (
            lax.dynamic_update_slice(outputs, _sum(products)[None], chunks.place(step)),
            chunks.cut_inputs(padded, step + 1),
        )

    shape = (inputs.shape[0], chunks.count * chunks.rows, width, inputs.shape[3])
    start = jnp.zeros(shape, inputs.dtype), chunks.cut_inputs(padded, jnp.int32(0))
    outputs, _ = lax.fori_loop(0, inputs.shape[0] * chunks.count, body, start)
    return outputs[:, :height]


class _Chunks:
    """How a loop takes the output's rows, some of one image at a time.

    One step's rows stay in the cache, and the compiler fuses nothing into the loop from outside,
    where it would compute the sum anew for each use. A step works on rows that the step before has
    cut: rows cut at an index known only when it runs would be fused with what is done to them, and
    that is not vectorised then.
    """

    def __init__(self, height: int, kernel_height: int, stride: int):
        self.count = -(-height // CHUNK)  # for each image
        self.rows = -(-height // self.count)
        self.kernel_height = kernel_height
        self.stride = stride

    def place(self, step: Array) -> tuple:
        """Where a step's rows are in the output."""
        return step // self.count, step % self.count * self.rows, 0, 0

    def pad_inputs(self, inputs: Array, pads: Pads) -> Array:
        """Zeros around the map and below it for the last step; cut where no output needs them."""
        needed = self.stride * (self.count * self.rows - 1) + self.kernel_height
        below = needed - inputs.shape[1] - pads[0][0]
        return _pad(inputs, ((pads[0][0], below), pads[1]))

    def cut_inputs(self, padded: Array, step: Array) -> Float[Array, "rows w c"]:
        """The rows of one image that a step's outputs need."""
        image, first, *_ = self.place(step)
        height = self.stride * (self.rows - 1) + self.kernel_height
        place = image, self.stride * first, 0, 0
        return lax.dynamic_slice(padded, place, (1, height, *padded.shape[2:]))[0]

    def cut_outputs(self, outputs: Array, step: Array) -> Float[Array, "rows w c"]:
        """A step's rows."""
        size = (1, self.rows, *outputs.shape[2:])
        return lax.dynamic_slice(outputs, self.place(step), size)[0]


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

    The products of a step's rows are added, column by column of the map, to one accumulator for
    each column of the kernel.
    """
    batch, height, width, channels = gradient.shape
    chunks = _Chunks(height, kernel_size[0], stride)
    padded = chunks.pad_inputs(inputs, pads)
    gradient = _pad(gradient, ((0, chunks.count * chunks.rows - height), (0, 0)))
    columns = stride * (width - 1) + 1

    def cut(step: Array) -> tuple[Array, Array]:
        return chunks.cut_inputs(padded, step), chunks.cut_outputs(gradient, step)

    def body(step: Array, carry: tuple) -> tuple:
        sums, x, g = carry
        for j, total in enumerate(sums):
            products = (
                x[stride * row :][: kernel_size[0], j : j + columns : stride] * g[row : row + 1]
                for row in range(chunks.rows)
            )
            sums[j] = total + _sum(products)
        return sums, *cut(step + 1)

    zeros = jnp.zeros((kernel_size[0], width, channels), inputs.dtype)
    start = [zeros] * kernel_size[1], *cut(jnp.int32(0))
    sums, _, _ = lax.fori_loop(0, batch * chunks.count, body, start)
    return jnp.stack([jnp.sum(each, axis=1) for each in sums], axis=1)


def _pad(x: Array, pads: Pads, stride: int = 1) -> Array:
    """Zeros around the map, where negative cut off, and `stride - 1` between its elements."""
    zero, between = jnp.zeros((), x.dtype), stride - 1
    return lax.pad(x, zero, ((0, 0, 0), (*pads[0], between), (*pads[1], between), (0, 0, 0)))


def _sum(terms: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, terms)
