"""Opening a data set of 3.56 million examples and drawing the first weighted batch's indices.

Time and memory of a fresh process, from its start to its end, and the cost of a drawn index at
three sizes of the data set. The index is synthetic: 103 classes with WHOI-Plankton's number of
examples and a tail as long.

    python benchmarks/opening.py

Under a minute; writes `benchmarks/results/opening.<device>.json` and, while it runs, a temporary
folder of about 450 MB.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from _results import row, versions, write_results

NUM_CLASSES = 103
SIZES = (10_000, 356_000, 3_563_595)
BATCH_SIZE = 256
MAX_SECONDS = 5
MAX_MEGABYTES = 500
MEASURE = "--measure"


def write_data_set(directory: pathlib.Path, count: int) -> None:
    """Everything that opening reads, and an empty shard in the place of the images."""
    import pyarrow as pa

    from plankton_jax.taxonomy import Taxonomy

    random = np.random.default_rng(0)
    shares = 0.93 ** np.arange(NUM_CLASSES)
    leaf = random.choice(NUM_CLASSES, count, p=shares / shares.sum()).astype(np.int32)
    side = random.integers(20, 400, count, dtype=np.int32)
    columns = {
        "id": pa.array([f"class_{k:03d}/IFCB1_{i:09d}.png" for i, k in enumerate(leaf.tolist())]),
        "leaf": pa.array(leaf),
        "height": pa.array(side),
        "width": pa.array(side),
        "bytes": pa.array(side * 30),
        "group": pa.array([""] * count),
        "split": pa.array([""] * count),
        "hash": pa.array(random.integers(0, 1 << 64, count, dtype=np.uint64)),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    with pa.OSFile(str(directory / "index.arrow"), "wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
    taxonomy = Taxonomy.flat([f"class_{number:03d}" for number in range(NUM_CLASSES)])
    split = {"name": "images", "shardLengths": [str(count)]}
    info = {"name": "synthetic_index", "fileFormat": "array_record", "splits": [split]}
    metadata = {"name": "synthetic_index", "fingerprint": str(count), "num_examples": count}
    metadata |= {"mean": 0.5, "std": 0.2, "format_version": 1}
    for name, value in (
        ("taxonomy.json", taxonomy.to_json()),
        ("dataset_info.json", info),
        ("metadata.json", metadata),
    ):
        (directory / name).write_text(json.dumps(value))
    (directory / "synthetic_index-images.array_record-00000-of-00001").touch()


def peak_megabytes() -> float:
    """The most memory that this process held, mapped pages of files included. (getrusage would
    count what its parent held when it was started, too.)"""
    status = pathlib.Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(directory: pathlib.Path) -> dict[str, float]:
    """Runs in a fresh process: opens, splits, draws.

    Returns seconds since the process started, megabytes at the most, microseconds an index.
    """
    from plankton_jax.data.dataset import open_dataset
    from plankton_jax.data.sampling import UniformSampler, WeightedSampler
    from plankton_jax.data.splits import split_rows

    dataset = open_dataset(directory)
    rows = split_rows(dataset.hashes, dataset.leaf)["train"]
    weighted = WeightedSampler(rows, dataset.leaf, dataset.taxonomy.num_leaves, 0)
    weighted(np.arange(BATCH_SIZE))
    figures = {
        "seconds": time.time() - float(sys.argv[-1]),
        "megabytes": peak_megabytes(),
    }
    for name, sampler in (("weighted", weighted), ("uniform", UniformSampler(rows, 0))):
        times = []
        for turn in range(2000):
            positions = np.arange(turn * BATCH_SIZE, (turn + 1) * BATCH_SIZE)
            start = time.perf_counter()
            sampler(positions)
            times.append(time.perf_counter() - start)
        figures[name] = statistics.median(times) / BATCH_SIZE * 1e6
    return figures


def medians(directory: pathlib.Path, repeats: int) -> dict[str, float]:
    """The median of each figure over fresh processes."""
    runs = []
    for _ in range(repeats):
        command = [sys.executable, __file__, MEASURE, str(directory), str(time.time())]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def rows_of(found: dict[int, dict[str, float]]) -> list[dict[str, Any]]:
    """The largest data set against the limits, and each size's cost against the smallest's."""
    largest, smallest = found[SIZES[-1]], found[SIZES[0]]
    rows = [
        row(
            f"process start to first weighted batch, {SIZES[-1]} examples",
            "s",
            round(largest["seconds"], 3),
            MAX_SECONDS,
            "limit",
            less_is_better=True,
        ),
        row(
            f"peak memory of that process, {SIZES[-1]} examples",
            "MB",
            round(largest["megabytes"], 1),
            MAX_MEGABYTES,
            "limit",
            less_is_better=True,
        ),
    ]
    for sampler in ("weighted", "uniform"):
        for size in SIZES:
            name, cost = f"{sampler} sampler, {size} examples", round(found[size][sampler], 3)
            base = round(smallest[sampler], 3)
            peer = f"the same at {SIZES[0]} examples"
            rows.append(row(name, "us/index", cost, base, peer, less_is_better=True))
    return rows


def main() -> None:
    if sys.argv[1:2] == [MEASURE]:
        print(json.dumps(measure(pathlib.Path(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="opening-benchmark-") as temporary:
        for size in SIZES:
            directory = pathlib.Path(temporary, str(size))
            directory.mkdir()
            write_data_set(directory, size)
            found[size] = medians(directory, options.repeats)
    packages = versions(("numpy", "pyarrow", "array_record"))
    write_results("opening", rows_of(found), packages, notes={"repeats": options.repeats})


if __name__ == "__main__":
    main()
