"""Settings and functions of a configuration file, through training, resuming and evaluation."""

import hashlib
import json
import math
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy
from command_runs import ROOT, checkpoints, command, environment, run, train_arguments

pytestmark = pytest.mark.slow

FUNCTIONS = """
import jax
import jax.numpy as jnp
from flax import nnx
from plankton_jax.config import Config
from plankton_jax.losses import cross_entropy
from plankton_jax.models import Features


class Pixels(nnx.Module):
    def __init__(self, *, image_size, in_channels, drop_path_rate, dtype, pool, rngs):
        del drop_path_rate, dtype, pool
        self.layer = nnx.Linear(image_size**2 * in_channels, 16, rngs=rngs)
        self.feature_dim = 16

    def __call__(self, images, *, train=False, key=None, indices=None):
        flat = images.reshape(images.shape[0], -1)
        return Features(stages=(), pooled=jax.nn.relu(self.layer(flat)))


class TwoLayers(nnx.Module):
    def __init__(self, backbone, num_classes, *, taxonomy, drop_rate, dtype, rngs):
        del taxonomy, drop_rate, dtype
        self.first = nnx.Linear(backbone.feature_dim, 8, rngs=rngs)
        self.second = nnx.Linear(8, num_classes, rngs=rngs)

    def __call__(self, features, *, train=False, key=None):
        return (self.second(jax.nn.relu(self.first(features.pooled))),)


def focal(level_logits, labels):
    loss = cross_entropy(level_logits, labels)
    return (1.0 - jnp.exp(-loss)) ** 2 * loss


def halving(step):
    return 0.5 ** (step // 10)


def get_config(arg=None):
    config = Config()
    config.data.dataset = "synthetic_plankton"
    config.model.name, config.model.head = Pixels, TwoLayers
    config.loss.name, config.optim.schedule = focal, halving
    config.train.epochs = 4
    config.checkpoint.every_steps = 3
    return config
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("settings")


def _with_file(workspace, file, name):
    arguments = train_arguments(workspace, name)
    return ["--config", file, *arguments[2:]]


def test_functions_of_a_configuration_file_train_resume_and_evaluate(workspace):
    file = workspace / "mine.py"
    file.write_text(FUNCTIONS)
    _run_without_heavy_imports(_with_file(workspace, file, "whole"))
    arguments = _with_file(workspace, file, "killed")
    process = subprocess.Popen(
        command("train", *arguments), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
    )
    folder = workspace / "killed" / "checkpoints"
    while process.poll() is None and not any(p.name.isdigit() for p in folder.glob("*")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "going on from step" in run("train", *arguments).stderr
    last = [checkpoints(workspace / name)[-1] for name in ("whole", "killed")]
    assert last[0]["params_sha256"] == last[1]["params_sha256"]
    evaluated = run("evaluate", "--run", workspace / "killed", "--views", "2", "--json")
    printed = json.loads(evaluated.stdout)
    assert printed["views"] == 2
    assert all(math.isfinite(level["log_loss"]) for level in printed["levels"])
    # Its functions are part of the run: another file of the same names is refused.
    file.write_text(FUNCTIONS.replace("** 2", "** 3"))
    told = run("train", *arguments, status=2).stderr
    assert "has changed since it began" in told
    run("train", "--config", workspace / "killed" / "config.json", *arguments[2:4])


def _run_without_heavy_imports(arguments):
    """Trains and checks that nothing has imported TensorFlow, torch or Keras."""
    script = (
        "import sys; from plankton_jax import train; train.main(sys.argv[1:]); "
        "sys.exit(len({'tensorflow', 'torch', 'keras'} & set(sys.modules)))"
    )
    command_line = [sys.executable, "-c", script, *map(str, arguments)]
    subprocess.run(command_line, cwd=ROOT, env=environment(), check=True)


RUNS = {
    "recipes": (
        "--config.augmentation.policy=randaugment",
        "--config.augmentation.cutout=0.3",
        "--config.augmentation.mixup=0.2",
        "--config.augmentation.cutmix=1.0",
    ),
    "learned": (
        "--config.model.head=coherent",
        "--config.loss.name=level_cross_entropy",
        "--config.loss.level_schedule=learned",
    ),
    "frozen": (
        "--config.model.freeze_backbone=true",
        "--config.optim.name=sgd",
        "--config.sampling.name=weighted",
    ),
    "plateau": (
        "--config.optim.schedule=plateau",
        "--config.optim.plateau_patience=0",
        "--config.optim.plateau_threshold=10",
        "--config.optim.plateau_monitor=relevance/log_loss",
        "--config.optim.plateau_mode=min",
        "--config.optim.gradient_clip=1.0",
        "--config.checkpoint.monitor=group/macro_f1",
        "--config.train.epochs=4",
        "--config.data.measurements=('log_side','log_elongation')",
        "--config.data.geometry=pad",
        "--config.augmentation.rotation_frame=square",
        "--config.model.drop_rate=0.1",
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_settings_do_what_they_say_in_a_whole_run(workspace, name):
    run("train", *train_arguments(workspace, name, *RUNS[name]))
    lines = (workspace / name / "metrics.jsonl").read_text().splitlines()
    lines = [line for line in map(json.loads, lines) if line["kind"] == "train"]
    assert lines[-1]["loss"] < lines[0]["loss"]
    rates = [line["learning_rate"] for line in lines]
    if name == "plateau":  # no gain is ever enough: a tenth at the second and third validation
        assert rates[-1] == pytest.approx(0.01 * max(rates), rel=1e-4)
    printed = json.loads(run("evaluate", "--run", workspace / name, "--json").stdout)
    assert all(math.isfinite(level["log_loss"]) for level in printed["levels"])


def test_initial_weights_start_a_run_and_are_not_needed_afterwards(workspace):
    path = _random_weights(workspace / "start.safetensors")
    overrides = (
        *PRETRAINED,
        f"--config.model.initial_weights={path}",
        "--config.model.freeze_backbone=true",
        "--config.train.precision=bfloat16",
    )
    told = run("train", *train_arguments(workspace, "started", *overrides)).stderr
    assert "one of other classes is left out" in told
    assert "licence of the weights: not stated" in told
    path.unlink()
    run("evaluate", "--run", workspace / "started")
    run("train", *train_arguments(workspace, "started", *overrides))
    # Killed in its first save, a run has no checkpoint yet and starts from the weights again.
    folder = workspace / "started" / "checkpoints"
    shutil.rmtree(folder)
    (folder / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    told = run("train", *train_arguments(workspace, "started", *overrides), status=2).stderr
    assert str(path) in told


def test_public_weights_start_a_run_that_says_where_they_come_from(workspace):
    cache = workspace / "cache"
    cache.mkdir()
    path = _random_weights(cache / "test_vit.r160_in1k.safetensors")
    overrides = (
        *PRETRAINED,
        "--config.model.pretrained=test_vit.r160_in1k",
        f"--config.model.weights_cache={cache}",
        "--config.data.normalisation=backbone",
    )
    told = run("train", *train_arguments(workspace, "public", *overrides)).stderr
    assert "starting from timm/test_vit.r160_in1k; licence of the weights: apache-2.0" in told
    saved = json.loads((workspace / "public" / "initial_weights.json").read_text())
    assert saved["tag"] == "test_vit.r160_in1k" and saved["licence"] == "apache-2.0"
    assert saved["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(b"damaged")
    run("evaluate", "--run", workspace / "public")
    told = run("train", *train_arguments(workspace, "again", *overrides), status=2).stderr
    assert f"{path}: its sha256 is" in told and not (workspace / "again").exists()


BRANCHES = (
    "--config.model.head=sbacnn",
    "--config.loss.name=level_cross_entropy",
    "--config.loss.label_smoothing=0.0",
    "--config.loss.level_weights=((0.8,0.1,0.1),(0.1,0.1,0.8))",
    "--config.loss.level_epochs=(1,)",
    "--config.head.branches=parallel",
    "--config.head.window=1",
    "--config.head.width=8",
    "--config.head.attention_width=4",
)


def test_another_head_learns_on_the_backbone_of_a_run(workspace):
    """And the tables show both runs under their own decoders."""
    run("train", *train_arguments(workspace, "flat"))
    overrides = (
        *BRANCHES,
        f"--config.model.initial_weights={workspace / 'flat'}",
        "--config.model.freeze_backbone=true",
    )
    told = run("train", *train_arguments(workspace, "branches", *overrides)).stderr
    assert f"starting from the backbone of {workspace / 'flat'}" in told
    run("evaluate", "--run", workspace / "flat")
    printed = run("evaluate", "--run", workspace / "branches", "--attention").stdout
    attention = workspace / "branches" / "predictions" / "test_attention.csv"
    assert f"wrote {attention}" in printed and len(attention.read_text().splitlines()) == 1 + 2 * 4
    told = run("evaluate", "--run", workspace / "flat", "--attention", status=2).stderr
    assert '--attention: the run has config.model.head="linear"' in told
    counted = (workspace / "flat" / "class_counts.csv").read_text().splitlines()
    assert counted[0].endswith(",train,validation,test") and len(counted) == 1 + 28
    numbers = [list(map(int, line.split(",")[-3:])) for line in counted[1:]]
    assert sum(map(sum, numbers)) == 300
    out = workspace / "tables"
    runs = ("--runs", workspace / "flat", workspace / "branches")
    printed = run("tables", *runs, "--out", out).stdout
    assert "Heads behind the gate" in printed and "branches: binary head" in printed
    assert (out / "branches_hierarchy.html").is_file()
    other = (*overrides[:-2], f"--config.model.initial_weights={workspace / 'flat'}")
    other = (*other, "--config.model.name=plankton_cnn_small")
    told = run("train", *train_arguments(workspace, "other", *other), status=2).stderr
    assert "a run of plankton_cnn_tiny; wanted: one of plankton_cnn_small" in told


PRETRAINED = ("--config.model.name=test_vit", "--config.data.image_size=32")


def _random_weights(path):
    """A file of `test_vit` with a head of five classes, in timm's naming."""
    import jax

    from plankton_jax import models, weights

    model = models.create_model("test_vit", 5, image_size=32, in_channels=3, key=jax.random.key(5))
    named = weights.to_timm(*models.split_model(model)[1:], model)
    safetensors.numpy.save_file({key: np.asarray(value) for key, value in named.items()}, path)
    return path
