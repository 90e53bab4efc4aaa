"""Whole runs through the commands: what is refused, fallen back from or told, and evaluation."""

import json
import math
import pathlib
import shutil
import time

import pytest
from command_runs import ROOT, checkpoints, final_digest, metrics_lines, run, start, train_arguments
from image_files import make_folder

pytestmark = pytest.mark.slow


def _of_images(source: object) -> tuple[str, ...]:
    """Settings of a run on a folder of images."""
    return (
        "--config.data.dataset=image_folder",
        "--config.data.num_examples=0",
        f"--config.data.source={source}",
    )


def _copied(workspace: pathlib.Path, name: str) -> pathlib.Path:
    """A copy of the finished run without its last checkpoint's metrics lines touched."""
    shutil.copytree(workspace / "whole", workspace / name)
    return workspace / name


def test_a_damaged_newest_checkpoint_falls_back(workspace):
    workdir = _copied(workspace, "damaged")
    last = checkpoints(workdir)[-1]["step"]
    data = max((workdir / "checkpoints" / str(last)).rglob("d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    data.write_bytes(content)
    told = run("train", *train_arguments(workspace, "damaged")).stderr
    assert "warning: checkpoint" in told and f"/{last}" in told and "going on from step" in told
    assert final_digest(workdir) == final_digest(workspace / "whole")
    assert (workdir / "damaged_checkpoints" / str(last)).is_dir()


def test_no_whole_checkpoint_at_all_is_told(workspace):
    workdir = _copied(workspace, "ruined")
    for manifest in (workdir / "checkpoints").glob("*/state/manifest.ocdbt"):
        manifest.write_bytes(b"")
    before = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    for _ in range(2):  # the second time as the first: nothing is moved, nothing begins anew
        told = run("train", *train_arguments(workspace, "ruined"), status=2).stderr
        assert "no checkpoint is whole" in told
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == before
    assert metrics_lines(workdir) == metrics_lines(workspace / "whole")


def test_other_settings_are_refused_by_name_before_anything_is_touched(workspace):
    overrides = ("--config.optim.learning_rate=0.5", "--config.data.num_examples=310")
    built = sorted((workspace / "data").rglob("*"))
    saved = (workspace / "whole" / "config.json").read_bytes()
    told = run("train", *train_arguments(workspace, "whole", *overrides), status=2).stderr
    assert "config.optim.learning_rate=0.003, now it is 0.5" in told
    assert "config.data.num_examples=300, now it is 310" in told
    assert sorted((workspace / "data").rglob("*")) == built
    assert (workspace / "whole" / "config.json").read_bytes() == saved


def test_a_function_that_does_not_fit_leaves_nothing_behind(workspace, tmp_path):
    file = tmp_path / "mine.py"
    source = (ROOT / "configs" / "quickstart.py").read_text()
    call = "\n\ndef loss(logits):\n    return logits\n\n\nquickstart = get_config\n"
    call += "\n\ndef get_config():\n    config = quickstart('tiny')\n"
    call += "    config.loss.name, config.loss.label_smoothing = loss, 0.0\n    return config\n"
    file.write_text(source + call)
    arguments = train_arguments(workspace, "misfit")
    arguments[1] = file
    told = run("train", *arguments, status=2).stderr
    assert "config.loss.name: a training step with these functions fails (TypeError" in told
    assert not (workspace / "misfit").exists()
    run("train", *train_arguments(workspace, "misfit"))  # mended, in the same folder


def test_a_checkpoint_of_other_settings_is_refused(workspace):
    workdir = _copied(workspace, "mixed")
    for record in (workdir / "checkpoints").glob("*/record/metadata"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"config_hash": "other"}))
    told = run("train", *train_arguments(workspace, "mixed"), status=2).stderr
    assert "was made with other settings" in told


def test_settings_that_cannot_change_a_result_may_differ(workspace):
    # The third is as the file has it, but for being written as a whole number.
    overrides = ("--config.logging.every_steps=3", "--config.data.threads=1",
                 "--config.train.epochs=2", "--config.checkpoint.every_steps=7")  # fmt: skip
    run("train", *train_arguments(workspace, "whole", *overrides))


def test_other_images_are_refused(workspace):
    workdir = _copied(workspace, "other_data")
    described = json.loads((workdir / "data.json").read_text())
    described["fingerprint"] = "0" * 64
    (workdir / "data.json").write_text(json.dumps(described))
    told = run("train", *train_arguments(workspace, "other_data"), status=2).stderr
    assert "the data set has changed" in told and "0000" in told


def test_a_second_process_is_refused(workspace):
    arguments = train_arguments(workspace, "twice", "--config.train.epochs=200")
    first = start(arguments)
    try:
        while first.poll() is None and not (workspace / "twice" / ".lock").exists():
            time.sleep(0.01)
        told = run("train", *arguments, status=2).stderr
    finally:
        first.kill()
        first.communicate()
    assert "another process is training in it" in told


def test_a_folder_of_something_else_is_not_touched(workspace):
    folder = workspace / "thesis"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("all of it")
    told = run("train", *train_arguments(workspace, "thesis"), status=2).stderr
    assert "not a run of plankton_jax" in told
    assert [path.name for path in folder.iterdir()] == ["chapter1.txt"]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(workspace):
    overrides = ("--config.optim.learning_rate=1e30", "--config.checkpoint.every_steps=1")
    told = run("train", *train_arguments(workspace, "diverged", *overrides), status=2).stderr
    assert "not finite" in told and "config.optim.learning_rate" in told
    kept = checkpoints(workspace / "diverged")[-1]["step"]
    assert f"Step {kept} is kept" in told
    evaluated = ("--run", workspace / "diverged", "--checkpoint", kept, "--json")
    levels = json.loads(run("evaluate", *evaluated).stdout)["levels"]
    assert all(math.isfinite(level["log_loss"]) for level in levels)


def test_evaluate_prints_the_promised_object(workspace):
    workdir = workspace / "whole"
    printed = json.loads(run("evaluate", "--run", workdir, "--split", "test", "--json").stdout)
    assert list(printed) == ["split", "examples", "levels"] and printed["split"] == "test"
    assert [level["name"] for level in printed["levels"]][-1] == "taxon"
    expected = {
        *("name", "micro_accuracy", "macro_accuracy", "macro_f1", "weighted_f1"),
        *("macro_precision", "macro_recall", "top5_accuracy", "log_loss"),
    }
    assert all(set(level) == expected for level in printed["levels"])
    assert (workdir / "predictions" / "test.parquet").is_file()
    figures = list((workdir / "figures").glob("test_*.png"))
    assert len(figures) == 2
    assert (workdir / "tables" / "test" / "table_7.tex").is_file()


def test_validation_metrics_are_those_of_training(workspace):
    workdir = workspace / "whole"
    arguments = ("--run", workdir, "--split", "validation", "--checkpoint", "last", "--json")
    leaves = json.loads(run("evaluate", *arguments).stdout)["levels"][-1]
    trained = [line for line in metrics_lines(workdir) if line["kind"] == "validation"][-1]
    for name, value in leaves.items():
        if name != "name":
            assert value == pytest.approx(trained[name], rel=1e-5), name


def test_checkpoints_are_listed_with_their_metrics(workspace):
    lines = run("checkpoints", "--run", workspace / "whole").stdout.splitlines()
    last = checkpoints(workspace / "whole")[-1]
    start = next(n for n, line in enumerate(lines) if line.startswith(f"step {last['step']:>8}"))
    assert last["params_sha256"] in lines[start] and "last" in lines[start]
    for name in ("macro_f1", "micro_accuracy", "log_loss"):
        assert f"{name} {last['metrics'][name]:.4f}" in lines[start + 1]


def test_a_source_that_is_gone_is_told_and_another_refused(tmp_path):
    images = make_folder(tmp_path / "images", {"a": 20, "b": 20})
    options = _of_images(images)
    run("train", *train_arguments(tmp_path, "mine", *options))
    shutil.rmtree(images)
    told = run("train", *train_arguments(tmp_path, "mine", *options)).stderr
    assert f"config.data.source: {images} is gone; going on" in told
    mistyped = train_arguments(tmp_path, "mine", *_of_images("imgaes"))
    told = run("train", *mistyped, status=2).stderr
    assert 'config.data.source: found "imgaes", which is not there' in told and str(images) in told
    saved = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert saved["data"]["source"] == str(images)


def test_images_in_the_home_folder_are_looked_at_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_folder(tmp_path / "images", {"a": 20, "b": 20})
    options = _of_images("~/images")
    run("train", *train_arguments(tmp_path, "mine", *options))
    make_folder(tmp_path / "images", {"c": 3, "a": 20})
    told = run("train", *train_arguments(tmp_path, "mine", *options), status=2).stderr
    assert "the data set has changed" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--run", "nowhere"), "no config.json"),
        (("--run", "{whole}", "--checkpoint", "77"), "allowed: best, last or one of the steps"),
        (("--run", "{whole}", "--config.seed=4"), "as it was trained"),
    ],
)
def test_what_cannot_be_evaluated_is_told(workspace, arguments, words):
    filled = [argument.format(whole=workspace / "whole") for argument in arguments]
    assert words in run("evaluate", *filled, status=2).stderr


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("--config.model.name=plankton_cnn_tini",), 'Did you mean "plankton_cnn_tiny"'),
        (("--config.model.head=linaer",), 'Did you mean "linear"'),
        (("--config.data.dataset=synthetic",), "synthetic_plankton"),
        (
            ("--config.data.dataset=image_folder", "--config.data.num_examples=0"),
            "config.data.source",
        ),
        (("--config.data.dataset=image_folder",), "config.data.num_examples"),
        (
            _of_images("nowhere/at/all"),
            "nowhere/at/all",
        ),
        (("--config.checkpoint.monitor=genus/macro_f1",), 'no level "genus"'),
        (("--config.optim.learning_rate_rules=(('neck.*',1.0),('.*',1.0))",), "neck.*"),
        (("--config.model.initial_weights=absent.safetensors",), "absent.safetensors"),
        (("--config.optim.weight_decay_rules=(('(',1.0),)",), "no regular expression"),
        (
            ("--config.optim.schedule=plateau", "--config.split.fractions=(0.999,0.0005,0.0005)"),
            "no image falls to validation",
        ),
        (
            (
                "--config.model.head=bcnn",
                "--config.loss.name=level_cross_entropy",
                "--config.loss.label_smoothing=0",
            ),
            "config.head.window: found 7; a branch reads a map of",
        ),
    ],
)
def test_bad_settings_leave_no_run_behind(workspace, overrides, words):
    told = run("train", *train_arguments(workspace, "never", *overrides), status=2).stderr
    assert words in told
    assert not (workspace / "never").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("--config.model.pool=mean",), "config.model.pool"),
        (
            ("--config.model.name=vit_tiny_patch16_224", "--config.data.image_size=100"),
            "config.data.image_size: found 100",
        ),
    ],
)
def test_what_a_backbone_cannot_is_told_before_any_data_is_built(tmp_path, overrides, words):
    told = run("train", *train_arguments(tmp_path, "never", *overrides), status=2).stderr
    assert words in told
    assert not (tmp_path / "data").exists()
