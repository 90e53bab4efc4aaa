"""Whole runs through the commands: continuing after every kind of stop."""

import os
import random
import signal
import subprocess
import time

import pytest
from command_runs import (
    checkpoints,
    final_digest,
    metrics_lines,
    run,
    shared_memory,
    start,
    train_arguments,
)

pytestmark = pytest.mark.slow


def _kill_when(process: subprocess.Popen, happens, seconds: float = 60) -> bool:
    """Kills the process outright at the moment that `happens()`; False when it ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if happens():
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.001)
    process.communicate()
    return False


def test_killed_at_any_moment_it_ends_with_the_same_bits(workspace):
    workdir = workspace / "killed"
    arguments = train_arguments(workspace, "killed")
    generator = random.Random(0)
    folder = workdir / "checkpoints"
    kills = {"a save": 0, "a checkpoint": 0, "a time": 0}
    for moment in ("a save", "a checkpoint", "a time", "a save"):
        delay = time.monotonic() + generator.uniform(4, 7)
        steps = set(os.listdir(folder)) if folder.exists() else set()
        happens = {
            "a save": lambda: folder.exists() and any("tmp" in name for name in os.listdir(folder)),
            "a checkpoint": lambda seen=steps: (
                folder.exists() and any(n.isdigit() and n not in seen for n in os.listdir(folder))
            ),
            "a time": lambda at=delay: time.monotonic() > at,
        }[moment]
        kills[moment] += _kill_when(start(arguments), happens)
    assert sum(kills.values()) >= 2, "the run was over before it could be killed"
    assert kills["a save"], "no save was under way when it was killed"
    run("train", *arguments)
    assert final_digest(workdir) == final_digest(workspace / "whole")
    assert metrics_lines(workdir) == metrics_lines(workspace / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(workspace, number):
    name = f"signal{number.value}"
    arguments = train_arguments(workspace, name, "--config.checkpoint.every_steps=1000")
    process = start(arguments)
    while process.poll() is None and not (workspace / name / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate()
    assert process.returncode == 128 + number, told
    assert "Traceback" not in told and "goes on from here" in told
    stopped_at = checkpoints(workspace / name)[-1]["step"]
    again = run("train", *arguments)
    assert f"going on from step {stopped_at}" in again.stderr
    assert final_digest(workspace / name) == final_digest(workspace / "whole")


def test_ctrl_c_in_a_terminal_reaches_loader_processes_too(workspace):
    arguments = train_arguments(workspace, "terminal", "--config.data.worker_count=2")
    process = start(arguments, new_session=True)
    while process.poll() is None and not (workspace / "terminal" / "metrics.jsonl").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 128 + signal.SIGINT, told
    assert "Traceback" not in told and "goes on from here" in told
    run("train", *arguments)
    assert final_digest(workspace / "terminal") == final_digest(workspace / "whole")


@pytest.mark.parametrize(
    ("end", "number"),
    [(os.killpg, signal.SIGINT), (os.kill, signal.SIGKILL), (os.killpg, signal.SIGKILL)],
)
def test_a_stopped_run_leaves_no_process_and_no_shared_memory(workspace, end, number):
    """Ctrl-C goes to the loader processes too, as the end of a cluster's job; of a kill they
    learn nothing."""
    side = 93  # a batch has a size in bytes that no other test's has
    name = f"nothing_left_{end.__name__}_{number.value}"
    process = start(
        train_arguments(
            workspace, name, "--config.data.worker_count=2", f"--config.data.image_size={side}",
        ),
        new_session=True,
    )  # fmt: skip
    metrics = workspace / name / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.01)  # until batches have come from the loader processes
    end(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), told
    if number == signal.SIGINT:
        assert "leaked" not in told
    deadline = time.monotonic() + 10
    while _has_members(process.pid) or shared_memory(16 * side**2):
        assert time.monotonic() < deadline, "a process or shared memory is left"
        time.sleep(0.1)


def _has_members(group: int) -> bool:
    """Whether a process of this group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_finished_run_is_left_as_it_is(workspace):
    before = final_digest(workspace / "whole")
    run("train", *train_arguments(workspace, "whole"))
    assert final_digest(workspace / "whole") == before


def test_a_run_repeats_from_its_saved_settings(workspace):
    config = workspace / "whole" / "config.json"
    run("train", "--config", config, "--workdir", workspace / "repeated")
    assert final_digest(workspace / "repeated") == final_digest(workspace / "whole")


def test_loader_processes_change_nothing(workspace):
    run("train", *train_arguments(workspace, "workers", "--config.data.worker_count=2"))
    assert final_digest(workspace / "workers") == final_digest(workspace / "whole")


KERAS = (
    "--config.model.name=keras_hub:ResNetBackbone"
    '{"input_conv_filters":[64],"input_conv_kernel_sizes":[3],"stackwise_num_filters":[64],'
    '"stackwise_num_blocks":[1],"stackwise_num_strides":[1],"block_type":"basic_block"}',
    "--config.model.drop_rate=0.2",
    "--config.train.ema_decay=0.0",
)
CACHED = ("--config.model.freeze_backbone=true", "--config.model.cache_features=2")


@pytest.mark.parametrize(("name", "overrides"), [("keras", KERAS), ("cached", CACHED)])
def test_other_kinds_of_runs_go_on_with_the_same_bits(workspace, name, overrides):
    """Batch-norm statistics and seeds of KerasHub, and views of stored features, come again."""
    run("train", *train_arguments(workspace, name, *overrides))
    workdir = workspace / f"{name}_killed"
    arguments = train_arguments(workspace, workdir.name, *overrides)
    folder = workdir / "checkpoints"
    killed = _kill_when(
        start(arguments),
        lambda: folder.exists() and any(step.isdigit() for step in os.listdir(folder)),
        seconds=300,
    )
    assert killed, "the run was over before it could be killed"
    again = run("train", *arguments)
    assert "going on from step" in again.stderr
    assert final_digest(workdir) == final_digest(workspace / name)
    assert metrics_lines(workdir) == metrics_lines(workspace / name)
    if name == "cached":
        assert len([*(workspace / "data" / "features").iterdir()]) == 1
        run("evaluate", "--run", workdir)
