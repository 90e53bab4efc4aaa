"""Convolutions that commute with quarter turns and reflections (Cohen & Welling 2016, group p4m).

An organism under water has no side that is up. A feature map here consists of fields of eight
channels, one for each symmetry of the square: channel `symmetry * fields + field`. When the image
is turned or mirrored, the maps are too, and the channels of each field change places; nothing else
happens. A layer learns the kernel of one symmetry, from which those of the others follow, so it has
an eighth of the parameters of an ordinary layer of as many channels, and its arithmetic.
Pure functions of arrays and Flax NNX modules.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from plankton_jax.models.initialisers import normal
from plankton_jax.models.layers import convolve

ORDER = 8
"""Symmetries of the square: four quarter turns, and the same of the mirror image."""


def symmetries() -> Int[np.ndarray, "8 2 2"]:
    """The symmetries as matrices that act on (row, column) from the centre; the identity first."""
    turn, mirror = np.array([[0, -1], [1, 0]]), np.array([[1, 0], [0, -1]])
    turns = [np.linalg.matrix_power(turn, quarter) for quarter in range(4)]
    return np.stack([*turns, *(matrix @ mirror for matrix in turns)])


@functools.cache
def _expansion(size: int, in_order: int) -> Float[np.ndarray, "rows taps"]:
    """Which learned number stands where in the whole kernel, as a matrix of zeros and ones.

    Rows run over (symmetry of the output, tap row, tap column, symmetry of the input), columns over
    the last three of the learned kernel. `in_order` is 1 for an image, which has no fields.
    """
    matrices = symmetries()
    numbers = {matrix.tobytes(): number for number, matrix in enumerate(matrices)}
    taps = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1)
    columns = np.arange(size * size * in_order).reshape(size, size, in_order)
    rows = []
    for matrix in matrices:
        inverse = matrix.T
        # Twice the distance from the centre is whole for even sizes too.
        centred = (2 * taps - (size - 1)) @ inverse.T
        source = (centred + size - 1) // 2
        fields = [numbers[(inverse @ other).tobytes()] for other in matrices]
        inputs = fields if in_order > 1 else [0]
        rows.append(columns[source[..., 0], source[..., 1]][..., inputs])
    chosen = np.stack(rows).reshape(-1)
    return np.eye(columns.size, dtype=np.float32)[chosen]


class SymmetricConvolution(nnx.Module):
    """A convolution that commutes with the symmetries of the square.

    Its kernel is `size size in_order in_fields out_fields`, that of the output's first channels;
    `in_order` is 1 when the input is an image and 8 when it is fields. At stride 2 it commutes for
    an even `size` and even sides of the map. It starts from He et al. 2015's normal distribution
    over the incoming connections of an image, the outgoing ones of fields.
    """

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        size: int,
        *,
        stride: int = 1,
        of_image: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        in_order = 1 if of_image else ORDER
        connections = size**2 * (in_fields if of_image else ORDER * out_fields)
        shape = (size, size, in_order, in_fields, out_fields)
        self.kernel = nnx.Param(normal(math.sqrt(2.0 / connections))(rngs.params(), shape))
        self.stride = stride
        self.dtype = dtype

    def __call__(self, inputs: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        kernel = expand_kernel(self.kernel[...]).astype(self.dtype)
        return convolve(inputs.astype(self.dtype), kernel, stride=self.stride)


def expand_kernel(
    kernel: Float[Array, "s s order i o"],
) -> Float[Array, "s s order*i 8*o"]:
    """The kernel of an ordinary convolution between all channels of the fields."""
    size, _, in_order, in_fields, out_fields = kernel.shape
    # As a product: a gather of so many numbers is slow, more so backwards.
    table = jnp.asarray(_expansion(size, in_order), kernel.dtype)
    whole = table @ kernel.reshape(-1, in_fields * out_fields)
    whole = whole.reshape(ORDER, size, size, in_order * in_fields, out_fields)
    return jnp.moveaxis(whole, 0, 3).reshape(size, size, in_order * in_fields, -1)


def over_symmetries(values: Float[Array, "*n c"]) -> Float[Array, "*n 8 f"]:
    """Channels by symmetry and field."""
    return values.reshape(*values.shape[:-1], ORDER, -1)
