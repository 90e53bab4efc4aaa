"""Opening data sets of 3.56 and 17 million examples and drawing the first weighted batch's indices.

Time and memory of a fresh process, from its start to its end, and the cost of a drawn index at
four sizes of the data set. The index is synthetic: 103 classes with WHOI-Plankton's number of
examples and a tail as long, and the same for 17 million.

    python benchmarks/opening.py

About two minutes; writes `benchmarks/results/opening.<device>.json` and, while it runs, a temporary
folder of about 2.5 GB.
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
SIZES = (10_000, 356_000, 3_563_595, 17_000_000)
# Most seconds and megabytes of the process, by size.
LIMITS = {3_563_595: (5, 500), 17_000_000: (10, 1000)}
BATCH_SIZE = 256
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
        "id": written_ids(leaf),
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


def written_ids(leaf: np.ndarray) -> Any:
    """`class_007/IFCB1_000000012.png` and so on as an Arrow array, without a string of Python's."""
    import pyarrow as pa

    template = b"class_000/IFCB1_000000000.png"
    text = np.tile(np.frombuffer(template, np.uint8), (len(leaf), 1))
    for values, start, digits in ((leaf, 6, 3), (np.arange(len(leaf)), 16, 9)):
        for place in range(digits):
            text[:, start + digits - 1 - place] += (values // 10**place % 10).astype(np.uint8)
    offsets = (np.arange(len(leaf) + 1) * len(template)).astype(np.int32)
    return pa.StringArray.from_buffers(
        len(leaf), pa.py_buffer(offsets), pa.py_buffer(text.reshape(-1))
    )


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
    """The large data sets against their limits, and each size's cost against the smallest's."""
    smallest, rows = found[SIZES[0]], []
    for size, limits in LIMITS.items():
        for what, figure, unit, digits, limit in (
            ("process start to first weighted batch", "seconds", "s", 3, limits[0]),
            ("peak memory of that process", "megabytes", "MB", 1, limits[1]),
        ):
            value = round(found[size][figure], digits)
            name = f"{what}, {size} examples"
            rows.append(row(name, unit, value, limit, "limit", less_is_better=True))
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
