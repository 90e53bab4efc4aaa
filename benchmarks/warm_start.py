"""Seconds from the command to the first step of a resumed run, compiled programs being cached.

    python benchmarks/warm_start.py

Trains configs/quickstart.py for its first epoch, stops, and starts the same command again several
times; the clock runs from the process's start to the first line of metrics after the resumed step.
The first resumption is told apart: it must find every program that the first run compiled. The
peers are limits that the project sets itself: 15 s, and 2.5 s to import the models.
"""

import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from _results import row, versions, write_results

ROOT = pathlib.Path(__file__).parents[1]
REPEATS = 5
LIMIT, IMPORT_LIMIT = 15.0, 2.5


def _command(folder: pathlib.Path) -> list[str]:
    return [
        *(sys.executable, "-m", "plankton_jax.train"),
        *("--config", "configs/quickstart.py", "--workdir", str(folder / "run")),
        f"--config.data.data_dir={folder / 'data'}",
        f"--config.logging.compilation_cache={folder / 'xla'}",
        "--config.logging.every_steps=1",
    ]


def _seconds_to_a_line(folder: pathlib.Path, beyond: int) -> float:
    """Starts the run, waits for a line of a step after `beyond`, and stops it by SIGTERM."""
    began = time.perf_counter()
    process = subprocess.Popen(_command(folder), cwd=ROOT, stderr=subprocess.DEVNULL)
    while _last_step(folder) <= beyond:
        if process.poll() is not None:
            raise SystemExit(f"training ended with status {process.returncode}")
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGTERM)
    process.wait()
    return seconds


def _last_step(folder: pathlib.Path) -> int:
    """The last step in metrics.jsonl; 0 before there is one."""
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        return json.loads(lines[-1])["step"] if lines else 0
    except ValueError:  # a line that is being written
        return 0


def _import_seconds() -> float:
    """Seconds of a process that imports the models and nothing else."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import plankton_jax.models"], check=True, cwd=ROOT)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Measures and writes the result."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cold = _seconds_to_a_line(folder, 0)
        warm = [_seconds_to_a_line(folder, _last_step(folder)) for _ in range(REPEATS)]
    rows = [
        row("cold start, data set drawn and network compiled", "s", cold),
        row("first warm start", "s", warm[0], LIMIT, "limit", less_is_better=True),
        row("warm start", "s", statistics.median(warm), LIMIT, "limit", less_is_better=True),
        row(
            "import plankton_jax.models",
            "s",
            _import_seconds(),
            IMPORT_LIMIT,
            "limit",
            less_is_better=True,
        ),
    ]
    notes = {"repeats": REPEATS, "all_warm": warm}
    write_results("warm_start", rows, versions(["jax", "flax", "orbax-checkpoint"]), notes=notes)


if __name__ == "__main__":
    main()
