"""KerasHub's image backbones, run inside the functional step. Imported only when one is named.

Names are `keras_hub:` and
- a preset of KerasHub (`vit_base_patch16_224_imagenet`, `hf://user/model`), which it fetches, or
  the folder of one, with its weights;
- the path of a json file `{"class_name": "ViTBackbone", "config": {...}}`, as a preset's folder
  has, or `ViTBackbone{"patch_size": 8, ...}`, the arguments of a class of `keras_hub.models`, with
  random weights. The image's size and channels, and the precision, are filled in.
"""

import concurrent.futures
import dataclasses
import functools
import inspect
import json
import os
import pathlib
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from plankton_jax.config import KERAS_HUB
from plankton_jax.errors import UserError, near_miss
from plankton_jax.models._keras_backbone import KerasBackbone
from plankton_jax.models._registry import HALF, ModelEntry, ModelInfo

_DEFAULT_SIZE = 224
_SETTING = "config.model.name"


@dataclasses.dataclass(frozen=True)
class _Source:
    """What a name stands for: a preset, or a class with its arguments.

    Attributes:
      text: as users write it, for messages.
      class_name, settings: empty for a preset, whose name or folder is `text`.
    """

    text: str
    class_name: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


def entry(name: str) -> ModelEntry:
    """The backbone that a name beginning with `keras_hub:` stands for.

    Raises:
      UserError: no such preset, file, class or argument; Keras runs on another library than JAX.
    """
    source = _parse(name.removeprefix(KERAS_HUB))
    if source.class_name:
        shape = _image_shape(source.settings)
        mean, std = HALF, HALF
    else:
        shape, mean, std = _preset(source.text)
    size = shape[0] or _DEFAULT_SIZE
    info = ModelInfo(name, "keras_hub", size, mean=mean, std=std, crop=1.0)
    return ModelEntry(info, functools.partial(_build, source))


def _parse(text: str) -> _Source:
    """Reads the part of a name behind the prefix.

    Raises:
      UserError: json that cannot be read, or that holds something else.
    """
    class_name, brace, rest = text.partition("{")
    if brace:
        return _Source(text, class_name.strip(), _read_json(text, brace + rest))
    if not text.endswith(".json"):
        return _Source(text)
    try:
        content = pathlib.Path(text).read_text()
    except OSError as error:
        raise UserError(f"{_SETTING}: {text} cannot be read ({error.strerror}).") from error
    values = _read_json(text, content)
    class_name, settings = values.get("class_name"), values.get("config")
    if not isinstance(class_name, str) or not isinstance(settings, dict):
        raise UserError(
            f'{_SETTING}: {text} holds {sorted(values)}; allowed: an object with "class_name" and '
            '"config", as the config.json of a preset of KerasHub.'
        )
    return _Source(text, class_name, settings)


def _read_json(text: str, content: str) -> dict[str, Any]:
    """A json object."""
    try:
        values = json.loads(content)
    except ValueError as error:
        raise UserError(f"{_SETTING}: {KERAS_HUB}{text} is not valid json ({error}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{_SETTING}: {KERAS_HUB}{text} holds no json object; allowed: one.")
    return values


def _image_shape(settings: dict[str, Any]) -> tuple[int | None, ...]:
    """Height, width and channels that a configuration asks for; None: any."""
    return tuple(settings.get("image_shape") or settings.get("input_shape") or (None,) * 3)


def import_keras() -> Any:
    """The module keras, running on JAX.

    Raises:
      UserError: Keras was imported before and runs on another library.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "jax"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
    if keras.config.backend() != "jax":
        raise UserError(
            f'{_SETTING}: Keras is loaded and runs on "{keras.config.backend()}"; allowed: "jax". '
            "Set the environment variable KERAS_BACKEND=jax before it is imported."
        )
    return keras


@functools.cache
def _keras() -> tuple[Any, Any]:
    """The modules keras and keras_hub."""
    keras = import_keras()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras_hub
    return keras, keras_hub


def by_itself(make: Callable[[], Any], seed: int, policy: str) -> Any:
    """What `make` returns in a thread of its own, where Keras begins anew.

    Keras numbers layers and keeps its precision for each thread, so that names do not depend on
    what was built before; it draws seeds from Python's generator and counts on usual promotion.
    """

    def run() -> Any:
        keras, _ = _keras()
        keras.config.set_dtype_policy(policy)
        with (
            warnings.catch_warnings(),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        ):
            warnings.simplefilter("ignore")
            return make()

    before = random.getstate()
    random.seed(seed)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(run).result()
    finally:
        random.setstate(before)


def _load_preset(source: _Source, **options: Any) -> Any:
    """KerasHub's backbone of a preset.

    Raises:
      UserError: it is not to be had.
    """
    models = _keras()[1].models
    try:
        return models.Backbone.from_preset(source.text, **options)
    except Exception as error:
        # What it raises depends on where it looks: ValueError, OSError, those of download clients.
        known = near_miss(source.text, models.Backbone.presets)
        raise UserError(
            f'{_SETTING}: KerasHub cannot load the preset "{source.text}" ({_first_line(error)}). '
            f"{known} Without a connection: {KERAS_HUB}FOLDER of a preset, or "
            f"{KERAS_HUB}ViTBackbone{{...}} with random weights."
        ) from error


@functools.cache
def _preset(text: str) -> tuple[tuple[int | None, ...], Any, Any]:
    """Image shape, mean and standard deviation of a preset; those are three numbers each."""
    network = by_itself(
        lambda: _load_preset(_Source(text), load_weights=False), seed=0, policy="float32"
    )
    mean, std = HALF, HALF
    try:
        converter = by_itself(
            lambda: _keras()[1].layers.ImageConverter.from_preset(text), seed=0, policy="float32"
        )
    except Exception:  # presets need not come with one
        return _image_shape(network.get_config()), mean, std
    # It computes `scale * x + offset` from x in 0..255.
    if converter.scale is not None:
        scale, offset = (_three(value) for value in (converter.scale, converter.offset or 0.0))
        std = tuple(1.0 / (255.0 * each) for each in scale)
        mean = tuple(-shift * deviation for shift, deviation in zip(offset, std, strict=True))
    return _image_shape(network.get_config()), mean, std


def _three(value: Any) -> tuple[float, ...]:
    """A number for each of red, green and blue."""
    return tuple(map(float, value)) if isinstance(value, (list, tuple)) else (float(value),) * 3


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _build(
    source: _Source,
    *,
    image_size: int,
    in_channels: int,
    drop_path_rate: float,
    dtype: DTypeLike,
    pool: str | None,
    rngs: nnx.Rngs,
) -> KerasBackbone:
    """The registry's signature.

    Raises:
      UserError: what the backbone cannot take.
    """
    if drop_path_rate:
        raise UserError(
            f"config.model.drop_path_rate: found {drop_path_rate}; a backbone of KerasHub has its "
            "rates in its own configuration; allowed: 0."
        )
    shape = (image_size, image_size, in_channels)
    policy = "float32" if jnp.dtype(dtype) == jnp.float32 else f"mixed_{jnp.dtype(dtype).name}"
    make = _from_class if source.class_name else _from_preset
    seed = int(jax.random.randint(rngs.params(), (), 0, 2**31 - 1))
    network, stages = by_itself(lambda: make(source, shape, policy), seed, policy)
    return KerasBackbone(network, stages, pool)


def _from_preset(source: _Source, shape: tuple[int, ...], policy: str) -> tuple[Any, Any]:
    _check_shape(source, _preset(source.text)[0], shape)
    return _with_stages(source, _load_preset(source, dtype=policy), shape)


def _from_class(source: _Source, shape: tuple[int, ...], policy: str) -> tuple[Any, Any]:
    _, keras_hub = _keras()
    found = getattr(keras_hub.models, source.class_name, None)
    base = keras_hub.models.Backbone
    if not (inspect.isclass(found) and issubclass(found, base)):
        names = [name for name in dir(keras_hub.models) if name.endswith("Backbone")]
        raise UserError(
            f'{_SETTING}: keras_hub.models has no backbone "{source.class_name}". '
            f"{near_miss(source.class_name, names)}"
        )
    settings = {name: value for name, value in source.settings.items() if name != "dtype"}
    _check_shape(source, _image_shape(settings), shape)
    names = inspect.signature(found.__init__).parameters
    settings["input_shape" if "input_shape" in names else "image_shape"] = shape
    if "data_format" in names:
        settings["data_format"] = "channels_last"
    try:
        network = found(**settings)
    except Exception as error:
        raise UserError(
            f"{_SETTING}: {KERAS_HUB}{source.text}: {source.class_name} does not take this "
            f"({_first_line(error)}). Arguments: {', '.join(list(names)[1:])}."
        ) from error
    return _with_stages(source, network, shape)


def _check_shape(source: _Source, wanted: tuple[int | None, ...], shape: tuple[int, ...]) -> None:
    """Refuses images of another shape than a configuration or a preset asks for."""
    for setting, position in (("data.image_size", 0), ("model.in_channels", 2)):
        if wanted[position] not in (None, shape[position]):
            raise UserError(
                f"config.{setting}: found {shape[position]}; {KERAS_HUB}{source.text} is made for "
                f"{wanted[position]}; allowed: that."
            )


def _with_stages(source: _Source, network: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The network with its feature pyramid as outputs before the last, and their strides."""
    keras, _ = _keras()
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4 or len(network.outputs) != 1:
        raise UserError(
            f"{_SETTING}: {KERAS_HUB}{source.text} is no backbone for images with one output."
        )
    pyramid = getattr(network, "pyramid_outputs", {})
    levels = sorted(pyramid, key=lambda name: int(name[1:]))
    outputs = [pyramid[level] for level in levels]
    strides = tuple(2 ** int(level[1:]) for level in levels)
    if network.inputs[0].shape[1] is None:  # a preset for images of any size
        inputs = keras.Input(shape)
        model = keras.Model(network.inputs, [*outputs, network.output])
        return keras.Model(inputs, model(inputs)), strides
    return keras.Model(network.inputs, [*outputs, network.output]), strides
