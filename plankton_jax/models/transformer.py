"""What the transformers have in common: patches, MLP, layer scale. Pure modules of arrays."""

import math

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.errors import UserError
from plankton_jax.models.initialisers import normal, uniform
from plankton_jax.models.layers import gelu

# timm truncates at 2, a hundred standard deviations away: a plain normal distribution.
weight_init = normal(0.02)


class PatchEmbed(nnx.Module):
    """Cuts the image into patches and projects each to a token."""

    def __init__(
        self, patch: int, in_channels: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        # PyTorch's initialisation of a convolution, which timm leaves as it is.
        init = uniform(1.0 / math.sqrt(patch * patch * in_channels))
        shape = (patch, patch, in_channels, width)
        self.kernel = nnx.Param(init(rngs.params(), shape))
        self.bias = nnx.Param(init(rngs.params(), (width,)))
        self.dtype = dtype

    def __call__(self, images: Float[Array, "b height width c"]) -> Float[Array, "b h w d"]:
        # A convolution whose stride is its size is one matrix product, which is quicker.
        kernel = self.kernel[...].astype(self.dtype)
        batch, height, width, channels = images.shape
        patch = kernel.shape[0]
        grid = (batch, height // patch, patch, width // patch, patch, channels)
        patches = images.astype(self.dtype).reshape(grid)
        tokens = jnp.einsum("bhiwjc,ijcd->bhwd", patches, kernel)
        return tokens + self.bias[...].astype(self.dtype).reshape(1, 1, 1, -1)


class Linear(nnx.Linear):
    """A linear layer that starts small. Over all tokens as one product: the gradient of a product
    with more axes transposes its inputs, which takes a tenth of a Swin's training step on a CPU."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, kernel_init=weight_init, dtype=dtype,
            rngs=rngs,
        )  # fmt: skip

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class Mlp(nnx.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.fc1 = Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return self.fc2(gelu(self.fc1(x)))


class LayerScale(nnx.Module):
    """A learnt factor for each channel of a residual branch (Touvron et al. 2021, CaiT)."""

    def __init__(self, width: int, initial: float):
        self.gamma = nnx.Param(jnp.full((width,), initial, jnp.float32))

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return x * self.gamma[...].astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def check_image_size(image_size: int, patch: int) -> None:
    """Raises a `UserError` for a side that whole patches do not fill."""
    if image_size < patch or image_size % patch:
        down = max(image_size // patch, 1) * patch
        raise UserError(
            f"config.data.image_size: found {image_size}; allowed: a multiple of the patch size "
            f"{patch}, such as {down} or {down + patch}."
        )


def check_images(images: Float[Array, "b height width c"], image_size: int) -> None:
    """Raises a `UserError` for images of another size than the network was built for."""
    if images.shape[1:3] != (image_size, image_size):
        height, width = images.shape[1:3]
        raise UserError(
            f"config.data.image_size: the network was built for {image_size} x {image_size} "
            f"pixels and was given {height} x {width}; allowed: images of that size, or a network "
            "built for theirs."
        )
