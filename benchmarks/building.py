"""Images a second that data sets are built at: drawn, and read from an archive where one is given.

    python benchmarks/building.py [--ndsb train.zip]

Building decodes every image once, and writes records and index. There is no peer.
"""

import argparse
import json
import pathlib
import tempfile
import time

from _results import row, versions, write_results

import data_builders

DRAWN = 10_000


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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _rate(folder / "first", "synthetic_plankton", num_examples=200)  # imports, caches
        drawn = _rate(folder, "synthetic_plankton", num_examples=DRAWN)
        rows = [row("synthetic_plankton, drawn", "images/s", drawn)]
        if options.ndsb:
            read = _rate(folder, "image_folder", source=options.ndsb)
            rows.append(row("image_folder from a zip of JPEG files", "images/s", read))
    for line in rows:
        print(f"{line['name']}: {line['ours']:.0f} {line['unit']}")
    write_results("building", rows, versions(["tensorflow-datasets", "opencv-python-headless"]))


if __name__ == "__main__":
    main()
