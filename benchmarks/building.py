"""Images a second that data sets are built at: drawn, and read from archives.

    python benchmarks/building.py [--ndsb train.zip] [--count 1500000 [--features]] [--whoi 1000000]

Building decodes every image once, and writes records and index. There is no peer. With `--count` an
archive of so many small images is generated in the layout of ZooScan's first release (1.3 KB each),
with `--whoi` nine in that of WHOI-Plankton's years. They are built on one core in a process of its
own, whose memory is told; a million take several minutes. What is not measured this time stays in
the result as it was.
"""

import argparse
import csv
import gzip
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

import cv2
import numpy as np
from _results import row, versions, with_former_rows, write_results

import data_builders

DRAWN = 10_000
MOST_MEGABYTES = 2000
LEAST_RATE = 5000

# A process of its own, so that its memory and core are its own; prints seconds and megabytes.
_BUILD = """
import os, pathlib, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import data_builders
name, data_dir, source, features = sys.argv[1:]
began = time.perf_counter()
data_builders.prepare(name, data_dir=data_dir, source=source, features=bool(features))
seconds = time.perf_counter() - began
status = pathlib.Path("/proc/self/status").read_text()
peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
print(seconds, int(peak.split()[1]) * 1024 / 1e6)
"""


def generated_images(suffix: str) -> list[bytes]:
    """500 image files of about 60 by 45 pixels."""
    random = np.random.default_rng(0)
    patterns = []
    for _ in range(500):
        height, width = random.integers(30, 90, 2).tolist()
        image = random.normal(235, 3, (height, width)).astype(np.float32)
        axes = (width // 3, height // 4)
        cv2.ellipse(image, (width // 2, height // 2), axes, 30.0, 0, 360, 90.0, -1)
        encoded = cv2.imencode(suffix, np.rint(image.clip(0, 255)).astype(np.uint8))[1]
        patterns.append(encoded.tobytes())
    return patterns


def classes_of(tree: str, count: int) -> list[str]:
    """The class in a tree's table of each of `count` images: a few are common, most are rare."""
    path = pathlib.Path(data_builders.__file__).parent / tree
    with path.open(newline="", encoding="utf-8") as file:
        taxa = [line["taxon"] for line in csv.DictReader(file)]
    drawn = np.random.default_rng(0).geometric(0.05, count) - 1
    return [taxa[number] for number in np.minimum(drawn, len(taxa) - 1).tolist()]


def write_zooscan(path: pathlib.Path, count: int, features: bool) -> None:
    """A tar in ZooScan's layout, each file different, and on request 60 numbers for each."""
    patterns = generated_images(".jpg")
    taxa = classes_of("zooscan/v1.csv", count)

    def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(f"ZooScanSet/{name}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))

    with tarfile.open(path, "w") as archive:
        lines = (f"{i},{taxon},/living" for i, taxon in enumerate(taxa))
        table = "\n".join(("objid,taxon,lineage", *lines, ""))
        add(archive, "taxa.csv.gz", gzip.compress(table.encode(), 1))
        if features:
            names = ",".join(f"feature{k}" for k in range(60))
            random = np.random.default_rng(0)
            numbers = ((random.integers(0, 10**6, 60) / 100).tolist() for _ in range(count))
            lines = (f"{i}," + ",".join(map(str, line)) for i, line in enumerate(numbers))
            table = "\n".join((f"objid,{names}", *lines, ""))
            add(archive, "features_native.csv.gz", gzip.compress(table.encode(), 1))
        for i, taxon in enumerate(taxa):
            # Bytes behind the end of a JPEG file are not looked at.
            data = patterns[i % len(patterns)] + i.to_bytes(4, "little")
            add(archive, f"imgs/{taxon}/{i}.jpg", data)


def write_whoi(folder: pathlib.Path, count: int) -> None:
    """Nine zips in WHOI-Plankton's layout, one for each year, each file different."""
    folder.mkdir()
    patterns = generated_images(".png")
    taxa = classes_of("whoi/tree.csv", count)
    for year in range(2006, 2015):
        with zipfile.ZipFile(folder / f"{year}.zip", "w") as archive:
            for i in range(year - 2006, count, 9):
                # Bytes behind the end of a PNG file are not looked at.
                data = patterns[i % len(patterns)] + i.to_bytes(4, "little")
                name = f"IFCB1_{year}_{i // 5000:03d}_000000_{i:07d}.png"
                archive.writestr(f"{year}/{taxa[i]}/{name}", data)


def build_generated(
    name: str, source: pathlib.Path, count: int, what: str, features: bool = False
) -> list[dict]:
    """The rows of generated archives: rate and memory against what is asked for."""
    command = [sys.executable, "-c", _BUILD, name, source.parent / f"built_{source.name}", source]
    done = subprocess.run(
        [*map(str, command), "features" if features else ""],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds, megabytes = map(float, done.stdout.split())
    what = f"{name} from {what} of {count} generated images{' and 60 features' * features}"
    memory = row(
        f"{what}, peak memory", "MB", round(megabytes), MOST_MEGABYTES, "limit", less_is_better=True
    )
    rate = round(count / seconds)
    return [row(f"{what}, one core", "images/s", rate, LEAST_RATE, "limit"), memory]


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
    parser.add_argument("--count", type=int, default=0, help="images of a generated ZooScan tar")
    parser.add_argument("--features", action="store_true", help="with 60 numbers for each of them")
    parser.add_argument("--whoi", type=int, default=0, help="images of nine generated WHOI zips")
    options = parser.parse_args()
    if options.features and not options.count:
        parser.error("--features needs --count")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _rate(folder / "first", "synthetic_plankton", num_examples=200)  # imports, caches
        drawn = _rate(folder, "synthetic_plankton", num_examples=DRAWN)
        rows = [row("synthetic_plankton, drawn", "images/s", drawn)]
        if options.ndsb:
            read = _rate(folder, "image_folder", source=options.ndsb)
            rows.append(row("image_folder from a zip of JPEG files", "images/s", read))
        if options.count:
            archive = folder / "zooscan.tar"
            write_zooscan(archive, options.count, options.features)
            count, features = options.count, options.features
            rows += build_generated("zooscan/v1", archive, count, "a tar", features)
        if options.whoi:
            write_whoi(folder / "whoi", options.whoi)
            rows += build_generated("whoi", folder / "whoi", options.whoi, "nine zips")
    used = versions(["tensorflow-datasets", "opencv-python-headless"])
    write_results("building", with_former_rows("building", rows), used)


if __name__ == "__main__":
    main()
