"""KerasHub's backbones inside the functional step, against Keras's own calls."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden.weights import random_images

from plankton_jax import optim
from plankton_jax.config import Config
from plankton_jax.errors import UserError
from plankton_jax.losses import cross_entropy
from plankton_jax.models import apply, create_model, flatten_paths, get_info, split_model
from plankton_jax.train_step import TrainState, make_train_step
from plankton_jax.validation import all_problems

pytestmark = [
    pytest.mark.slow,  # importing KerasHub imports TensorFlow
    pytest.mark.filterwarnings("ignore"),
]

VIT = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
DEIT = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
SWIN = {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128],
    "stackwise_num_blocks": [1, 1],
    "stackwise_num_strides": [1, 2],
    "block_type": "basic_block",
}
XCEPTION = {"stackwise_conv_filters": [[8, 16], [16, 32], [64, 64]],
            "stackwise_pooling": [True, True, False]}  # fmt: skip
EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 3],
    "stackwise_num_repeats": [1, 2],
    "stackwise_input_filters": [8, 8],
    "stackwise_output_filters": [8, 16],
    "stackwise_expansion_ratios": [1, 4],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.25],
    "stackwise_strides": [1, 2],
    "stackwise_block_types": ["fused", "unfused"],
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "num_features": 32,
}


def _name(kind, settings):
    return f"keras_hub:{kind}Backbone{json.dumps(settings)}"


NAMES = {
    "vit": _name("ViT", VIT | {"dropout_rate": 0.2}),
    "deit": _name("DeiT", DEIT),
    "swin": _name("SwinTransformer", SWIN),
    "resnet": _name("ResNet", RESNET),
    "xception": _name("Xception", XCEPTION),
    "efficientnet": _name("EfficientNet", EFFICIENTNET),
}
STAGES = {
    "vit": [(4, 16)],
    "deit": [(4, 16)],
    "swin": [(4, 16)],
    "resnet": [(8, 64), (4, 128)],
    "xception": [(4, 64)],
    "efficientnet": [(16, 8), (8, 32)],
}
IMAGES = jnp.asarray(random_images("keras hub", 4, 32))


@functools.cache
def _model(kind):
    return create_model(NAMES[kind], 5, image_size=32, key=jax.random.key(0))


def _usual(function, *args, **kwargs):
    """Runs Keras's own code, which counts on jax's usual promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return function(*args, **kwargs)


@pytest.mark.parametrize("kind", NAMES)
def test_features_equal_keras_own(kind):
    model = _model(kind)
    backbone = model.backbone
    features = jax.jit(lambda images: model.features(images))(IMAGES)
    outputs = _usual(backbone.network, IMAGES, training=False)
    last = outputs[-1] if isinstance(outputs, (list, tuple)) else outputs
    found = features.tokens if features.tokens is not None else features.stages[-1]
    np.testing.assert_allclose(found, last, atol=1e-5, rtol=1e-4)
    axes = tuple(range(1, last.ndim - 1))
    pooled = last[:, 0] if kind in ("vit", "deit") else jnp.mean(last, axis=axes)
    np.testing.assert_allclose(features.pooled, pooled, atol=1e-5, rtol=1e-4)
    shapes = [(stage.shape[1], stage.shape[3]) for stage in features.stages]
    assert shapes == STAGES[kind]
    assert backbone.stage_dims == tuple(dim for _, dim in shapes)
    assert backbone.strides == tuple(32 // side for side, _ in shapes)
    assert (features.distilled is not None) == (kind == "deit")


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_training_moves_the_state_as_keras_does(kind):
    model = _model(kind)
    network = model.backbone.network
    graphdef, params, state = split_model(model)
    logits, moved = jax.jit(functools.partial(apply, graphdef, train=True))(params, state, IMAGES)
    before = [variable.numpy() for variable in network.non_trainable_variables]
    try:
        _usual(network, IMAGES, training=True)
        after = [variable.numpy() for variable in network.non_trainable_variables]
    finally:
        for variable, value in zip(network.non_trainable_variables, before, strict=True):
            variable.assign(value)
    found = flatten_paths(moved["backbone"]["layers"])
    assert len(found) == len(after) > 0
    for variable, old, new in zip(network.non_trainable_variables, before, after, strict=True):
        np.testing.assert_allclose(found[variable.path], new, rtol=1e-5, atol=1e-6)
        if not variable.path.endswith(("seed_generator_state", "moving_mean")):
            assert not np.array_equal(old, new)
    # The seeds move: the next step drops others, and one that goes on from here drops the same.
    run = jax.jit(functools.partial(apply, graphdef, train=True))
    again, _ = run(params, state, IMAGES)
    later, _ = run(params, moved, IMAGES)
    np.testing.assert_array_equal(again[0], logits[0])
    assert (np.abs(later[0] - logits[0]).max() > 1e-6) == (kind == "vit")


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_training_step_lowers_the_loss_and_carries_integers_past_the_average(kind):
    graphdef, params, state = split_model(_model(kind))

    def run(params, model_state, images, measurements, *, train, key):
        return apply(graphdef, params, model_state, images, train=train, key=key)

    settings = Config().optim
    optimizer = optax.sgd(0.03, momentum=0.9)
    train_step = jax.jit(make_train_step(
        run, lambda logits, labels: cross_entropy(logits, labels), optimizer, jnp.arange(5)[None],
        optim.trainable(settings, params), mean=(0.5,) * 3, std=(0.5,) * 3, ema_decay=0.9,
    ))  # fmt: skip
    average = {"params": params, "model_state": state}
    training = TrainState(
        step=jnp.zeros((), jnp.int32), params=params, model_state=state,
        opt_state=optimizer.init(params), plateau=optim.plateau_init(settings), ema=average,
        key=jax.random.key_data(jax.random.key(1)),
    )  # fmt: skip
    batch = {
        "image": jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1)), jnp.uint8),
        "measurements": jnp.zeros((4, 0)),
        "leaf": jnp.arange(4),
    }
    losses = []
    for _ in range(8):
        training, sums = train_step(training, batch)
        losses.append(float(sums["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    for path, value in flatten_paths(training.ema["model_state"]).items():
        assert value.dtype == flatten_paths(training.model_state)[path].dtype


def test_initial_weights_depend_on_the_key_alone():
    first, second = (create_model(NAMES["vit"], 5, image_size=32, key=jax.random.key(seed))
                     for seed in (0, 1))  # fmt: skip
    for model, same in ((first, True), (second, False)):
        ours, theirs = (flatten_paths(split_model(each)[1]) for each in (model, _model("vit")))
        assert ours.keys() == theirs.keys()
        path = "backbone/layers/vit_encoder/transformer_block_1/mlp/dense_1/kernel"
        assert np.array_equal(ours[path], theirs[path]) == same
    state = flatten_paths(split_model(first)[2])
    assert state.keys() == flatten_paths(split_model(_model("vit"))[2]).keys()


def test_bfloat16_computes_in_it_and_pools_in_float32():
    model = create_model(NAMES["resnet"], 5, image_size=32, dtype=jnp.bfloat16,
                         key=jax.random.key(0))  # fmt: skip
    features = model.features(IMAGES)
    assert features.stages[0].dtype == jnp.bfloat16 and features.pooled.dtype == jnp.float32
    _, params, state = split_model(model)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} == {jnp.dtype("float32")}


def test_folders_and_files_of_presets_work(tmp_path):
    import keras_hub

    backbone = _usual(keras_hub.models.ViTBackbone, image_shape=(32, 32, 3), **VIT)
    converter = keras_hub.layers.ViTImageConverter(
        image_size=(32, 32), scale=1 / 127.5, offset=-1.0
    )
    folder = tmp_path / "preset"
    _usual(backbone.save_to_preset, str(folder))
    converter.save_to_preset(str(folder))
    name = f"keras_hub:{folder}"
    info = get_info(name)
    assert info.image_size == 32
    np.testing.assert_allclose((info.mean, info.std), ((0.5,) * 3,) * 2, atol=1e-6)
    model = create_model(name, 5, key=jax.random.key(0))
    tokens = model.features(IMAGES).tokens
    np.testing.assert_allclose(tokens, _usual(backbone, IMAGES), atol=1e-5)
    random = create_model(f"{name}/config.json", 5, key=jax.random.key(0))
    assert np.abs(random.features(IMAGES).tokens - tokens).max() > 0.1
    with pytest.raises(UserError, match="config.data.image_size: found 48; .* 32; allowed"):
        create_model(name, 5, image_size=48, key=jax.random.key(0))
    with pytest.raises(UserError, match="config.model.in_channels: found 1; .* 3; allowed"):
        create_model(name, 5, in_channels=1, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("keras_hub:no_such_preset_anywhere", "cannot load the preset"),
        ("keras_hub:vit_base_patch16_224_imagnet", '"vit_base_patch16_224_imagenet"'),
        ('keras_hub:VitBackbon{"patch_size": 8}', '"ViTBackbone"'),
        ('keras_hub:ViTBackbone{"patch_size": 8', "not valid json"),
        ('keras_hub:ViTBackbone{"patch_sise": 8}', "ViTBackbone does not take this.*patch_size"),
        (_name("ViT", VIT | {"patch_size": 7}), "does not take this .*divisible"),
        (_name("Bert", {"vocabulary_size": 9}), "does not take this"),
        ("keras_hub:nowhere.json", "nowhere.json cannot be read"),
    ],
)
def test_what_cannot_be_is_told_with_the_way_out(name, text):
    with pytest.raises(UserError, match=f"(?s)config.model.name.*{text}"):
        create_model(name, 5, image_size=32, key=jax.random.key(0))


def test_other_settings_that_cannot_be():
    with pytest.raises(UserError, match="config.model.drop_path_rate"):
        create_model(NAMES["vit"], 5, image_size=32, drop_path_rate=0.1, key=jax.random.key(0))
    with pytest.raises(UserError, match="config.model.pool"):
        create_model(NAMES["swin"], 5, image_size=32, pool="token", key=jax.random.key(0))


def test_a_configuration_may_name_one():
    config = Config()
    config.model.name = NAMES["vit"]
    assert not all_problems(config)


def test_keras_on_another_library_is_refused(tmp_path):
    script = (
        "import sys, types\n"
        "keras = types.ModuleType('keras')\n"
        "keras.config = types.SimpleNamespace(backend=lambda: 'tensorflow')\n"
        "sys.modules['keras'] = keras\n"
        "from plankton_jax.errors import UserError\n"
        "from plankton_jax.models import get_info\n"
        "try:\n    get_info('keras_hub:vit_base_patch16_224_imagenet')\n"
        "except UserError as error:\n    assert 'KERAS_BACKEND=jax' in str(error), error\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
