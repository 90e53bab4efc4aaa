"""3x3 convolution by Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray 2016).

Each 4x4 window of the input, at stride 2, gives a 2x2 square of the output through 16 products
instead of 36, so that over all windows and channels a convolution is sixteen matrix products.
Pure functions of arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from plankton_jax.models._depthwise import Pads

# The paper's G for both axes at once: from the 9 kernel elements (row, column) to the 16 of a tile
# (column, row).
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_KERNEL_TO_TILE = np.einsum("jb,ia->jiab", _G, _G).reshape(16, 9)


def convolve_winograd(
    inputs: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"], pads: Pads
) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlation at stride 1; `pads` are the zeros before and after, at most one, of rows
    and of columns. Reverse-mode derivatives only.

    Two outputs a side come at once from a map with a zero all around: odd sides get one more, and
    the outputs that nobody asked for are cut off.
    """
    height, width = inputs.shape[1:3]
    even = jnp.pad(inputs, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    outputs = _convolve_even(even, kernel)
    for axis, (length, (before, after)) in enumerate(zip((height, width), pads, strict=True), 1):
        outputs = lax.slice_in_dim(outputs, 1 - before, length - 1 + after, axis=axis)
    return outputs


@jax.custom_vjp
def _convolve_even(inputs: Array, kernel: Array) -> Array:
    """With one zero around a map of even sides.

    The derivatives are written out: what autodiff makes of the forward pass is no quicker and
    compiles twice as long.
    """
    return _winograd_forward(inputs, kernel)[0]


def _winograd_forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    tiles = _gather_tiles(inputs)
    products = _batched_matmul(tiles, _transform_kernel(kernel, _KERNEL_TO_TILE), (2, 1))
    return _scatter_tiles(products, inputs.shape[:3]), (tiles, kernel)


def _winograd_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    tiles, kernel = residuals
    weights_gradient = _batched_matmul(tiles, _spread_gradient(gradient), (1, 1))
    transposed = jnp.asarray(_KERNEL_TO_TILE.T, kernel.dtype)
    kernel_gradient = (transposed @ weights_gradient.reshape(16, -1)).reshape(kernel.shape)
    # The derivative to the inputs is the convolution of the gradient with the kernel turned round.
    turned = _transform_kernel(kernel, _KERNEL_TO_TILE[:, ::-1])
    products = _batched_matmul(_gather_tiles(gradient), turned, (2, 2))
    return _scatter_tiles(products, gradient.shape[:3]), kernel_gradient


_convolve_even.defvjp(_winograd_forward, _winograd_backward)


def _batched_matmul(left: Array, right: Array, contract: tuple[int, int]) -> Array:
    return lax.dot_general(left, right, (((contract[0],), (contract[1],)), ((0,), (0,))))


def _transform_kernel(kernel: Array, transform: np.ndarray) -> Array:
    weights = jnp.asarray(transform, kernel.dtype) @ kernel.reshape(9, -1)
    return weights.reshape(16, *kernel.shape[2:])


def _gather_tiles(inputs: Array) -> Array:
    """B^T d B of every 4x4 window at stride 2: `16 positions c`, columns before rows."""
    padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = jnp.stack(_transform_axis(padded, 1))
    return jnp.stack(_transform_axis(rows, 3)).reshape(16, -1, inputs.shape[-1])


def _transform_axis(x: Array, axis: int) -> list[Array]:
    end = x.shape[axis] - 3
    parts = [lax.slice_in_dim(x, i, i + end, stride=2, axis=axis) for i in range(4)]
    return [parts[0] - parts[2], parts[1] + parts[2], parts[2] - parts[1], parts[1] - parts[3]]


def _scatter_tiles(products: Array, shape: tuple[int, ...]) -> Array:
    """A^T m A of every tile, and the 2x2 outputs put in their places."""
    batch, height, width = shape
    m = products.reshape(4, 4, batch, height // 2, width // 2, products.shape[-1])
    m = jnp.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]], axis=4)
    m = jnp.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]], axis=2)
    return m.reshape(batch, height, width, products.shape[-1])


def _spread_gradient(gradient: Array) -> Array:
    """The transpose of `_scatter_tiles`: `16 positions o`."""
    batch, height, width, features = gradient.shape
    g = gradient.reshape(batch, height // 2, 2, width // 2, 2, features)
    rows = jnp.stack(_spread_axis(g[:, :, 0], g[:, :, 1]))
    return jnp.stack(_spread_axis(rows[..., 0, :], rows[..., 1, :])).reshape(16, -1, features)


def _spread_axis(first: Array, second: Array) -> list[Array]:
    return [first, first + second, first - second, -second]
