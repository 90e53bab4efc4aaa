"""Small residual networks for small grey images, made to be trained on a CPU.

Basic blocks (He et al. 2016) whose shortcut averages before it projects (He et al. 2019, ResNet-D)
and whose branch ends in a squeeze-and-excitation gate (Hu et al. 2018). All layers commute with
quarter turns and reflections (see `symmetry`), so pooled features do not depend on which way up an
organism was caught. Nearly all arithmetic is in 3x3 convolutions on even-sided maps, which
`layers.convolve` turns into matrix products.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.models._registry import HALF, ModelEntry, ModelInfo, register
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.initialisers import normal
from plankton_jax.models.layers import BatchNorm
from plankton_jax.models.pooling import refuse_pool
from plankton_jax.models.regularisation import drop_path, drop_path_rates, fold_in_name
from plankton_jax.models.rematerialise import run_blocks
from plankton_jax.models.symmetry import ORDER, SymmetricConvolution, over_symmetries


@dataclasses.dataclass(frozen=True)
class ConvnetConfig:
    """The shape of a small residual network.

    Attributes:
      stem_width: channels of the stem, which halves the image's side; a multiple of 8, as all.
      widths: channels of the stages, each of which halves the side once more.
      depths: blocks of the stages.
      gate_reduction: a gate's hidden width is the block's channels divided by this.
    """

    stem_width: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    gate_reduction: int = 32


class ConvNormalise(nnx.Module):
    """A convolution that commutes with the symmetries of the square, and its batch norm."""

    def __init__(self, in_fields: int, out_fields: int, size: int, *, stride: int = 1,
                 of_image: bool = False, dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        self.convolution = SymmetricConvolution(
            in_fields, out_fields, size, stride=stride, of_image=of_image, dtype=dtype, rngs=rngs
        )
        self.norm = BatchNorm(out_fields, copies=ORDER, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 o"]:
        return self.norm(self.convolution(x), train=train)


class Gate(nnx.Module):
    """Squeeze-and-excitation: fields scaled by a function of their means over image and group."""

    def __init__(self, fields: int, hidden: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        make = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.squeeze = make(fields, hidden, kernel_init=normal(fields**-0.5))
        self.excite = make(hidden, fields, kernel_init=normal(hidden**-0.5))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        means = jnp.mean(over_symmetries(jnp.mean(x, axis=(1, 2))), axis=1)
        weights = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(means))))
        return x * jnp.tile(weights, (1, ORDER))[:, None, None, :]


class Block(nnx.Module):
    """Two 3x3 convolutions and a gate beside a shortcut; it may halve the side first.

    What halves it treats all directions alike, as a convolution of stride 2 and odd size does not:
    the maximum of squares for the branch, the mean for the shortcut.
    """

    def __init__(self, in_fields: int, out_fields: int, *, halves: bool, gate_width: int,
                 drop_path_rate: float, dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        make = functools.partial(ConvNormalise, dtype=dtype, rngs=rngs)
        self.first = make(in_fields, out_fields, 3)
        self.second = make(out_fields, out_fields, 3)
        # The branch starts as nothing: the network begins shallow (Goyal et al. 2017).
        self.second.norm.scale[...] = jnp.zeros(out_fields, jnp.float32)
        self.gate = Gate(out_fields, gate_width, dtype=dtype, rngs=rngs)
        changes = halves or in_fields != out_fields
        self.shortcut = make(in_fields, out_fields, 1) if changes else None
        self.halves = halves
        self.drop_path_rate = drop_path_rate

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b h2 w2 o"]:
        branch = x
        if self.halves:
            squares = _squares(x)
            branch, x = jnp.max(squares, axis=(2, 4)), jnp.mean(squares, axis=(2, 4))
        branch = jax.nn.relu(self.first(branch, train=train))
        branch = self.gate(self.second(branch, train=train))
        if self.shortcut is not None:
            x = self.shortcut(x, train=train)
        return jax.nn.relu(x + drop_path(branch, self.drop_path_rate, key if train else None))


class Convnet(nnx.Module):
    """A small residual network; see `ConvnetConfig` and `plankton_jax.models.list_models`.

    Images are float, normalised, of any size. Where all maps have even sides, the symmetry is exact
    and a CPU is the quickest.

    Attributes:
      feature_dim: length of the pooled features, four for each field of the last stage.
      stage_dims, strides: width and stride in pixels of each stage's feature map.
      rematerialise: whether blocks are computed again backwards; see `rematerialise.run_block`.
    """

    rematerialise = False

    def __init__(
        self,
        config: ConvnetConfig,
        *,
        in_channels: int = 1,
        drop_path_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        make = functools.partial(ConvNormalise, dtype=dtype, rngs=rngs)
        fields = config.stem_width // ORDER
        self.stem = nnx.List(
            [make(in_channels, fields, 4, stride=2, of_image=True), make(fields, fields, 3)]
        )
        rates = iter(drop_path_rates(drop_path_rate, sum(config.depths)))
        self.stages = nnx.List()
        for stage_width, depth in zip(config.widths, config.depths, strict=True):
            blocks = nnx.List()
            for index in range(depth):
                blocks.append(Block(
                    fields, stage_width // ORDER, halves=index == 0,
                    gate_width=max(stage_width // config.gate_reduction, 4),
                    drop_path_rate=next(rates), dtype=dtype, rngs=rngs,
                ))  # fmt: skip
                fields = stage_width // ORDER
            self.stages.append(blocks)
        self.dtype = dtype
        self.feature_dim = 4 * fields
        self.stage_dims = config.widths
        self.strides = tuple(4 * 2**stage for stage in range(len(config.widths)))

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """The map of every stage or those at `indices`; pooled: means and maxima of the last.

        Mean and maximum over the map, of each the mean and maximum over the symmetries.
        """
        x = images.astype(self.dtype)
        for layer in self.stem:
            x = jax.nn.relu(layer(x, train=train))
        stages = []
        for stage, blocks in enumerate(self.stages):
            x = run_blocks(
                blocks, x, train=train,
                key=fold_in_name(key, stage), rematerialise=self.rematerialise,
            )  # fmt: skip
            stages.append(x)
        x = x.astype(jnp.float32)
        over_map = [over_symmetries(pool(x, axis=(1, 2))) for pool in (jnp.mean, jnp.max)]
        pooled = [pool(each, axis=1) for pool in (jnp.mean, jnp.max) for each in over_map]
        return Features(
            stages=select_stages(stages, indices), pooled=jnp.concatenate(pooled, axis=-1)
        )


def _squares(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 2 w2 2 c"]:
    """The map in squares of four; an odd map's far end is repeated."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels)


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
    refuse_pool(pool)
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
