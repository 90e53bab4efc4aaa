"""Vision transformers and Swin as KerasHub has them."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from plankton_jax.keras._layout import Layout, Weights, layer, norm, not_there
from plankton_jax.models.swin import SwinTransformer
from plankton_jax.models.vit import VisionTransformer


def vit(backbone: VisionTransformer, weights: Weights, image_size: int) -> Layout:
    """`ViTBackbone`, or `DeiTBackbone` for distilled ones."""
    del image_size
    class_name, settings = _vit_settings(backbone)
    channels = weights["patch_embed/kernel"].shape[2]
    return Layout(class_name, settings, channels, _vit_pairs(backbone, weights))


def swin(backbone: SwinTransformer, weights: Weights, image_size: int) -> Layout:
    """`SwinTransformerBackbone`."""
    del image_size
    channels = weights["patch_embed/proj/kernel"].shape[2]
    pairs = _swin_pairs(backbone, weights)
    return Layout("SwinTransformerBackbone", _swin_settings(backbone), channels, pairs)


def _vit_settings(backbone: VisionTransformer) -> tuple[str, dict[str, Any]]:
    config = backbone.config
    if config.layer_scale is not None or not config.embed_prefix or config.pool != "token":
        raise not_there("a vision transformer of another kind")
    hidden = int(config.width * config.mlp_ratio)
    settings = {
        "patch_size": config.patch_size,
        "num_layers": config.depth,
        "num_heads": config.heads,
        "hidden_dim": config.width,
        "layer_norm_epsilon": 1e-6,
    }
    if config.distilled:
        return "DeiTBackbone", settings | {"intermediate_dim": hidden}
    return "ViTBackbone", settings | {"mlp_dim": hidden}


def _vit_pairs(backbone: VisionTransformer, weights: Weights) -> Iterator[tuple[str, Any]]:
    """(path in KerasHub, value) of every variable."""
    prefix = "deit" if backbone.distilled else "vit"
    embedding = f"{prefix}_patching_and_embedding"
    yield f"{embedding}/class_token", weights["cls_token"]
    position = "position_embedding" if backbone.distilled else "position_embedding/embeddings"
    yield f"{embedding}/{position}", weights["pos_embed"]
    yield from layer(f"{embedding}/patch_embedding", weights, "patch_embed")
    if backbone.distilled:
        yield f"{embedding}/distillation_token", weights["dist_token"]
    first, second = ("mlp/dense", "output_layer/output") if backbone.distilled else (
        "mlp/dense_1", "mlp/dense_2")  # fmt: skip
    for number in range(len(backbone.blocks)):
        theirs, ours = f"{prefix}_encoder/transformer_block_{number + 1}", f"blocks/{number}"
        yield from norm(f"{theirs}/ln_1", weights, f"{ours}/norm1")
        for part, name in enumerate(("query", "key", "value")):
            for kind in ("kernel", "bias"):
                joint = weights[f"{ours}/attn/qkv/{kind}"]
                yield f"{theirs}/mha/{name}/{kind}", jnp.split(joint, 3, axis=-1)[part]
        yield from layer(f"{theirs}/mha/attention_output", weights, f"{ours}/attn/proj")
        yield from norm(f"{theirs}/ln_2", weights, f"{ours}/norm2")
        yield from layer(f"{theirs}/{first}", weights, f"{ours}/mlp/fc1")
        yield from layer(f"{theirs}/{second}", weights, f"{ours}/mlp/fc2")
    yield from norm(f"{prefix}_encoder/ln", weights, "norm")


def _swin_settings(backbone: SwinTransformer) -> dict[str, Any]:
    stages = list(backbone.layers)
    window = stages[0].window
    if any(stage.window != window or stage.side % window for stage in stages):
        raise not_there("Swin with windows of several sizes, or that do not fill the map")
    return {
        "embed_dim": backbone.stage_dims[0],
        "depths": tuple(len(stage.blocks) for stage in stages),
        "num_heads": tuple(stage.blocks[0].attn.heads for stage in stages),
        "window_size": window,
    }


def _swin_pairs(backbone: SwinTransformer, weights: Weights) -> Iterator[tuple[str, Any]]:
    """(path in KerasHub, value) of every variable."""
    yield from layer("patch_embedding/conv_projection", weights, "patch_embed/proj")
    yield from norm("patch_embedding/norm", weights, "patch_embed/norm")
    for stage, block in enumerate(backbone.layers):
        if stage:  # there, the merging ends the stage before
            ours, theirs = f"layers/{stage}/downsample", f"stage_{stage - 1}/downsample"
            yield f"{theirs}/reduction/kernel", weights[f"{ours}/reduction/kernel"]
            yield from norm(f"{theirs}/norm", weights, f"{ours}/norm")
        for number in range(len(block.blocks)):
            ours, theirs = f"layers/{stage}/blocks/{number}", f"stage_{stage}/blocks_{number}"
            yield from norm(f"{theirs}/norm1", weights, f"{ours}/norm1")
            table = "attn/relative_position_bias_table"
            yield f"{theirs}/{table}", weights[f"{ours}/{table}"]
            yield from layer(f"{theirs}/attn/attention_qkv", weights, f"{ours}/attn/qkv")
            yield from layer(f"{theirs}/attn/attention_projection", weights, f"{ours}/attn/proj")
            yield from norm(f"{theirs}/norm2", weights, f"{ours}/norm2")
            for part in ("fc1", "fc2"):
                yield from layer(f"{theirs}/mlp/{part}", weights, f"{ours}/mlp/{part}")
    yield from norm("norm", weights, "norm")
