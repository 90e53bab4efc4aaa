"""The auxiliary classifier against timm's, and the branch papers' bases against plain torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.parity
timm_support = pytest.importorskip("timm_support", reason="torch and timm are not installed")
from golden.cases import relative  # noqa: E402
from golden.weights import random_images, random_weights  # noqa: E402
from timm_support import timm, torch  # noqa: E402

from plankton_jax.models import (  # noqa: E402
    apply,
    apply_features,
    create_model,
    flatten_paths,
    split_model,
    unflatten_paths,
)
from plankton_jax.models.branch_bases import CONFIGS, POOLINGS, BranchBaseConfig, build  # noqa: E402
from plankton_jax.models.inception_v3 import with_auxiliary  # noqa: E402
from plankton_jax.weights import from_timm  # noqa: E402


def _torch_base(config: BranchBaseConfig, size: int, channels: int) -> torch.nn.Sequential:
    """Named as our parameters are: convolutions, ReLU, batch norm, and pooling; then dense."""
    layers, width = torch.nn.Sequential(), channels
    norms = {"eps": 1e-3, "momentum": 0.01}
    for number, widths in enumerate(config.blocks):
        for place, features in enumerate(widths):
            path = f"blocks/{number}/{place}"
            layers.add_module(f"{path}/conv", torch.nn.Conv2d(width, features, 3, padding=1))
            layers.add_module(f"{path}/relu", torch.nn.ReLU())
            layers.add_module(f"{path}/bn", torch.nn.BatchNorm2d(features, **norms))
            width = features
        if number < POOLINGS:
            layers.add_module(f"pool{number}", torch.nn.MaxPool2d(2))
    layers.add_module("last", torch.nn.Flatten())
    width *= (size // 2**POOLINGS) ** 2
    for number, features in enumerate(config.dense):
        layers.add_module(f"dense/{number}/linear", torch.nn.Linear(width, features))
        layers.add_module(f"dense/{number}/relu", torch.nn.ReLU())
        layers.add_module(f"dense/{number}/bn", torch.nn.BatchNorm1d(features, **norms))
        width = features
    return layers


_NAMES = {"weight": "kernel", "running_mean": "mean", "running_var": "variance"}


def _paths(values: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], side: int) -> dict:
    """torch's names and layouts as ours; torch flattens channels before rows and columns."""
    found = {}
    for name, value in values.items():
        module, _, last = name.rpartition(".")
        if last == "num_batches_tracked":
            continue
        ours = "scale" if value.ndim == 1 and last == "weight" else _NAMES.get(last, last)
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        elif value.ndim == 2 and module == "dense/0/linear":
            value = value.reshape(len(value), -1, side, side).transpose(2, 3, 1, 0)
        elif value.ndim == 2:
            value = value.T
        path = f"backbone/{module}/{ours}"
        found[path] = value.reshape(shapes[path])
    return found


@pytest.mark.parametrize(
    ("name", "size", "channels"), [("bcnn_base_b", 32, 3), ("bcnn_base_c", 45, 1)]
)
def test_a_base_equals_a_plain_torch_network(name, size, channels):
    narrow = {
        "blocks": tuple(tuple(w // 16 for w in widths) for widths in CONFIGS[name].blocks),
        "dense": (24, 24),
    }
    config = BranchBaseConfig(**narrow)
    model = create_model(
        functools.partial(build, config), 5, image_size=size, in_channels=channels,
        key=jax.random.key(0),
    )  # fmt: skip
    graphdef, params, state = split_model(model)
    flat, flat_state = flatten_paths(params), flatten_paths(state)
    shapes = {path: value.shape for path, value in (flat | flat_state).items()}
    original = _torch_base(config, size, channels)
    weights = random_weights(timm_support.shapes(original))
    timm_support.load(original, weights)
    values = _paths(weights, shapes, size // 2**POOLINGS)
    assert values.keys() == {path for path in shapes if not path.startswith("head/")}
    params = unflatten_paths(flat | {path: values[path] for path in flat if path in values})
    state = unflatten_paths({path: values[path] for path in flat_state})
    images = random_images(name, 6, size, channels)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())

    features = jax.jit(functools.partial(apply_features, graphdef))(params, state, images)
    original.eval()
    stages, x = [], inputs
    with torch.no_grad():
        for layer_name, layer in original.named_children():
            x = layer(x)
            last = layer_name == f"blocks/{len(config.blocks) - 1}/{len(config.blocks[-1]) - 1}/bn"
            if layer_name.startswith("pool") or (last and len(config.blocks) > POOLINGS):
                stages.append(x.numpy().transpose(0, 2, 3, 1))
    assert len(stages) == len(features.stages) == len(config.blocks)
    for ours, theirs in zip(features.stages, stages, strict=True):
        assert ours.shape == theirs.shape and relative(np.asarray(ours), theirs) < 1e-4
    assert relative(np.asarray(features.pooled), x.numpy()) < 1e-4

    _, moved = jax.jit(functools.partial(apply, graphdef, train=True))(params, state, images)
    original.train()(inputs)
    after = {name: value.numpy() for name, value in original.state_dict().items()}
    expected = _paths(after, shapes, size // 2**POOLINGS)
    for path, value in flatten_paths(moved).items():
        # torch takes the unbiased variance into the average as well.
        assert relative(np.asarray(value), expected[path]) < 1e-3, path


@pytest.mark.slow
def test_the_auxiliary_classifier_equals_timms():
    original = timm.create_model("inception_v3", num_classes=5, aux_logits=True)
    weights = random_weights(timm_support.shapes(original))
    timm_support.load(original, weights)
    model = create_model(with_auxiliary, 5, image_size=299, head="auxiliary", key=jax.random.key(0))
    params, state = from_timm(weights, model)
    images = random_images("auxiliary", 4, 299)
    graphdef = split_model(model)[0]
    run = jax.jit(functools.partial(apply, graphdef, train=True))
    (auxiliary, _), _ = run(params, state, jnp.asarray(images))
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        _, expected = original.train()(inputs)
    # Batch norm over four values: their differences decide.
    assert relative(np.asarray(auxiliary), expected.numpy()) < 1e-3
