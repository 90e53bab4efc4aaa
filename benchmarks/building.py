"""Images a second that data sets are built at: drawn, and read from archives.

    python benchmarks/building.py [--ndsb train.zip] [--count 1500000]

Building decodes every image once, and writes records and index. There is no peer. With `--count` an
archive of so many small images is generated in the layout of ZooScan's first release (1.3 KB each)
and built in a process of its own, whose memory is told; a million take about six minutes.
"""

import argparse
import gzip
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time

import cv2
import numpy as np
from _results import row, versions, write_results

import data_builders

DRAWN = 10_000
MOST_MEGABYTES = 2000
LEAST_RATE = 5000

# A process of its own, so that its memory is its own; prints images a second and megabytes.
_BUILD = """
import pathlib, sys, time
import data_builders
began = time.perf_counter()
data_builders.prepare("zooscan/v1", data_dir=sys.argv[1], source=sys.argv[2])
seconds = time.perf_counter() - began
status = pathlib.Path("/proc/self/status").read_text()
peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
print(seconds, int(peak.split()[1]) * 1024 / 1e6)
"""


def write_archive(path: pathlib.Path, count: int) -> None:
    """A tar in ZooScan's layout: images of about 60 by 45 pixels, each file different."""
    random = np.random.default_rng(0)
    patterns = []
    for _ in range(500):
        height, width = random.integers(30, 90, 2).tolist()
        image = random.normal(235, 3, (height, width)).astype(np.float32)
        axes = (width // 3, height // 4)
        cv2.ellipse(image, (width // 2, height // 2), axes, 30.0, 0, 360, 90.0, -1)
        encoded = cv2.imencode(".jpg", np.rint(image.clip(0, 255)).astype(np.uint8))[1]
        patterns.append(encoded.tobytes())
    tree = pathlib.Path(data_builders.__file__).parent / "zooscan" / "v1.csv"
    taxa = [line.split(",")[2] for line in tree.read_text().splitlines()[1:]]

    def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(f"ZooScanSet/{name}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))

    numbers = np.minimum(random.geometric(0.05, count) - 1, len(taxa) - 1).tolist()
    with tarfile.open(path, "w") as archive:
        lines = (f"{i},{taxa[n]},/living" for i, n in enumerate(numbers))
        table = "\n".join(("objid,taxon,lineage", *lines, ""))
        add(archive, "taxa.csv.gz", gzip.compress(table.encode(), 1))
        for i, number in enumerate(numbers):
            # Bytes behind the end of a JPEG file are not looked at.
            data = patterns[i % len(patterns)] + i.to_bytes(4, "little")
            add(archive, f"imgs/{taxa[number]}/{i}.jpg", data)


def build_archive(folder: pathlib.Path, count: int) -> list[dict]:
    """The rows of a generated archive: rate and memory against what is asked for."""
    archive = folder / "zooscan.tar"
    write_archive(archive, count)
    command = [sys.executable, "-c", _BUILD, str(folder / "built"), str(archive)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, megabytes = map(float, done.stdout.split())
    name = f"zooscan/v1 from a tar of {count} generated images"
    memory = row(
        f"{name}, peak memory", "MB", round(megabytes), MOST_MEGABYTES, "limit", less_is_better=True
    )
    return [row(name, "images/s", round(count / seconds), LEAST_RATE, "limit"), memory]


def _rate(folder: pathlib.Path, name: str, **options) -> float:
    """Images a second of one building."""
    began = time.perf_counter()
    directory = data_builders.prepare(name, data_dir=folder, **options)
    seconds = time.perf_counter() - began
    return json.loads((directory / "metadata.json").read_text())["num_examples"] / seconds


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ndsb", type=pathlib.Path, help="the competition's train.zip")
    parser.add_argument("--count", type=int, default=0, help="images of a generated archive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _rate(folder / "first", "synthetic_plankton", num_examples=200)  # imports, caches
        drawn = _rate(folder, "synthetic_plankton", num_examples=DRAWN)
        rows = [row("synthetic_plankton, drawn", "images/s", drawn)]
        if options.ndsb:
            read = _rate(folder, "image_folder", source=options.ndsb)
            rows.append(row("image_folder from a zip of JPEG files", "images/s", read))
        if options.count:
            rows += build_archive(folder, options.count)
    for line in rows:
        print(f"{line['name']}: {line['ours']:.0f} {line['unit']}")
    write_results("building", rows, versions(["tensorflow-datasets", "opencv-python-headless"]))


if __name__ == "__main__":
    main()
