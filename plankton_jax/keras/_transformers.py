"""Vision transformers and Swin as KerasHub has them."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from plankton_jax.keras._layout import Layout, Weights, layer, norm, not_there
from plankton_jax.models.swin import SwinTransformer
from plankton_jax.models.vit import VisionTransformer


def vit(backbone: VisionTransformer, weights: Weights, image_size: int) -> Layout:
    """`ViTBackbone`, `DeiTBackbone` for distilled ones, `DINOV2Backbone` with layer scale."""
    class_name, settings = _vit_settings(backbone)
    channels = weights["patch_embed/kernel"].shape[2]
    if class_name == "DINOV2Backbone":
        settings |= {"position_embedding_shape": (image_size, image_size, channels)}
        return Layout(class_name, settings, channels, _dinov2_pairs(backbone, weights))
    return Layout(class_name, settings, channels, _vit_pairs(backbone, weights))


def swin(backbone: SwinTransformer, weights: Weights, image_size: int) -> Layout:
    """`SwinTransformerBackbone`."""
    del image_size
    channels = weights["patch_embed/proj/kernel"].shape[2]
    pairs = _swin_pairs(backbone, weights)
    return Layout("SwinTransformerBackbone", _swin_settings(backbone), channels, pairs)


def _vit_settings(backbone: VisionTransformer) -> tuple[str, dict[str, Any]]:
    config = backbone.config
    scaled = config.layer_scale is not None
    if not config.embed_prefix or config.pool != "token" or (scaled and config.distilled):
        raise not_there("a vision transformer of another kind")
    hidden = int(config.width * config.mlp_ratio)
    settings: dict[str, Any] = {
        "patch_size": config.patch_size,
        "num_layers": config.depth,
        "num_heads": config.heads,
        "hidden_dim": config.width,
    }
    if scaled:
        only = {"intermediate_dim": hidden, "use_mask_token": False}
        return "DINOV2Backbone", settings | only
    settings |= {"layer_norm_epsilon": 1e-6}
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
        yield from _attention(f"{theirs}/mha", weights, ours)
        yield from norm(f"{theirs}/ln_2", weights, f"{ours}/norm2")
        yield from layer(f"{theirs}/{first}", weights, f"{ours}/mlp/fc1")
        yield from layer(f"{theirs}/{second}", weights, f"{ours}/mlp/fc2")
    yield from norm(f"{prefix}_encoder/ln", weights, "norm")


def _attention(theirs: str, weights: Weights, ours: str) -> Iterator[tuple[str, Any]]:
    """Keras's attention, whose queries, keys and values have layers of their own."""
    for part, name in enumerate(("query", "key", "value")):
        for kind in ("kernel", "bias"):
            joint = weights[f"{ours}/attn/qkv/{kind}"]
            yield f"{theirs}/{name}/{kind}", jnp.split(joint, 3, axis=-1)[part]
    yield from layer(f"{theirs}/attention_output", weights, f"{ours}/attn/proj")


def _dinov2_pairs(backbone: VisionTransformer, weights: Weights) -> Iterator[tuple[str, Any]]:
    """(path in KerasHub, value) of every variable."""
    yield "embeddings/cls_token", weights["cls_token"]
    for name in ("position_embeddings", "interpolated_position_embeddings"):
        yield f"embeddings/{name}", weights["pos_embed"]
    yield from layer("embeddings/patch_embeddings/projection", weights, "patch_embed")
    for number in range(len(backbone.blocks)):
        theirs, ours = f"encoder/layers_{number}", f"blocks/{number}"
        yield from _attention(f"{theirs}/attention/attention", weights, ours)
        for part in ("1", "2"):
            yield from norm(f"{theirs}/norm{part}", weights, f"{ours}/norm{part}")
            yield f"{theirs}/layer_scale{part}/lambda1", weights[f"{ours}/ls{part}/gamma"]
            yield from layer(f"{theirs}/mlp/fc{part}", weights, f"{ours}/mlp/fc{part}")
    yield from norm("layernorm", weights, "norm")


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
