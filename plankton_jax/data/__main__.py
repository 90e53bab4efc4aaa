"""What is in a data set: counts, sizes, splits, licence, pictures of every class, leaks.

    python -m plankton_jax.data --dataset zooscan/v1
    python -m plankton_jax.data --dataset image_folder --source images --out page
    python -m plankton_jax.data --dataset image_folder --source images --leaks
    python -m plankton_jax.data --dataset whoi --config.split.method=grouped
    python -m plankton_jax.data --dataset whoi --augmentations --config.data.image_size=128

Builds the data set when it is not there. Settings that training has (`--config.split...`) may be
given. Writes `contact_sheet.png`, `class_counts.png` and `class_counts.csv` into `--out`; with
`--leaks` it looks for images that are nearly the same, counts those in two parts of the split, and
lists all in `near_duplicates.csv` beside the built data set, for `config.split.together`. With
`--augmentations` one image under every operation and recipe is drawn into `augmentations.png`.
"""

import csv
import functools
import pathlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from plankton_jax.command import command_parser, default_config, run_command
from plankton_jax.data.splits import PARTS
from plankton_jax.errors import UserError
from plankton_jax.files import replacing
from plankton_jax.names import UNLABELLED

if TYPE_CHECKING:
    from plankton_jax.data.dataset import Dataset
    from plankton_jax.run_data import Data

EXAMPLES, _LEAVES_NAMED = 10, 8
_PERCENTILES = (0, 5, 50, 95, 100)


def main(arguments: list[str]) -> int:
    """Reads the arguments, opens the data set, prints and draws what is in it."""
    parser = command_parser("plankton_jax.data", __doc__ or "")
    parser.add_argument("--dataset", required=True, help="a name, or the path of a built one")
    parser.add_argument("--source", default="", help="config.data.source")
    parser.add_argument("--data-dir", default="data", help="config.data.data_dir")
    parser.add_argument(
        "--out", type=pathlib.Path, help="folder to write to; default: DATASET_page"
    )
    parser.add_argument("--leaks", action="store_true", help="look for nearly equal images")
    parser.add_argument("--augmentations", action="store_true", help="draw what they do")
    options, overrides = parser.parse_known_args(arguments)
    given = {"dataset": options.dataset, "data_dir": options.data_dir, "source": options.source}
    settings = [f"--config.data.{name}={value}" for name, value in given.items() if value]
    config = default_config([*settings, *overrides])

    from plankton_jax import run_data

    notify = functools.partial(print, file=sys.stderr)
    data = run_data.open_data(config, notify=notify, train=False)
    built = pathlib.Path(options.dataset).expanduser().is_dir()
    shown = data.dataset.name if built else options.dataset
    out = options.out or pathlib.Path(f"{shown.replace('/', '_')}_page")
    counts = {part: data.class_counts(part) for part in PARTS}
    leaf = data.dataset.leaf
    total = np.bincount(leaf[leaf >= 0], minlength=data.taxonomy.num_leaves)
    _print(data, total)
    sizes = ", ".join(f"{part} {len(rows):,}" for part, rows in data.rows.items() if len(rows))
    print(f"split by {config.split.method}, seed {config.split.seed}: {sizes}")
    for warning in run_data.class_warnings(data, config.split):
        print(f"warning: {warning}")
    out.mkdir(parents=True, exist_ok=True)
    table = out / "class_counts.csv"
    run_data.write_class_counts(data, table)
    for path in (table, *_draw(data, counts, total, out)):
        print(f"wrote {path}")
    if options.augmentations:
        print(f"wrote {_draw_augmentations(data, config, out)}")
    if options.leaks:
        _leaks(data, config)
    return 0


def _print(data: "Data", total: np.ndarray) -> None:
    """Name, licence, counts by level, imbalance and sizes."""
    dataset, tree = data.dataset, data.taxonomy
    metadata = dataset.metadata
    print(f"{dataset.name}: {len(dataset):,} images in {dataset.directory}")
    print(f"licence: {metadata['licence']}")
    left_out = ", ".join(f"{count} {reason}" for reason, count in metadata["rejected"].items())
    print(f"left out: {left_out or 'nothing'}; copies of others: {metadata['duplicates']}")
    for level, name in enumerate(tree.level_names):
        nodes = np.bincount(tree.ancestors[level], weights=total)
        order = np.argsort(-nodes, kind="stable")
        if level == len(tree.level_names) - 1:  # of all leaves the table tells
            order = order[:_LEAVES_NAMED]
        most = ", ".join(f"{tree.node_names[level][n]} {int(nodes[n]):,}" for n in order)
        print(f"{name}: {len(nodes)} classes: {most}{', ...' * (len(order) < len(nodes))}")
    present = total[total > 0]
    if len(present):
        print(
            f"imbalance: {present.max() / present.min():,.0f} (largest class over smallest); "
            f"{int((total == 0).sum())} classes without an image"
        )
    else:
        print("no image has a label")
    for name, values in (("height", dataset.height), ("width", dataset.width),
                         ("bytes", dataset.byte_sizes)):  # fmt: skip
        shown = " ".join(f"{value:,.0f}" for value in np.percentile(values, _PERCENTILES))
        print(f"{name}, percentiles {' '.join(map(str, _PERCENTILES))}: {shown}")


def _draw(
    data: "Data", counts: dict[str, np.ndarray], total: np.ndarray, out: pathlib.Path
) -> tuple[pathlib.Path, ...]:
    """The figures."""
    from plankton_jax.analysis import dataset_figures

    dataset, tree = data.dataset, data.taxonomy
    order = sorted(range(tree.num_leaves), key=lambda leaf: (tree.path(leaf)[:-1], -total[leaf]))
    classes = [
        ("".join(tree.path(leaf)[-2:-1]), tree.leaf_names[leaf], int(total[leaf]),
         _examples(dataset, leaf))
        for leaf in order
        if total.any()
    ]  # fmt: skip
    if unlabelled := len(data.rows[UNLABELLED]):
        classes.append(("", UNLABELLED, unlabelled, _examples(dataset, -1)))
    sheet, bars = out / "contact_sheet.png", out / "class_counts.png"
    dataset_figures.contact_sheet(classes, sheet, EXAMPLES)
    dataset_figures.class_count_figure(tree.leaf_names, counts, bars)
    return sheet, bars


def _examples(dataset: "Dataset", leaf: int) -> list[np.ndarray]:
    """Some images of a class, or with -1 of those without a label: by the hash of their ids, so
    always the same."""
    from plankton_jax.data.geometry import decode_grey

    rows = np.flatnonzero(dataset.leaf == leaf)
    rows = rows[np.argsort(dataset.hashes[rows], kind="stable")][:EXAMPLES]
    return [decode_grey(file) for file in dataset.read_images(rows)] if len(rows) else []


# Amounts that the figure shows, least to most; what they mean is in `operations.apply_operation`.
_SHOWN: dict[str, tuple[float, ...]] = {
    "ShearX": (-0.3, -0.08, 0.08, 0.3, 0.99),
    "ShearY": (-0.3, -0.08, 0.08, 0.3, 0.99),
    "TranslateX": (-0.45, -0.12, 0.12, 0.32, 0.45),
    "TranslateY": (-0.45, -0.12, 0.12, 0.32, 0.45),
    "Rotate": (-30, -8, 8, 30, 135),
    "Brightness": (-0.9, -0.24, 0.24, 0.9, 0.99),
    "Contrast": (-0.9, -0.24, 0.24, 0.9, 0.99),
    "Sharpness": (-0.9, -0.24, 0.24, 0.9, 0.99),
    "Posterize": (7, 6, 5, 4, 2),
    "Solarize": (255, 187, 128, 64, 0),
    "AutoContrast": (0,),
    "Equalize": (0,),
    "Invert": (0,),
    "Blur": (0.5, 1, 2, 4, 8),
    "Noise": (0.02, 0.05, 0.1, 0.2, 0.4),
    "Cutout": (0.1, 0.2, 0.3, 0.5, 0.7),
}


def _draw_augmentations(data: "Data", config: Any, out: pathlib.Path) -> pathlib.Path:
    """One image under every operation and recipe, as the loader makes them."""
    from plankton_jax.analysis.dataset_figures import operations_figure
    from plankton_jax.config import AugmentationConfig
    from plankton_jax.data.draws import draw_augmentations, no_draws
    from plankton_jax.data.geometry import (
        border_medians,
        decode_grey,
        render,
        without_bottom,
    )
    from plankton_jax.data.operations import apply_operation

    dataset, size = data.dataset, config.data.image_size
    areas = dataset.height.astype(np.int64) * dataset.width
    row = np.argsort(areas, kind="stable")[3 * len(areas) // 4]
    (file,) = dataset.read_images(np.array([row]))
    image = without_bottom(decode_grey(file), config.data.crop_bottom_px)

    def rendered(draws: Any, count: int) -> list[np.ndarray]:
        squares = np.empty((count, size, size), np.uint8)
        render([image] * count, size, draws, list(squares), config.data.geometry)
        return list(squares)

    plain = rendered(no_draws(1), 1)[0]
    fill, bits = int(border_medians([image])[0]), int(dataset.hashes[row])
    name = dataset.taxonomy.leaf_names[dataset.leaf[row]] if dataset.leaf[row] >= 0 else ""
    lines = [("as it is", [(name, plain)])]
    for name, amounts in _SHOWN.items():
        pixels = size if name.startswith("Translate") else 1
        changed = [apply_operation(plain, name, a * pixels, bits, fill) for a in amounts]
        captions = [f"{amount:g}" if len(amounts) > 1 else "" for amount in amounts]
        lines.append((name, list(zip(captions, changed, strict=True))))
    recipes = {"this config": config.augmentation, "manual": AugmentationConfig()}
    for policy in ("randaugment", "autoaugment", "trivialaugment"):
        recipes[policy] = AugmentationConfig(manual=False, policy=policy)
    for name, recipe in recipes.items():
        draws = draw_augmentations(recipe, config.seed, np.arange(6), size)
        lines.append((name, [("", square) for square in rendered(draws, 6)]))
    path = out / "augmentations.png"
    operations_figure(lines, path)
    return path


def _told_every(seconds: float) -> Callable[[str, int, int], None]:
    """Tells on standard error how far the look for leaks is."""
    told = time.monotonic()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= seconds:
            told = time.monotonic()
            print(f"leaks: {done:,} of {total:,} {what} looked at", file=sys.stderr)

    return progress


def _leaks(data: "Data", config: Any) -> None:
    """Counts nearly equal images and those in two parts, and lists all of them."""
    from plankton_jax.data.leaks import find_near_duplicates

    dataset = data.dataset
    found = find_near_duplicates(dataset, config.data.threads, _told_every(10))
    parts = np.full(len(dataset), -1)
    for number, part in enumerate(PARTS):
        parts[data.rows[part]] = number
    ids = dataset.ids(found.pairs.reshape(-1))
    pairs = list(zip(ids[::2], ids[1::2], strict=True))
    path = dataset.directory / "near_duplicates.csv"
    try:
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f)
            writer.writerow(("id", "near", "identical"))
            for pair, same in zip(pairs, found.identical, strict=True):
                writer.writerow((*pair, int(same)))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}).") from error
    across = found.across(parts)
    other = len(found.across(dataset.leaf))
    print(
        f"nearly equal: {len(pairs)} pairs of images, {int(found.identical.sum())} of them equal "
        f"at every pixel, {other} with two labels; {len(across)} lie in two parts of the split"
    )
    for number in across[:5].tolist():
        first, second = (PARTS[parts[row]] for row in found.pairs[number])
        print(f"  {pairs[number][0]} ({first}) and {pairs[number][1]} ({second})")
    if len(across):
        print("--config.split.together=near_duplicates puts them in one part")
    print(f"wrote {path}")


if __name__ == "__main__":
    run_command(main)
