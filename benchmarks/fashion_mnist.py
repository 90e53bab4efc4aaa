"""The branch networks on Fashion-MNIST against their papers' own numbers.

    python benchmarks/fashion_mnist.py --source fashion-mnist [--seeds 3] [--channels-divided-by 4]

Trains every network of `configs/fashion_mnist.py` with every seed through the train command,
evaluates the last checkpoint on the official test images, and compares micro accuracy of each
level, images with every level right and images with a consistent prediction with the published
single runs (mean and spread over the seeds). A run that is there is gone on with, so the command
can be stopped. With narrower bases or fewer epochs the numbers are told as what they are, without
the published ones. For a GPU; writes `results/fashion_mnist.<device>.json`, beside it the same as a
table (`.md`), and the runs.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
from typing import Any

from _results import device_name, row, versions, write_results

from plankton_jax.analysis.hierarchy import measure
from plankton_jax.analysis.predictions import read_predictions
from plankton_jax.analysis.text_tables import Table
from plankton_jax.names import BRANCH_HEADS

PAPERS = 60  # epochs
EPOCHS = {
    name: PAPERS
    for name in ("bcnn", "hbcnn", "bacnn", "add", "concat", "sbacnn", "coherent", "flat")
} | {"best": 100}
# Accuracy of levels 1 to 3, all right, consistent, in %: notebooks beside Pizarro et al. 2023.
PUBLISHED = {
    "bcnn": (99.79, 96.55, 93.17, 92.16, 98.03),
    "hbcnn": (99.81, 96.44, 93.52, 92.37, 98.00),
    "bacnn": (99.77, 96.83, 93.22, 92.94, 99.41),
    "add": (99.78, 96.36, 93.16, 92.12, 98.12),
    "concat": (99.82, 96.40, 92.71, 91.69, 98.07),
}
MEASURED = ("level 1", "level 2", "level 3", "all right", "consistent")
HEADINGS = ("network", "L1", "L2", "L3", "all right", "consistent")


def command(name: str, *arguments: Any) -> None:
    subprocess.run([sys.executable, "-m", f"plankton_jax.{name}", *map(str, arguments)], check=True)


def in_proportion(share: float, branch_training: bool) -> list[str]:
    """Settings with which the weights of the levels, where they change, and the learning rate
    change at the same shares of a shorter run."""
    switches, drops = (
        tuple(round(epoch * share, 3) for epoch in epochs) for epochs in ((15, 25, 35), (43, 53))
    )
    levels = [f"--config.loss.level_epochs={switches}"] if branch_training else []
    return [*levels, f"--config.optim.step_epochs={drops}"]


def scores(options: argparse.Namespace, network: str, seed: int) -> tuple[float, ...]:
    """The five numbers, in %, of one network and seed."""
    share = options.channels_divided_by
    argument = network if share == 1 else f"{network}/{share}"
    run = options.runs / f"{argument.replace('/', '_')}_{seed}"
    epochs = options.epochs or EPOCHS[network]
    settings = [
        f"--config.data.source={options.source}",
        f"--config.seed={seed}",
        f"--config.train.epochs={epochs}",
        f"--config.train.precision={options.precision}",
    ]
    if options.epochs and network == "best":
        settings.append(f"--config.optim.warmup_epochs={2 * epochs / EPOCHS['best']}")
    elif options.epochs:
        settings += in_proportion(epochs / PAPERS, network in BRANCH_HEADS)
    config = pathlib.Path(__file__).parents[1] / "configs" / "fashion_mnist.py"
    command("train", "--config", f"{config}:{argument}", *settings, "--workdir", run)
    command("evaluate", "--run", run, "--split", "test", "--checkpoint", "last", "--json")
    found = measure(read_predictions(run / "predictions" / "test.parquet"))
    micro = [found.level_rows(level)["micro"] for level in range(3)]
    return tuple(100 * x for x in (*micro, found.coherence_accuracy(), found.consistency()))


def table(rows: list[dict[str, Any]], notes: dict[str, Any]) -> str:
    """The rows as Markdown, a line for each network: mean, spread, and the published number."""
    by_network: dict[str, list[str]] = {}
    for line in rows:
        network, _, _ = line["name"].partition(",")
        published = f" ({line['published']:.2f})" if "published" in line else ""
        spread = f" ± {line['spread']:.2f}" if line["seeds"] > 1 else ""
        cell = f"{line['ours']:.2f}{spread}{published}"
        by_network.setdefault(network, []).append(cell)
    return Table(
        "fashion_mnist",
        "The branch networks on Fashion-MNIST",
        f"In %: mean ± standard deviation over {rows[0]['seeds']} seed(s) (published single run). "
        f"Channels: {notes['channels']}; epochs: {notes['epochs']}.",
        HEADINGS,
        tuple((network, *cells) for network, cells in by_network.items()),
    ).markdown()


def main() -> None:
    """Trains, evaluates and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, required=True, help="the four files' folder")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/fashion_mnist"))
    parser.add_argument("--networks", nargs="+", choices=tuple(EPOCHS), default=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=0, help="default: the papers' 60")
    parser.add_argument("--channels-divided-by", type=int, default=1, choices=(1, 2, 4, 8))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for network in options.networks:
        rows += measured(options, network)
        path, made = written(options, rows)  # after each network: the others take hours
    print(made, path.with_suffix(".md"), sep="\n")


def measured(options: argparse.Namespace, network: str) -> list[dict[str, Any]]:
    """The five rows of a network, over its seeds."""
    like_the_papers = options.channels_divided_by == 1 and not options.epochs
    published = PUBLISHED.get(network) if like_the_papers else None
    runs = [scores(options, network, seed) for seed in range(options.seeds)]
    rows = []
    for place, what in enumerate(MEASURED):
        values = [run[place] for run in runs]
        line = row(f"{network}, {what}", "%", round(statistics.mean(values), 2))
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append(
            line
            | {"seeds": options.seeds, "spread": round(spread, 3)}
            | ({"published": published[place]} if published else {})
        )
    return rows


def written(options: argparse.Namespace, rows: list[dict[str, Any]]) -> tuple[pathlib.Path, str]:
    """Writes the rows so far; the JSON file, and the table beside it."""
    import jax

    device = jax.devices()[0]
    name = device_name(device.platform, device.device_kind)
    notes = {
        "epochs": options.epochs or f"{PAPERS}, best {EPOCHS['best']}",
        "channels": f"those of the paper's base over {options.channels_divided_by}",
    }
    packages = versions(("jax", "flax", "optax"))
    path = write_results("fashion_mnist", rows, packages, device=name, notes=notes)
    made = table(rows, notes)
    path.with_suffix(".md").write_text(made, encoding="utf-8")
    return path, made


if __name__ == "__main__":
    main()
