"""Weights go through the convert command into a training."""

import json
import math

import pytest
from command_runs import metrics_lines, run, train_arguments
from golden.weights import random_weights
from weights_support import random_state_dict, write

# Of the families whose training step is compiled in seconds.
NAMES = ("deit_tiny_patch16_224", "convnext_atto", "resnet10t")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, and the data set that the trainings share."""
    return tmp_path_factory.mktemp("fine_tuning")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_converted_weights_are_trained_further(name, folder):
    shapes = {key: value.shape for key, value in random_state_dict(name).items()}
    source = write(folder / f"{name}.timm.safetensors", random_weights(shapes))
    converted = folder / f"{name}.safetensors"
    run("convert", "--model", name, "--checkpoint", source, "--out", converted)
    told = run(
        "train",
        *train_arguments(folder, name),
        *("--config.data.num_examples=80", "--config.data.image_size=32"),
        f"--config.model.name={name}",
        f"--config.model.initial_weights={converted}",
        *("--config.model.in_channels=3", "--config.data.normalisation=backbone"),
        *("--config.optim.learning_rate=1e-3", "--config.train.ema_decay=0"),
    ).stderr
    assert f"starting from {source}" in told
    assert json.loads((folder / name / "initial_weights.json").read_text())["source"] == str(source)
    lines = metrics_lines(folder / name)
    losses = [value for line in lines for key, value in line.items() if key.endswith("loss")]
    assert losses and all(map(math.isfinite, losses))
