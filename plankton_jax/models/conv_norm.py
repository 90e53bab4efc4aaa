"""Convolution, batch norm and ReLU in one, named as timm names them."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.errors import UserError
from plankton_jax.models.layers import BatchNorm, Convolution, Padding


class ConvNorm(nnx.Module):
    """A convolution and its batch norm, followed by a ReLU unless `activates` is false."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: Padding = "symmetric",
        activates: bool = True,
        epsilon: float = 1e-5,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = Convolution(
            in_features, out_features, kernel_size,
            stride=stride, padding=padding, dtype=dtype, rngs=rngs,
        )  # fmt: skip
        self.bn = BatchNorm(out_features, epsilon=epsilon, dtype=dtype)
        self.activates = activates

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b h2 w2 o"]:
        x = self.bn(self.conv(x), train=train)
        return jax.nn.relu(x) if self.activates else x


def refuse_drop_path(rate: float) -> None:
    """Raises a `UserError` for drop path in a network that has no branch to drop."""
    if rate:
        raise UserError(
            f"config.model.drop_path_rate: found {rate}; the network has no branches that are "
            "dropped; allowed: 0."
        )


def check_least_size(image_size: int, least: int) -> None:
    """Raises a `UserError` for images that convolutions without padding leave nothing of."""
    if image_size < least:
        raise UserError(
            f"config.data.image_size: found {image_size}; the network's convolutions without "
            f"padding leave nothing of so small an image; allowed: {least} or more."
        )
