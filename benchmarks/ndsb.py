"""`configs/ndsb.py:small` from the command to the end, against a fixed anchor.

    python benchmarks/ndsb.py --source train.zip

Trains and evaluates through the commands in a new folder; the clock runs over both, the building of
the data set included. The anchor is timm's `resnet10t` at 64 pixels, trained from scratch in
PyTorch on two cores for 12 epochs in 21 minutes: log-loss, accuracy and balanced accuracy on its
own 6,072 held-out images. Ours are those of the test part, a fifth by hash. About half an hour;
writes `results/ndsb.<device>.json`.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from _results import row, versions, write_results

ROOT = pathlib.Path(__file__).parents[1]
ANCHOR = {"log_loss": 0.864, "micro_accuracy": 0.732, "macro_accuracy": 0.575}
ANCHOR_MINUTES = 21.0
ANCHOR_NAME = "timm resnet10t, PyTorch, 12 epochs, on its own held-out images"


def command(name: str, *arguments: Any) -> str:
    """Runs a command; what it printed to standard output."""
    words = [sys.executable, "-m", f"plankton_jax.{name}", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, required=True, help="train.zip")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ndsb-benchmark-") as temporary:
        folder = pathlib.Path(temporary)
        began = time.perf_counter()
        command(
            "train",
            *("--config", "configs/ndsb.py:small", "--workdir", folder / "run"),
            f"--config.data.source={options.source.resolve()}",
            f"--config.data.data_dir={folder / 'data'}",
        )
        trained = time.perf_counter()
        found = json.loads(command("evaluate", "--run", folder / "run", "--json"))
        evaluated = time.perf_counter()
    metrics = found["levels"][-1]
    rows = [
        row(name, "", metrics[name], peer, ANCHOR_NAME, less_is_better=name == "log_loss")
        for name, peer in ANCHOR.items()
    ]
    minutes = (trained - began) / 60
    rows += [
        row("training", "min", minutes, ANCHOR_MINUTES, ANCHOR_NAME, less_is_better=True),
        row("evaluation", "min", (evaluated - trained) / 60),
    ]
    packages = versions(("jax", "flax", "optax", "grain"))
    write_results("ndsb", rows, packages, notes={"test_images": found["examples"]})


if __name__ == "__main__":
    main()
