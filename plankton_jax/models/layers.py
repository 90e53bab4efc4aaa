"""Convolution and batch normalisation that are quick on a CPU as well as on an accelerator.

XLA's own convolution on a CPU is slow backwards and slow when grouped. There, in float32, a
convolution is written here as matrix products: 1x1 kernels as one, 3x3 kernels of stride 1 as
the sixteen products of Winograd's F(2x2, 3x3), depthwise kernels as shifted multiply-adds, and
the rest as one product over gathered patches. Elsewhere it is `lax.conv_general_dilated`.
Arrays are `b h w c`, kernels `height width in out`; pure functions and Flax NNX modules.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.models._depthwise import Pads, convolve_depthwise
from plankton_jax.models._winograd import convolve_winograd
from plankton_jax.models.initialisers import Initialiser, normal

Padding = Literal["symmetric", "same", "valid"]
Method = Literal["auto", "direct", "matmul"]

# --------------------------------------------------------------------------------- convolution


def convolve(
    inputs: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    stride: int = 1,
    padding: Padding = "symmetric",
    groups: int = 1,
    method: Method = "auto",
) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlates `inputs` with `kernel`, both of one dtype.

    `padding="symmetric"` adds `(size - 1) // 2` zeros on every side, as torch's usual setting;
    `"same"` adds what makes the output `ceil(size / stride)` long, the odd one at the far end,
    as TensorFlow does; `"valid"` adds none. `groups` is 1 or the number of channels (`i` is 1
    then). `method="auto"` takes `"matmul"` for float32 on a CPU and `"direct"` (XLA's own)
    everywhere else; the two agree up to rounding.
    """
    pads = _pads(inputs.shape[1:3], kernel.shape[:2], stride, padding)
    if method == "auto":
        quick = jax.default_backend() == "cpu" and inputs.dtype == jnp.float32
        method = "matmul" if quick else "direct"
    if method == "direct" or groups not in (1, inputs.shape[-1]):
        return _convolve_direct(inputs, kernel, stride, pads, groups)
    if groups > 1:
        return _convolve_depthwise(inputs, kernel, stride, pads)
    if kernel.shape[:2] == (1, 1):
        return _convolve_pointwise(inputs, kernel, stride)
    # Below 8 channels the transforms cost more than the products they save.
    if kernel.shape[:2] == (3, 3) and stride == 1 and inputs.shape[-1] >= 8:
        return convolve_winograd(inputs, kernel, pads)
    return _convolve_patches(inputs, kernel, stride, pads)


def _pads(
    size: tuple[int, ...], kernel_size: tuple[int, ...], stride: int, padding: Padding
) -> Pads:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "symmetric":
        before = [(length - 1) // 2 for length in kernel_size]
        return (before[0], before[0]), (before[1], before[1])
    pads = []
    for length, window in zip(size, kernel_size, strict=True):
        missing = max((math.ceil(length / stride) - 1) * stride + window - length, 0)
        pads.append((missing // 2, missing - missing // 2))
    return pads[0], pads[1]


def _convolve_direct(inputs: Array, kernel: Array, stride: int, pads: Pads, groups: int) -> Array:
    return lax.conv_general_dilated(
        inputs,
        kernel,
        window_strides=(stride, stride),
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _pad(inputs: Array, pads: Pads) -> Array:
    return jnp.pad(inputs, ((0, 0), *pads, (0, 0)))


def _shifts(inputs: Array, kernel_size: tuple[int, ...], stride: int) -> list[Array]:
    """For each kernel element, row by row, the (padded) input elements that meet it."""
    ends = [
        (length - window) // stride * stride + 1
        for length, window in zip(inputs.shape[1:3], kernel_size, strict=True)
    ]
    return [
        inputs[:, row : row + ends[0] : stride, column : column + ends[1] : stride]
        for row in range(kernel_size[0])
        for column in range(kernel_size[1])
    ]


def _convolve_pointwise(inputs: Array, kernel: Array, stride: int) -> Array:
    return _matmul(inputs[:, ::stride, ::stride], kernel[0, 0])


def _convolve_depthwise(inputs: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    multiplier = kernel.shape[-1] // inputs.shape[-1]
    if multiplier > 1:
        inputs = jnp.repeat(inputs, multiplier, axis=-1)
    return convolve_depthwise(inputs, kernel[:, :, 0], stride, pads)


def _convolve_patches(inputs: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    shifts = _shifts(_pad(inputs, pads), kernel.shape[:2], stride)
    return _matmul(jnp.concatenate(shifts, axis=-1), kernel.reshape(-1, kernel.shape[-1]))


def _matmul(inputs: Array, weights: Array) -> Array:
    """Applies `weights` to the last axis, as one product over all other axes flattened."""
    flat = inputs.reshape(-1, inputs.shape[-1]) @ weights
    return flat.reshape(*inputs.shape[:-1], weights.shape[-1])


class Convolution(nnx.Module):
    """A convolution; float32 parameters, computed in `dtype`.

    `kernel_size` is a side, or height and width. The kernel starts from `kernel_init`, without one
    from He et al. 2015's normal distribution over the outgoing connections; the bias from zeros.
    The arithmetic and its options are those of `convolve`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int] = 3,
        *,
        stride: int = 1,
        padding: Padding = "symmetric",
        groups: int = 1,
        use_bias: bool = False,
        kernel_init: Initialiser | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        shape = (*sides, in_features // groups, out_features)
        deviation = math.sqrt(2.0 * groups / (math.prod(sides) * out_features))
        kernel_init = kernel_init or normal(deviation)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32)) if use_bias else None
        self.stride = stride
        self.padding: Padding = padding
        self.groups = groups
        self.dtype = dtype

    def __call__(self, inputs: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        outputs = convolve(
            inputs.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        if self.bias is None:
            return outputs
        return outputs + self.bias[...].astype(self.dtype).reshape(1, 1, 1, -1)


# ------------------------------------------------------------------------------- normalisation


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, with torch's semantics.

    Ioffe & Szegedy 2015. In training the batch's own mean and biased variance normalise, and the
    running statistics move towards that mean and the unbiased variance:
    `running = momentum * running + (1 - momentum) * batch` (torch's momentum .1 is .9 here).
    Otherwise the running statistics normalise and nothing changes. Statistics are float32 whatever
    the inputs are. Under `jax.jit` with a batch split over devices they are the whole batch's.

    With `copies` there are that many channels for each feature, `copy * num_features + feature`,
    which share its parameters and statistics.
    """

    def __init__(
        self,
        num_features: int,
        *,
        copies: int = 1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: DTypeLike = jnp.float32,
    ):
        self.scale = nnx.Param(jnp.ones(num_features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(num_features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(num_features, jnp.float32))
        self.variance = nnx.BatchStat(jnp.ones(num_features, jnp.float32))
        self.copies = copies
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(
        self, inputs: Float[Array, "*n c"], *, train: bool = False
    ) -> Float[Array, "*n c"]:
        mean, variance = self.mean[...], self.variance[...]
        if train:
            mean, variance = batch_statistics(inputs, self.copies)
            count = inputs.size // mean.size
            self._move(self.mean, mean)
            self._move(self.variance, variance * (count / max(count - 1, 1)))
        scale = lax.rsqrt(variance + self.epsilon) * self.scale[...]
        offset = self.bias[...] - mean * scale
        scale, offset = (jnp.tile(each, self.copies) for each in (scale, offset))
        broadcast = (1,) * (inputs.ndim - 1) + (-1,)
        # One multiply-add: XLA fuses it with the activation that follows.
        outputs = inputs.astype(jnp.float32) * scale.reshape(broadcast) + offset.reshape(broadcast)
        return outputs.astype(self.dtype)

    def _move(self, running: nnx.BatchStat, batch: Float[Array, " c"]) -> None:
        new = self.momentum * running[...] + (1.0 - self.momentum) * lax.stop_gradient(batch)
        running.set_value(new)


def batch_statistics(
    inputs: Float[Array, "*n c"], copies: int = 1
) -> tuple[Float[Array, " f"], Float[Array, " f"]]:
    """Mean and biased variance of each feature, in float32, by two passes.

    The one-pass formula E[x^2] - E[x]^2 loses every digit where the mean is large.
    """
    inputs = inputs.astype(jnp.float32)
    axes = tuple(range(inputs.ndim - 1))
    mean = jnp.mean(jnp.mean(inputs, axis=axes).reshape(copies, -1), axis=0)
    centred = inputs - jnp.tile(mean, copies).reshape((1,) * len(axes) + (-1,))
    variance = jnp.mean(jnp.mean(jnp.square(centred), axis=axes).reshape(copies, -1), axis=0)
    return mean, variance


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, x times the normal distribution function, by `erf` as PyTorch has it.

    `jax.nn.gelu` takes `erfc`, which costs three times as much on a CPU and differs where the
    result is below 1e-6.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))
