"""ResNet, EfficientNetV2 and Xception as KerasHub has them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from plankton_jax.errors import UserError
from plankton_jax.keras._layout import Layout, Weights, batch_norm, not_there
from plankton_jax.models.efficientnet import EfficientNet
from plankton_jax.models.resnet import ResNet
from plankton_jax.models.xception import Xception

_XCEPTION_EPSILON = 1e-5 - 1e-3
"""Of our batch norm less KerasHub's, which cannot be chosen there."""


def resnet(backbone: ResNet, weights: Weights, image_size: int) -> Layout:
    """`ResNetBackbone`."""
    del image_size
    config = backbone.config
    if config.averages and not config.bottleneck:
        raise not_there("a ResNet with averaging shortcuts and without bottlenecks")
    single = len(config.stem) == 1
    settings = {
        "input_conv_filters": list(config.stem),
        "input_conv_kernel_sizes": [7] if single else [3] * len(config.stem),
        "stackwise_num_filters": list(config.widths),
        "stackwise_num_blocks": list(config.depths),
        "stackwise_num_strides": [1, *(2 for _ in config.depths[1:])],
        "block_type": f"{'bottleneck' if config.bottleneck else 'basic'}_block"
        + "_vd" * config.averages,
    }
    stem = weights["conv1/kernel" if single else "conv1/conv1/kernel"]
    return Layout("ResNetBackbone", settings, stem.shape[2], _resnet_pairs(backbone, weights))


def _resnet_pairs(backbone: ResNet, weights: Weights) -> Iterator[tuple[str, Any]]:
    config = backbone.config
    last = len(config.stem)
    for number in range(1, last + 1):
        ours = "conv1" if last == 1 else f"conv1/conv{number}"
        yield f"conv{number}_conv/kernel", weights[f"{ours}/kernel"]
        ours = "bn1" if number == last else f"conv1/bn{number}"
        yield from batch_norm(f"conv{number}_bn", weights, ours)
    projection = 1 if config.averages else 0
    for stage, depth in enumerate(config.depths):
        for number in range(depth):
            theirs, ours = f"stack{stage}_block{number}", f"layer{stage + 1}/{number}"
            for part in range(1, 4 if config.bottleneck else 3):
                yield f"{theirs}_{part}_conv/kernel", weights[f"{ours}/conv{part}/kernel"]
                yield from batch_norm(f"{theirs}_{part}_bn", weights, f"{ours}/bn{part}")
            ours = f"{ours}/downsample/layers"
            if f"{ours}/{projection}/kernel" in weights:
                yield f"{theirs}_0_conv/kernel", weights[f"{ours}/{projection}/kernel"]
                yield from batch_norm(f"{theirs}_0_bn", weights, f"{ours}/{projection + 1}")


def efficientnet(backbone: EfficientNet, weights: Weights, image_size: int) -> Layout:
    """`EfficientNetBackbone`."""
    config = backbone.config
    stages = config.stages
    # KerasHub's inverted blocks pad as TensorFlow does, its other layers as PyTorch.
    inverted = [False, *(stage.kind == "inverted" for stage in stages if stage.stride == 2)]
    differ = [kind != (config.padding == "same") for kind in inverted]
    _check_maps(image_size, lambda size: size, differ)
    kinds = {"plain": "cba", "fused": "fused", "inverted": "unfused"}
    settings = {
        "stackwise_kernel_sizes": [3] * len(stages),
        "stackwise_num_repeats": [stage.depth for stage in stages],
        "stackwise_input_filters": [config.stem, *(stage.width for stage in stages[:-1])],
        "stackwise_output_filters": [stage.width for stage in stages],
        "stackwise_expansion_ratios": [stage.expansion for stage in stages],
        "stackwise_strides": [stage.stride for stage in stages],
        "stackwise_squeeze_and_excite_ratios": [
            0.25 if stage.kind == "inverted" else 0.0 for stage in stages
        ],
        "stackwise_block_types": [kinds[stage.kind] for stage in stages],
        "stackwise_width_coefficients": [1.0] * len(stages),
        "stackwise_depth_coefficients": [1.0] * len(stages),
        "num_features": config.features,
        "batch_norm_epsilon": config.epsilon,
        "dropout": 0.0,
    }
    channels = weights["conv_stem/kernel"].shape[2]
    pairs = _efficientnet_pairs(backbone, weights)
    return Layout("EfficientNetBackbone", settings, channels, pairs, shape_argument="input_shape")


_EFFICIENTNET_PARTS = {
    "plain": {"conv": "conv", "bn": "bn1"},
    "fused": {"expand_conv": "conv_exp", "expand_bn": "bn1", "project_conv": "conv_pwl",
              "project_bn": "bn2"},
    "inverted": {"expand_conv": "conv_pw", "expand_bn": "bn1", "dwconv2": "conv_dw", "bn": "bn2",
                 "se_reduce": "se/conv_reduce", "se_expand": "se/conv_expand",
                 "project_conv": "conv_pwl", "project_bn": "bn3"},
}  # fmt: skip


def _efficientnet_pairs(backbone: EfficientNet, weights: Weights) -> Iterator[tuple[str, Any]]:
    yield from _part("stem_conv", weights, "conv_stem")
    yield from _part("stem_bn", weights, "bn1")
    for stage, blocks in enumerate(backbone.config.stages):
        for number in range(blocks.depth):
            name = f"block{stage + 1}{chr(ord('a') + number)}_"
            for theirs, ours in _EFFICIENTNET_PARTS[blocks.kind].items():
                path = f"blocks/{stage}/{number}/{ours}"
                yield from _part(f"{name}/{name}{theirs}", weights, path)
    yield from _part("top_conv", weights, "conv_head")
    yield from _part("top_bn", weights, "bn2")


def _part(theirs: str, weights: Weights, ours: str) -> Iterator[tuple[str, Any]]:
    """A convolution, with an offset or not, or a batch norm."""
    if f"{ours}/mean" in weights:
        yield from batch_norm(theirs, weights, ours)
        return
    yield f"{theirs}/kernel", weights[f"{ours}/kernel"]
    if f"{ours}/bias" in weights:
        yield f"{theirs}/bias", weights[f"{ours}/bias"]


def xception(backbone: Xception, weights: Weights, image_size: int) -> Layout:
    """`XceptionBackbone`. For inference: its epsilon goes into the variances."""
    _check_maps(image_size, lambda size: (size - 3) // 2 - 1, [True] * 4)
    blocks = [*backbone.entry, *backbone.middle, backbone.exit]
    units = [[unit.norm.scale.shape[0] for unit in block.units] for block in blocks]
    last = [unit.norm.scale.shape[0] for unit in backbone.last]
    settings = {
        "stackwise_conv_filters": [[32, 64], *units, last],
        "stackwise_pooling": [False, *(block.halves for block in blocks), False],
        "data_format": "channels_last",
    }
    channels = weights["stem/0/conv/kernel"].shape[2]
    return Layout("XceptionBackbone", settings, channels, _xception_pairs(backbone, weights))


def _xception_pairs(backbone: Xception, weights: Weights) -> Iterator[tuple[str, Any]]:
    for number in range(2):
        theirs, ours = f"block1_conv{number + 1}", f"stem/{number}"
        yield f"{theirs}/kernel", weights[f"{ours}/conv/kernel"]
        yield from batch_norm(f"{theirs}_bn", weights, f"{ours}/bn", _XCEPTION_EPSILON)
    paths = [(f"{part}/{number}", block)
             for part in ("entry", "middle")
             for number, block in enumerate(getattr(backbone, part))]  # fmt: skip
    for position, (path, block) in enumerate([*paths, ("exit", backbone.exit)], start=2):
        yield from _units(f"block{position}", weights, f"{path}/units", len(block.units))
        if block.skip is not None:
            theirs = f"block{position}_residual"
            yield f"{theirs}_conv/kernel", weights[f"{path}/skip/conv/kernel"]
            yield from batch_norm(f"{theirs}_bn", weights, f"{path}/skip/bn", _XCEPTION_EPSILON)
    yield from _units(f"block{len(paths) + 3}", weights, "last", len(backbone.last))


def _units(theirs: str, weights: Weights, ours: str, count: int) -> Iterator[tuple[str, Any]]:
    for number in range(count):
        name, path = f"{theirs}_sepconv{number + 1}", f"{ours}/{number}"
        yield f"{name}/depthwise_kernel", weights[f"{path}/depthwise/kernel"]
        yield f"{name}/pointwise_kernel", weights[f"{path}/pointwise/kernel"]
        yield from batch_norm(f"{name}_bn", weights, f"{path}/norm", _XCEPTION_EPSILON)


def _check_maps(image_size: int, stem: Callable[[int], int], differ: Sequence[bool]) -> None:
    """Refuses a size at which a map of even side is halved where the paddings differ.

    Args:
      stem: the side of the first map that is halved, for a size of the images.
      differ: for each halving whether the paddings of a map of even side differ.
    """

    def fits(size: int) -> bool:
        side = stem(size)
        for differs in differ:
            if differs and side % 2 == 0:
                return False
            side = (side + 1) // 2
        return True

    if fits(image_size):
        return
    ways = range(image_size, 0, -1), itertools.count(image_size)
    near = [str(size) for way in ways if (size := next(filter(fits, way), None))]
    raise UserError(
        f"as_keras_hub: found image_size {image_size}; where KerasHub pads maps of even side "
        "otherwise than this network, one is halved; allowed: a size at which none is, as "
        f"{' or '.join(near)}."
    )
