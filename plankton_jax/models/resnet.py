"""ResNet (He et al. 2016) and its variants D and T (He et al. 2019), equal to timm's.

Convolutions have no offset and are followed by batch norm (epsilon 1e-5) and ReLU; where a stage
halves the side, the 3x3 convolution of its first block does.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.models._registry import ModelEntry, ModelInfo, register
from plankton_jax.models.features import Features, select_stages
from plankton_jax.models.layers import BatchNorm, Convolution
from plankton_jax.models.pooling import average_pool, global_average, max_pool, refuse_pool
from plankton_jax.models.regularisation import drop_path, drop_path_rates, fold_in_name
from plankton_jax.models.rematerialise import run_blocks


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """The shape of a network.

    Attributes:
      depths: blocks of the stages.
      bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions, four times as wide at their ends,
        instead of two of 3x3.
      stem: channels of the stem's convolutions: one of 7x7, or three of 3x3.
      averages: shortcuts average before they project, instead of leaving pixels out.
      widths: channels of the 3x3 convolutions of the stages.
    """

    depths: tuple[int, ...]
    bottleneck: bool = False
    stem: tuple[int, ...] = (64,)
    averages: bool = False
    widths: tuple[int, ...] = (64, 128, 256, 512)


class DeepStem(nnx.Module):
    """Three 3x3 convolutions, the first of stride 2; the norm of the last is the network's."""

    def __init__(self, in_channels: int, widths: Sequence[int], *, dtype: DTypeLike,
                 rngs: nnx.Rngs):  # fmt: skip
        first, second, third = widths
        make = functools.partial(Convolution, dtype=dtype, rngs=rngs)
        self.conv1 = make(in_channels, first, stride=2)
        self.bn1 = BatchNorm(first, dtype=dtype)
        self.conv2 = make(first, second)
        self.bn2 = BatchNorm(second, dtype=dtype)
        self.conv3 = make(second, third)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        x = jax.nn.relu(self.bn1(self.conv1(x), train=train))
        x = jax.nn.relu(self.bn2(self.conv2(x), train=train))
        return self.conv3(x)


class Shortcut(nnx.Module):
    """A projection to other channels, and to half the side at stride 2.

    `layers` are numbered as in timm, where an averaging has place 0.
    """

    def __init__(self, in_features: int, features: int, stride: int, *, averages: bool,
                 dtype: DTypeLike, rngs: nnx.Rngs):  # fmt: skip
        self.averages = averages
        self.stride = stride
        projection = Convolution(
            in_features, features, 1, stride=1 if averages else stride, dtype=dtype, rngs=rngs
        )
        layers = [projection, BatchNorm(features, dtype=dtype)]
        self.layers: Any = nnx.List([nnx.Module(), *layers] if averages else layers)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        if self.averages and self.stride > 1:
            x = average_pool(x, self.stride, self.stride, "same", count_include_pad=False)
        *_, projection, norm = self.layers
        return norm(projection(x), train=train)


class Block(nnx.Module):
    """Two or three convolutions beside a shortcut."""

    def __init__(
        self,
        in_features: int,
        width: int,
        stride: int,
        config: ResNetConfig,
        *,
        drop_path_rate: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        make = functools.partial(Convolution, dtype=dtype, rngs=rngs)
        features = block_features(width, config)
        self.bottleneck = config.bottleneck
        if self.bottleneck:
            self.conv1 = make(in_features, width, 1)
            self.bn1 = BatchNorm(width, dtype=dtype)
            self.conv2 = make(width, width, stride=stride)
            self.bn2 = BatchNorm(width, dtype=dtype)
            self.conv3 = make(width, features, 1)
            self.bn3 = last = BatchNorm(features, dtype=dtype)
        else:
            self.conv1 = make(in_features, width, stride=stride)
            self.bn1 = BatchNorm(width, dtype=dtype)
            self.conv2 = make(width, features)
            self.bn2 = last = BatchNorm(features, dtype=dtype)
        # The branch starts as nothing: the network begins shallow (Goyal et al. 2017).
        last.scale[...] = jnp.zeros(features, jnp.float32)
        project = functools.partial(Shortcut, averages=config.averages, dtype=dtype, rngs=rngs)
        changes = stride > 1 or in_features != features
        self.downsample = project(in_features, features, stride) if changes else None
        self.drop_path_rate = drop_path_rate

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool = False, key: jax.Array | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        branch = jax.nn.relu(self.bn1(self.conv1(x), train=train))
        branch = self.bn2(self.conv2(branch), train=train)
        if self.bottleneck:
            branch = self.bn3(self.conv3(jax.nn.relu(branch)), train=train)
        if self.downsample is not None:
            x = self.downsample(x, train=train)
        return jax.nn.relu(x + drop_path(branch, self.drop_path_rate, key if train else None))


def block_features(width: int, config: ResNetConfig) -> int:
    """Channels that a block puts out."""
    return 4 * width if config.bottleneck else width


class ResNet(nnx.Module):
    """The backbone. Parameters are named as in timm: `layer1/0/conv1/kernel`.

    Images are float, normalised, of any size.

    Attributes:
      feature_dim: length of the pooled features.
      stage_dims, strides: width and stride in pixels of each stage's feature map, the first of
        which is the stem's before its pooling.
      rematerialise: whether blocks are computed again backwards; see `rematerialise.run_block`.
    """

    rematerialise = False

    def __init__(
        self,
        config: ResNetConfig,
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        features = config.stem[-1]
        if len(config.stem) == 1:
            self.conv1 = Convolution(in_channels, features, 7, stride=2, dtype=dtype, rngs=rngs)
        else:
            self.conv1 = DeepStem(in_channels, config.stem, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(features, dtype=dtype)
        ends = tuple(block_features(width, config) for width in config.widths)
        self.stage_dims = (features, *ends)
        self.strides = tuple(2 ** (stage + 1) for stage in range(len(self.stage_dims)))
        self.feature_dim = ends[-1]
        self.dtype = dtype
        self.config = config
        rates = iter(drop_path_rates(drop_path_rate, sum(config.depths)))
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            blocks = nnx.List()
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(Block(
                    features, width, stride, config, drop_path_rate=next(rates), dtype=dtype,
                    rngs=rngs,
                ))  # fmt: skip
                features = ends[stage]
            setattr(self, f"layer{stage + 1}", blocks)

    def __call__(
        self,
        images: Float[Array, "b height width c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """The maps of stem and stages or those at `indices`; pooled: the mean of the last.

        Raises:
          UserError: a wrong index.
        """
        x = images.astype(self.dtype)
        x = self.conv1(x, train=train) if isinstance(self.conv1, DeepStem) else self.conv1(x)
        x = jax.nn.relu(self.bn1(x, train=train))
        maps = [x]
        x = max_pool(x, 3, 2, 1)
        for stage in range(1, len(self.config.depths) + 1):
            x = run_blocks(
                getattr(self, f"layer{stage}"), x, train=train,
                key=fold_in_name(key, stage), rematerialise=self.rematerialise,
            )  # fmt: skip
            maps.append(x)
        pooled = global_average(x)
        return Features(select_stages(maps, indices), pooled=pooled)


def build(config: ResNetConfig, *, image_size: int, pool: str | None, **options) -> ResNet:
    """The backbone of a configuration for images of any size; `options` as `ResNet` takes them.

    Raises:
      UserError: a choice of pooling, which is fixed here.
    """
    del image_size
    refuse_pool(pool)
    return ResNet(config, **options)


def _resnet(name: str, tag: str, config: ResNetConfig, size: int = 224, **record) -> ModelEntry:
    """A network with the record of its public weights."""
    info = ModelInfo(name, "resnet", size, timm_name=f"{name}.{tag}", **record)
    return ModelEntry(info, functools.partial(build, config))


register(
    _resnet(
        "resnet10t",
        "c3_in1k",
        ResNetConfig((1, 1, 1, 1), stem=(24, 32, 64), averages=True),
        176,
        crop=0.875,
    ),
    _resnet("resnet18", "a1_in1k", ResNetConfig((2, 2, 2, 2)), crop=0.95),
    _resnet("resnet34", "a1_in1k", ResNetConfig((3, 4, 6, 3)), crop=0.95),
    _resnet("resnet50", "a1_in1k", ResNetConfig((3, 4, 6, 3), bottleneck=True), crop=0.95),
    _resnet("resnet101", "a1h_in1k", ResNetConfig((3, 4, 23, 3), bottleneck=True), crop=0.95),
    _resnet(
        "resnet50d",
        "ra2_in1k",
        ResNetConfig((3, 4, 6, 3), bottleneck=True, stem=(32, 32, 64), averages=True),
        crop=0.875,
    ),
)
