"""Images a second from the loader, against torchvision's `ImageFolder` and `DataLoader`.

Flips, rotation by 0..180 degrees and resize to 224 pixels of the NDSB training images, as batches
that are ready for the device; on one core and on two. The sides take turns, each in a process of
its own that waits while the other is measured.

    python benchmarks/loader.py --ndsb train.zip [--peer-python PYTHON_WITH_TORCHVISION]

About five minutes on two cores. Needs the folder or zip of labelled NDSB images; writes
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

from _results import row, write_results
from _side import Side

import data_builders

SIZE = 224


def compare(
    sides: dict[str, tuple[str, pathlib.Path, int]], batch_size: int, cores: int, repeats: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Rates of both sides in `repeats` turns, and the versions of what ran."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    with contextlib.ExitStack() as stack:
        running = {}
        for name, (python, path, count) in sides.items():
            running[name] = Side(
                python,
                "_loader_sides.py",
                [name, path, batch_size, SIZE, cores, count],
                cores=allowed,
                environment={"OMP_NUM_THREADS": "1"},
            )
            stack.callback(running[name].close)
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(repeats):
            for name, side in running.items():
                rates[name].append(side.measure())
            shown = ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items())
            print(f"{cores} core(s), turn {turn + 1}: {shown} images/s", flush=True)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ndsb", type=pathlib.Path, required=True, help="class folders, or a zip")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of torchvision")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    rows, used = [], {}
    with both_forms(options.ndsb) as (built, folder):
        # Passes of about two seconds on either side.
        sides = {
            "ours": (sys.executable, built, 100),
            "torchvision": (options.peer_python, folder, 12),
        }
        for cores in range(1, min(2, len(os.sched_getaffinity(0))) + 1):
            rates, used = compare(sides, options.batch_size, cores, options.repeats)
            ours, peer = (statistics.median(rates[name]) for name in ("ours", "torchvision"))
            ratios = [a / b for a, b in zip(rates["ours"], rates["torchvision"], strict=True)]
            name = f"training batches at {SIZE} pixels, {cores} core{'s' if cores > 1 else ''}"
            result = row(name, "images/s", ours, peer, "torchvision ImageFolder + DataLoader")
            rows.append(result | {"ratio": round(statistics.median(ratios), 3), "turns": rates})
    notes = {"repeats": options.repeats, "batch_size": options.batch_size}
    write_results("loader", rows, used, notes=notes)


if __name__ == "__main__":
    main()
