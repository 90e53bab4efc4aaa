"""Networks of this package in Keras: as a Keras model, and as weights of KerasHub's backbones.

    from plankton_jax.keras import as_keras
    model = as_keras(classifier)            # predict, fit, evaluate; or as_keras(load_model(path))
    model.save("network.keras")             # keras.saving.load_model("network.keras"), after
                                            # `import plankton_jax.keras`

Importing this imports Keras, which must run on JAX (`KERAS_BACKEND=jax`); KerasHub is imported only
by `as_keras_hub`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from plankton_jax import models
from plankton_jax.errors import UserError
from plankton_jax.keras._convolutional import efficientnet, resnet, xception
from plankton_jax.keras._layout import Layout, Weights, not_there
from plankton_jax.keras._transformers import swin, vit
from plankton_jax.models._keras_hub import by_itself, import_keras
from plankton_jax.models.efficientnet import EfficientNet
from plankton_jax.models.resnet import ResNet
from plankton_jax.models.swin import SwinTransformer
from plankton_jax.models.vit import VisionTransformer
from plankton_jax.models.xception import Xception
from plankton_jax.weights import LoadedModel

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


def as_keras(model: models.Classifier | LoadedModel) -> Any:
    """A Keras model with copies of a classifier's weights, whose `predict` gives its logits.

    It can be trained, saved and loaded as any Keras model.

    Raises:
      UserError: a network that names do not make again, as one with a backbone that is a function,
        or one that takes measurements; a file of weights without a head.
    """
    if isinstance(model, LoadedModel) and not model.info.num_classes:
        raise UserError(
            f"as_keras: found weights of {model.info.model} without a head; allowed: those with "
            "one, as it gives logits. Convert a source that has a head, or take as_keras_hub."
        )
    model = _classifier(model)
    recipe = dict(model.recipe or {})
    if not recipe or recipe["num_measurements"] or recipe["name"].startswith("keras_hub:"):
        raise UserError(
            "as_keras: found a network with a function for a backbone or a head, with "
            "measurements, or from KerasHub; allowed: one that create_model makes of a name in "
            "list_models(), with a linear head."
        )
    # Keras gives the arrays of its variables away when it trains.
    params, state = jax.tree.map(jnp.copy, models.split_model(model)[1:])
    shape = (recipe["image_size"], recipe["image_size"], recipe["in_channels"])
    inputs = keras.Input(shape)
    layer = PlanktonLayer(recipe, params, state, name="classifier")
    return keras.Model(inputs, layer(inputs), name=recipe["name"])


def _classifier(model: models.Classifier | LoadedModel) -> models.Classifier:
    return model.classifier if isinstance(model, LoadedModel) else model


_LAYOUTS: dict[type, Callable[[Any, Weights, int], Layout]] = {
    VisionTransformer: vit,
    SwinTransformer: swin,
    ResNet: resnet,
    EfficientNet: efficientnet,
    Xception: xception,
}


def as_keras_hub(model: models.Classifier | LoadedModel, image_size: int | None = None) -> Any:
    """KerasHub's backbone of the same architecture, with copies of a classifier's weights.

    Its output is the tokens of `Features` for vision transformers (`ViTBackbone`, `DeiTBackbone`
    where they are distilled, `DINOV2Backbone`) and for Swin with one window in all stages, and the
    map that is pooled for ResNet, EfficientNetV2 and the legacy Xception. The latter two are padded
    otherwise in KerasHub where an even map is halved, and are refused at sizes at which that
    happens.

    Args:
      model: the classifier, or what `load_model` gives of a file with or without a head.
      image_size: side of the input in pixels, for networks that take any; None: the one that
        `create_model` was given.

    Raises:
      UserError: an architecture that KerasHub does not have, or not for this size.
    """
    model = _classifier(model)
    backbone = model.backbone
    find = _LAYOUTS.get(type(backbone))
    if find is None:
        raise not_there(f"a {type(backbone).__name__}")
    size = getattr(backbone, "image_size", None) or image_size
    size = size or dict(model.recipe or {}).get("image_size")
    if size is None:
        raise UserError("as_keras_hub: a network of any size needs image_size, in pixels.")
    _, params, state = models.split_model(model)
    weights = models.flatten_paths(params["backbone"])
    weights |= models.flatten_paths(state.get("backbone", {}))
    layout = find(backbone, weights, size)
    import keras_hub

    sizes = {layout.shape_argument: (size, size, layout.in_channels)}
    make = functools.partial(
        getattr(keras_hub.models, layout.class_name), **layout.settings, **sizes
    )
    network = by_itself(make, seed=0, policy="float32")
    values = dict(layout.pairs)
    wanted = {variable.path: variable for variable in network.weights}
    if values.keys() != wanted.keys():
        raise ValueError(f"variables of KerasHub: {sorted(values.keys() ^ wanted.keys())}")
    for path, variable in wanted.items():
        variable.assign(np.array(values[path]).reshape(variable.shape))
    return network
