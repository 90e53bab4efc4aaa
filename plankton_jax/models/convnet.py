"""Small residual networks for small grey images, made to be trained on a CPU.

Basic blocks (He et al. 2016) whose shortcut averages before it projects (He et al. 2019, ResNet-D)
and whose branch ends in a squeeze-and-excitation gate (Hu et al. 2018). Nearly all arithmetic is
in 3x3 convolutions on even-sided maps, which `layers.convolve` turns into matrix products.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.errors import UserError
from plankton_jax.models._registry import HALF, ModelEntry, ModelInfo, register
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.initialisers import normal
from plankton_jax.models.layers import BatchNorm, Convolution
from plankton_jax.models.regularisation import drop_path, drop_path_rates, fold_in_name


@dataclasses.dataclass(frozen=True)
class ConvnetConfig:
    """The shape of a small residual network.

    Attributes:
      stem_width: channels of the stem, which halves the image's side.
      widths: channels of the stages, each of which halves the side once more.
      depths: blocks of the stages.
      gate_reduction: a gate's hidden width is the block's width divided by this.
    """

    stem_width: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    gate_reduction: int = 8


class ConvNormalise(nnx.Module):
    """A convolution and its batch norm."""

    def __init__(self, in_features: int, out_features: int, size: int, *, stride: int = 1,
                 dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        self.convolution = Convolution(
            in_features, out_features, size, stride=stride, dtype=dtype, rngs=rngs
        )
        self.norm = BatchNorm(out_features, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 o"]:
        return self.norm(self.convolution(x), train=train)


class Gate(nnx.Module):
    """Squeeze-and-excitation: channels scaled by a function of their means over the image."""

    def __init__(self, width: int, hidden: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        make = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.squeeze = make(width, hidden, kernel_init=normal(width**-0.5))
        self.excite = make(hidden, width, kernel_init=normal(hidden**-0.5))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        means = jnp.mean(x, axis=(1, 2))
        weights = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(means))))
        return x * weights[:, None, None, :]


class Block(nnx.Module):
    """Two 3x3 convolutions and a gate beside a shortcut; the first may halve the side."""

    def __init__(self, in_features: int, out_features: int, *, stride: int, gate_reduction: int,
                 drop_path_rate: float, dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        make = functools.partial(ConvNormalise, dtype=dtype, rngs=rngs)
        self.first = make(in_features, out_features, 3, stride=stride)
        self.second = make(out_features, out_features, 3)
        # The branch starts as nothing: the network begins shallow (Goyal et al. 2017).
        self.second.norm.scale[...] = jnp.zeros(out_features, jnp.float32)
        hidden = out_features // gate_reduction
        self.gate = Gate(out_features, hidden, dtype=dtype, rngs=rngs)
        changes = stride > 1 or in_features != out_features
        self.shortcut = make(in_features, out_features, 1) if changes else None
        self.stride = stride
        self.drop_path_rate = drop_path_rate

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b h2 w2 o"]:
        branch = jax.nn.relu(self.first(x, train=train))
        branch = self.gate(self.second(branch, train=train))
        if self.shortcut is not None:
            x = self.shortcut(_average(x, self.stride), train=train)
        return jax.nn.relu(x + drop_path(branch, self.drop_path_rate, key if train else None))


class Convnet(nnx.Module):
    """A small residual network; see `ConvnetConfig` and `plankton_jax.models.list_models`.

    Images are float, normalised, of any size. Sides whose maps stay even are the quickest on a CPU.

    Attributes:
      feature_dim: length of the pooled features, twice the width of the last stage.
      stage_dims, strides: width and stride in pixels of each stage's feature map.
    """

    def __init__(
        self,
        config: ConvnetConfig,
        *,
        in_channels: int = 1,
        drop_path_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        width = config.stem_width
        self.stem = nnx.List(
            [
                ConvNormalise(in_channels, width, 3, stride=2, dtype=dtype, rngs=rngs),
                ConvNormalise(width, width, 3, dtype=dtype, rngs=rngs),
            ]
        )
        rates = iter(drop_path_rates(drop_path_rate, sum(config.depths)))
        self.stages = nnx.List()
        for stage_width, depth in zip(config.widths, config.depths, strict=True):
            blocks = nnx.List()
            for index in range(depth):
                blocks.append(Block(
                    width, stage_width, stride=2 if index == 0 else 1,
                    gate_reduction=config.gate_reduction, drop_path_rate=next(rates),
                    dtype=dtype, rngs=rngs,
                ))  # fmt: skip
                width = stage_width
            self.stages.append(blocks)
        self.dtype = dtype
        self.feature_dim = 2 * width
        self.stage_dims = config.widths
        self.strides = tuple(4 * 2**stage for stage in range(len(config.widths)))

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: Sequence[int] | None = None,
    ) -> Features:
        """The map of every stage or those at `indices`; pooled: mean and maximum of the last."""
        x = images.astype(self.dtype)
        for layer in self.stem:
            x = jax.nn.relu(layer(x, train=train))
        stages = []
        for stage, blocks in enumerate(self.stages):
            for index, block in enumerate(blocks):
                block_key = fold_in_name(fold_in_name(key, stage), index)
                x = block(x, train=train, key=block_key)
            stages.append(x)
        x = x.astype(jnp.float32)
        pooled = jnp.concatenate([jnp.mean(x, axis=(1, 2)), jnp.max(x, axis=(1, 2))], axis=-1)
        return Features(stages=select_stages(stages, indices), pooled=pooled)


def _average(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b h2 w2 c"]:
    """The mean of squares of `size`; an odd map's far end is covered by repeating it."""
    if size == 1:
        return x
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)), mode="edge")
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height // size, size, width // size, size, channels)
    return jnp.mean(squares, axis=(2, 4))


CONFIGS = {
    "plankton_cnn_tiny": (48, ConvnetConfig(16, (32, 64, 128), (1, 1, 1))),
    "plankton_cnn_small": (64, ConvnetConfig(24, (64, 128, 256, 512), (1, 1, 1, 1))),
}


def _build(
    config: ConvnetConfig,
    *,
    image_size: int,
    in_channels: int,
    drop_path_rate: float,
    dtype: DTypeLike,
    pool: str | None,
    rngs: nnx.Rngs,
) -> Convnet:
    """The registry's signature; any image size will do.

    Raises:
      UserError: a choice of pooling, which is fixed here.
    """
    del image_size
    if pool is not None:
        raise UserError(
            f'config.model.pool: found "{pool}"; a convolutional network has its own pooling: '
            "leave it empty."
        )
    return Convnet(
        config, in_channels=in_channels, drop_path_rate=drop_path_rate, dtype=dtype, rngs=rngs
    )


register(
    *(
        ModelEntry(
            ModelInfo(name, "convnet", size, mean=HALF, std=HALF, crop=1.0),
            functools.partial(_build, config),
        )
        for name, (size, config) in CONFIGS.items()
    )
)
