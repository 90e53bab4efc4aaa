"""Runs the commands as a user does, in processes of their own, on a run small enough for tests."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
    "--config.data.num_examples=300",
    "--config.data.image_size=24",
    "--config.train.batch_size=16",
    "--config.logging.every_steps=4",
)


def command(name: str, *arguments: object) -> list[str]:
    """The argument list of `python -m plankton_jax.<name> ...`."""
    return [sys.executable, "-m", f"plankton_jax.{name}", *map(str, arguments)]


def environment() -> dict[str, str]:
    """One CPU device, whatever the tests themselves run on; warnings as a user has them."""
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PYTHONWARNINGS")}
    # Most of such a small run is compiling; with fewer of LLVM's passes it is a fifth shorter.
    return kept | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=1"}


def start(arguments: list[object], *, new_session: bool = False) -> subprocess.Popen[str]:
    """Starts a training; its standard error can be read."""
    return subprocess.Popen(
        command("train", *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=new_session,
    )


def run(name: str, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and checks its exit status."""
    result = subprocess.run(
        command(name, *arguments), cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == status, f"{result.returncode}\n{result.stdout}\n{result.stderr}"
    if status:
        assert "Traceback" not in result.stderr, result.stderr
    return result


def train_arguments(workspace: pathlib.Path, workdir: str, *overrides: str) -> list[object]:
    """Arguments of a small training in `workspace`, which holds its data too.

    Compiled programs are shared by all tests of a worker, which runs one at a time.
    """
    return [
        *("--config", "configs/quickstart.py:tiny", "--workdir", workspace / workdir),
        f"--config.data.data_dir={workspace / 'data'}",
        f"--config.logging.compilation_cache={workspace.parent / 'xla'}",
        *SMALL,
        *overrides,
    ]


def checkpoints(workdir: pathlib.Path) -> list[dict]:
    """The records of a run's checkpoints, as the command lists them."""
    listed = run("checkpoints", "--run", workdir, "--json").stdout
    return json.loads(listed)["checkpoints"]


def final_digest(workdir: pathlib.Path) -> str:
    """sha256 of all parameters at the end of a run."""
    return checkpoints(workdir)[-1]["params_sha256"]


def metrics_lines(workdir: pathlib.Path) -> list[dict]:
    """What a run wrote to metrics.jsonl, without what the clock decides."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def shared_memory(batch_bytes: int) -> set[str]:
    """The segments of shared memory, of any run, in which two loader processes with two threads
    each lay batches whose images have so many bytes."""
    size = 64 + 2 * (2 + 2) * (batch_bytes + -batch_bytes % 64)
    segments = pathlib.Path("/dev/shm").glob("psm_*")
    found = set()
    for segment in segments:
        with contextlib.suppress(FileNotFoundError):
            found |= {segment.name} if segment.stat().st_size == size else set()
    return found
