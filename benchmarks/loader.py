"""Images a second from the loader, against torchvision's `ImageFolder` and `DataLoader`.

Batches of 224 pixels that are ready for the device, on one core and on two: of the NDSB training
images with flips and rotation by 0..180 degrees, of the same with RandAugment (four operations of
magnitude 8), and with flips and rotation of generated JPEG files as large as ZooScan's (sides about
150 pixels, up to 1,500). The sides take turns, each in a process of its own that waits while the
other is measured.

    python benchmarks/loader.py --ndsb train.zip [--peer-python PYTHON_WITH_TORCHVISION]

About twelve minutes on two cores. Needs the folder or zip of labelled NDSB images; writes
`benchmarks/results/loader.<device>.json` and, while it runs, a temporary folder.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from _results import row, write_results
from _side import Side

import data_builders

SIZE = 224


def compare(
    sides: dict[str, tuple[str, pathlib.Path, int]],
    recipe: str,
    batch_size: int,
    cores: int,
    repeats: int,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Rates of both sides in `repeats` turns, and the versions of what ran."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    with contextlib.ExitStack() as stack:
        running = {}
        for name, (python, path, count) in sides.items():
            running[name] = Side(
                python,
                "_loader_sides.py",
                [name, path, recipe, batch_size, SIZE, cores, count],
                cores=allowed,
                environment={"OMP_NUM_THREADS": "1"},
            )
            stack.callback(running[name].close)
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(repeats):
            for name, side in running.items():
                rates[name].append(side.measure())
            shown = ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items())
            print(f"{recipe}, {cores} core(s), turn {turn + 1}: {shown} images/s", flush=True)
        used = {package: v for side in running.values() for package, v in side.ready.items()}
    return rates, used


@contextlib.contextmanager
def both_forms(images: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """The images as a built data set and as a folder of classes."""
    with tempfile.TemporaryDirectory(prefix="loader-benchmark-") as temporary:
        built = data_builders.prepare("image_folder", data_dir=temporary, source=images)
        folder = images
        if images.is_file():
            zipfile.ZipFile(images).extractall(pathlib.Path(temporary, "images"))
            (folder,) = pathlib.Path(temporary, "images").iterdir()
        yield built, folder


def write_large_images(folder: pathlib.Path, count: int = 2500) -> None:
    """JPEG files in two classes: a dark textured body on a bright, slightly noisy ground, sides
    log-normal about 150 pixels with a tail to 1,500."""
    random = np.random.default_rng(0)
    for number in range(count):
        sides = np.exp(random.normal(np.log(150), 0.55, 2))
        height, width = sides.clip(30, 1500).astype(int).tolist()
        image = random.normal(240, 3, (height, width)).astype(np.float32)
        body = np.zeros_like(image)
        centre, axes = (width // 2, height // 2), (max(width // 3, 1), max(height // 4, 1))
        cv2.ellipse(body, centre, axes, float(random.uniform(0, 180)), 0, 360, 1.0, -1)
        texture = cv2.GaussianBlur(random.normal(0, 60, image.shape).astype(np.float32), (0, 0), 3)
        image = image * (1 - body) + body * (120 + 4 * texture)
        path = folder / f"class_{number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        cv2.imwrite(str(path), np.rint(image.clip(0, 255)).astype(np.uint8), quality)


def result(what: str, cores: int, rates: dict[str, list[float]]) -> dict[str, Any]:
    """The row of one comparison: medians of the rates and of their ratios turn by turn."""
    ours, peer = (statistics.median(rates[name]) for name in ("ours", "torchvision"))
    ratios = [a / b for a, b in zip(rates["ours"], rates["torchvision"], strict=True)]
    name = f"{what}, {SIZE} pixels, {cores} core{'s' if cores > 1 else ''}"
    line = row(name, "images/s", ours, peer, "torchvision ImageFolder + DataLoader")
    return line | {"ratio": round(statistics.median(ratios), 3), "turns": rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ndsb", type=pathlib.Path, required=True, help="class folders, or a zip")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of torchvision")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    rows, used = [], {}
    with tempfile.TemporaryDirectory(prefix="loader-images-") as generated:
        large = pathlib.Path(generated, "large")
        write_large_images(large)
        # Passes of about two seconds on either side.
        for what, images, recipe, batches in (
            ("NDSB, flips and rotation", options.ndsb, "manual", (100, 12)),
            ("NDSB, RandAugment", options.ndsb, "randaugment", (60, 10)),
            ("ZooScan-size, flips and rotation", large, "manual", (60, 8)),
        ):
            with both_forms(images) as (built, folder):
                sides = {
                    "ours": (sys.executable, built, batches[0]),
                    "torchvision": (options.peer_python, folder, batches[1]),
                }
                for cores in range(1, min(2, len(os.sched_getaffinity(0))) + 1):
                    rates, used = compare(sides, recipe, options.batch_size, cores, options.repeats)
                    rows.append(result(what, cores, rates))
    notes = {"repeats": options.repeats, "batch_size": options.batch_size}
    write_results("loader", rows, used, notes=notes)


if __name__ == "__main__":
    main()
