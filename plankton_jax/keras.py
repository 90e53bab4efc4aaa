"""Networks of this package in Keras: as a Keras model, and as weights of KerasHub's backbones.

    from plankton_jax.keras import as_keras
    model = as_keras(classifier)            # predict, fit, evaluate
    model.save("network.keras")             # keras.saving.load_model("network.keras"), after
                                            # `import plankton_jax.keras`

Importing this imports Keras, which must run on JAX (`KERAS_BACKEND=jax`); KerasHub is imported only
by `as_keras_hub`.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from plankton_jax import models
from plankton_jax.errors import UserError
from plankton_jax.models._keras_hub import by_itself, import_keras
from plankton_jax.models.swin import SwinTransformer
from plankton_jax.models.vit import VisionTransformer

keras = import_keras()


@keras.saving.register_keras_serializable("plankton_jax")
class PlanktonLayer(keras.layers.JaxLayer):
    """A classifier of this package as one Keras layer: images `b h w c` to logits `b k`.

    Parameters are trainable weights; batch-norm statistics are not, and move when training.
    """

    def __init__(
        self,
        recipe: Mapping[str, Any],
        params: Any = None,
        state: Any = None,
        **options: Any,
    ):
        """`recipe` holds `create_model`'s arguments; without `params`, weights are loaded later."""
        make = functools.partial(models.create_model, **recipe, key=jax.random.key(0))
        graphdef, *shapes = models.split_model(nnx.eval_shape(make))
        if params is None:
            params, state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def call(params, state, rng, inputs, training):
            key = None if rng is None else jax.random.wrap_key_data(rng)
            (logits,), state = models.apply(
                graphdef, params, state, inputs, train=bool(training), key=key
            )
            return logits, state

        super().__init__(call, params=params, state=state, **options)
        self.recipe = dict(recipe)

    def get_config(self) -> dict[str, Any]:
        """What makes the layer again, without its weights."""
        config = keras.layers.Layer.get_config(self)
        return config | {"recipe": dict(self.recipe)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PlanktonLayer":
        """The layer, its weights to be loaded."""
        return cls(**config)


def as_keras(model: models.Classifier) -> Any:
    """A Keras model with copies of a classifier's weights, whose `predict` gives its logits.

    It can be trained, saved and loaded as any Keras model.

    Raises:
      UserError: a network that names do not make again, as one with a backbone that is a function,
        or one that takes measurements.
    """
    recipe = dict(model.recipe or {})
    if not recipe or recipe["num_measurements"] or recipe["name"].startswith("keras_hub:"):
        raise UserError(
            "as_keras: found a network with a function for a backbone or a head, with "
            "measurements, or from KerasHub; allowed: one that create_model makes of a name in "
            "list_models(), with a linear head."
        )
    _, params, state = models.split_model(model)
    shape = (recipe["image_size"], recipe["image_size"], recipe["in_channels"])
    inputs = keras.Input(shape)
    layer = PlanktonLayer(recipe, params, state, name="classifier")
    return keras.Model(inputs, layer(inputs), name=recipe["name"])


def as_keras_hub(model: models.Classifier) -> Any:
    """KerasHub's backbone of the same architecture, with copies of a classifier's weights.

    For vision transformers (`ViTBackbone`, `DeiTBackbone` where they are distilled), whose tokens
    are those of `Features`, and for Swin with one window in all stages.

    Raises:
      UserError: an architecture that KerasHub does not have.
    """
    backbone = model.backbone
    params = models.flatten_paths(models.split_model(model)[1]["backbone"])
    if isinstance(backbone, VisionTransformer):
        class_name, settings = _vit_settings(backbone)
        pairs = _vit_pairs(backbone, params)
    elif isinstance(backbone, SwinTransformer):
        class_name, settings = "SwinTransformerBackbone", _swin_settings(backbone)
        pairs = _swin_pairs(backbone, params)
    else:
        raise _not_there(f"a {type(backbone).__name__}")
    import keras_hub

    channels = params["patch_embed/kernel" if "patch_embed/kernel" in params
                      else "patch_embed/proj/kernel"].shape[2]  # fmt: skip
    shape = (backbone.image_size, backbone.image_size, channels)
    make = functools.partial(getattr(keras_hub.models, class_name), image_shape=shape, **settings)
    network = by_itself(make, seed=0, policy="float32")
    values = dict(pairs)
    wanted = {variable.path: variable for variable in network.trainable_variables}
    if values.keys() != wanted.keys():
        raise ValueError(f"variables of KerasHub: {sorted(values.keys() ^ wanted.keys())}")
    for path, variable in wanted.items():
        variable.assign(np.asarray(values[path]).reshape(variable.shape))
    return network


def _not_there(what: str) -> UserError:
    return UserError(
        f"as_keras_hub: found {what}; allowed: vision transformers with a class token, without "
        "layer scale, and Swin with whole windows of one size in all stages."
    )


def _vit_settings(backbone: VisionTransformer) -> tuple[str, dict[str, Any]]:
    config = backbone.config
    if config.layer_scale is not None or not config.embed_prefix or config.pool != "token":
        raise _not_there("a vision transformer of another kind")
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


def _vit_pairs(backbone: VisionTransformer, params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path in KerasHub, value) of every variable."""
    prefix = "deit" if backbone.distilled else "vit"
    embedding = f"{prefix}_patching_and_embedding"
    yield f"{embedding}/class_token", params["cls_token"]
    position = "position_embedding" if backbone.distilled else "position_embedding/embeddings"
    yield f"{embedding}/{position}", params["pos_embed"]
    yield from _layer(f"{embedding}/patch_embedding", params, "patch_embed")
    if backbone.distilled:
        yield f"{embedding}/distillation_token", params["dist_token"]
    first, second = ("mlp/dense", "output_layer/output") if backbone.distilled else (
        "mlp/dense_1", "mlp/dense_2")  # fmt: skip
    for number in range(len(backbone.blocks)):
        theirs, ours = f"{prefix}_encoder/transformer_block_{number + 1}", f"blocks/{number}"
        yield from _norm(f"{theirs}/ln_1", params, f"{ours}/norm1")
        for part, name in enumerate(("query", "key", "value")):
            for kind in ("kernel", "bias"):
                joint = params[f"{ours}/attn/qkv/{kind}"]
                yield f"{theirs}/mha/{name}/{kind}", jnp.split(joint, 3, axis=-1)[part]
        yield from _layer(f"{theirs}/mha/attention_output", params, f"{ours}/attn/proj")
        yield from _norm(f"{theirs}/ln_2", params, f"{ours}/norm2")
        yield from _layer(f"{theirs}/{first}", params, f"{ours}/mlp/fc1")
        yield from _layer(f"{theirs}/{second}", params, f"{ours}/mlp/fc2")
    yield from _norm(f"{prefix}_encoder/ln", params, "norm")


def _swin_settings(backbone: SwinTransformer) -> dict[str, Any]:
    stages = list(backbone.layers)
    window = stages[0].window
    if any(stage.window != window or stage.side % window for stage in stages):
        raise _not_there("Swin with windows of several sizes, or that do not fill the map")
    return {
        "embed_dim": backbone.stage_dims[0],
        "depths": tuple(len(stage.blocks) for stage in stages),
        "num_heads": tuple(stage.blocks[0].attn.heads for stage in stages),
        "window_size": window,
    }


def _swin_pairs(backbone: SwinTransformer, params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path in KerasHub, value) of every variable."""
    yield from _layer("patch_embedding/conv_projection", params, "patch_embed/proj")
    yield from _norm("patch_embedding/norm", params, "patch_embed/norm")
    for stage, layer in enumerate(backbone.layers):
        if stage:  # there, the merging ends the stage before
            ours, theirs = f"layers/{stage}/downsample", f"stage_{stage - 1}/downsample"
            yield f"{theirs}/reduction/kernel", params[f"{ours}/reduction/kernel"]
            yield from _norm(f"{theirs}/norm", params, f"{ours}/norm")
        for number in range(len(layer.blocks)):
            ours, theirs = f"layers/{stage}/blocks/{number}", f"stage_{stage}/blocks_{number}"
            yield from _norm(f"{theirs}/norm1", params, f"{ours}/norm1")
            table = "attn/relative_position_bias_table"
            yield f"{theirs}/{table}", params[f"{ours}/{table}"]
            yield from _layer(f"{theirs}/attn/attention_qkv", params, f"{ours}/attn/qkv")
            yield from _layer(f"{theirs}/attn/attention_projection", params, f"{ours}/attn/proj")
            yield from _norm(f"{theirs}/norm2", params, f"{ours}/norm2")
            for part in ("fc1", "fc2"):
                yield from _layer(f"{theirs}/mlp/{part}", params, f"{ours}/mlp/{part}")
    yield from _norm("norm", params, "norm")


def _layer(theirs: str, params: Mapping[str, Any], ours: str) -> Iterator[tuple[str, Any]]:
    for kind in ("kernel", "bias"):
        yield f"{theirs}/{kind}", params[f"{ours}/{kind}"]


def _norm(theirs: str, params: Mapping[str, Any], ours: str) -> Iterator[tuple[str, Any]]:
    for kind, name in (("gamma", "scale"), ("beta", "bias")):
        yield f"{theirs}/{kind}", params[f"{ours}/{name}"]
