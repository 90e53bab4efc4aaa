"""Opens the data of a run from its configuration: data set, split, sampler, geometry.

Builds the data set when it is not there yet; otherwise only reads. Commands and tests go through
here, so that one configuration means one thing.
"""

import csv
import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import data_builders
from plankton_jax.config import FEATURE, Config, SplitConfig
from plankton_jax.data import dataset as datasets
from plankton_jax.data import sampling, splits
from plankton_jax.data.geometry import Geometry
from plankton_jax.data.splits import PARTS
from plankton_jax.errors import UserError, near_miss, raise_all
from plankton_jax.files import replacing
from plankton_jax.names import UNLABELLED
from plankton_jax.taxonomy import Taxonomy
from plankton_jax.tracking import duration


@dataclasses.dataclass(frozen=True)
class Data:
    """An opened data set and which of its rows belong to which part.

    Attributes:
      dataset: the whole.
      rows: those of every part, and the unlabelled ones.
      weights: of the training rows, float64, where they are given.
    """

    dataset: datasets.Dataset
    rows: dict[str, np.ndarray]
    weights: np.ndarray | None = None

    @property
    def taxonomy(self) -> Taxonomy:
        """The tree of classes."""
        return self.dataset.taxonomy

    def class_counts(self, part: str) -> np.ndarray:
        """Images of each class in one part, int64 `leaves`."""
        return splits.class_counts(self.dataset.leaf, self.rows[part], self.taxonomy.num_leaves)

    def description(self) -> dict[str, Any]:
        """Plain values that tell this data from any other, for the run directory."""
        metadata = self.dataset.metadata
        # Tables beside the data decide too: near duplicates, weights of examples.
        chosen = hashlib.sha256()
        for part in PARTS:
            chosen.update(part.encode() + self.rows[part].astype("<i8").tobytes())
        if self.weights is not None:
            chosen.update(self.weights.astype("<f8").tobytes())
        return {
            "name": metadata["name"],
            "fingerprint": metadata["fingerprint"],
            "licence": metadata["licence"],
            "num_examples": len(self.dataset),
            "mean": metadata["mean"],
            "std": metadata["std"],
            "parts": {part: len(self.rows[part]) for part in PARTS},
            "rows_sha256": chosen.hexdigest(),
        }


def open_data(
    config: Config,
    notify: Callable[[str], None] | None = None,
    noted: dict[str, Any] | None = None,
    train: bool = True,
) -> Data:
    """Builds the configured data set if need be, opens it and splits it.

    Args:
      notify: called with sentences for the user.
      noted: what a run wrote down of its data; its built data set is opened if it is still there,
        and the source is not looked at.
      train: whether there has to be an image to train on.

    Raises:
      UserError: no such data set, unusable images, an empty training part, a level that a
        monitored metric names and the tree does not have.
    """
    settings = config.data
    notify = notify or (lambda text: None)
    directory = (_noted_directory(noted) if noted else None) or data_builders.prepare(
        settings.dataset,
        data_dir=pathlib.Path(settings.data_dir),
        source=settings.source or None,
        taxonomy_csv=settings.taxonomy_csv or None,
        num_examples=settings.num_examples or None,
        seed=settings.seed,
        features=settings.features,
        statuses=settings.statuses,
        labels=settings.labels or None,
        beam=settings.beam,
        progress=_progress(settings.dataset, notify),
        notify=notify,
    )
    dataset = datasets.open_dataset(directory)
    rows = _split(config, dataset)
    if train and len(rows[UNLABELLED]) == len(dataset):
        raise UserError(
            f"config.data.labels: none of the {len(dataset)} images of {settings.dataset} has a "
            "label, so there is nothing to train on. Give labels, or another data set. "
            f"python -m plankton_jax.data --dataset {directory} shows the images."
        )
    if train and not len(rows["train"]):
        raise UserError(
            f"config.split: no image of {len(dataset)} falls to train; allowed: at least one. "
            "Give train a larger share or use more images."
        )
    _check_levels(config, dataset.taxonomy)
    _check_features(config, dataset)
    weights = _example_weights(config, dataset)[rows["train"]] if config.sampling.weights else None
    return Data(dataset, rows, weights)


def _split(config: Config, dataset: datasets.Dataset) -> dict[str, np.ndarray]:
    """The rows of every part, and those without a label as one of their own."""
    official = config.split.method == "official"
    labelled = np.flatnonzero(dataset.leaf >= 0)
    whole = len(labelled) == len(dataset)
    chosen = slice(None) if whole else labelled
    grouped = config.split.method == "grouped"
    groups = dataset.group_hashes(config.split.group_depth) if grouped else None
    hashes = dataset.hashes
    if config.split.together:
        pairs = dataset.rows_of_pairs(config.split.together)
        if groups is not None:
            groups = splits.joined(groups, pairs)
        else:
            hashes = splits.joined(hashes, pairs)
    rows = splits.split_rows(
        hashes[chosen],
        dataset.leaf[chosen],
        fractions=config.split.fractions,
        seed=config.split.seed,
        method=config.split.method,
        official=dataset.official_parts()[chosen] if official else None,
        groups=None if groups is None else groups[chosen],
    )
    if config.sampling.class_cap:
        train = rows["train"]
        kept = sampling.capped(
            dataset.hashes[chosen][train], dataset.leaf[chosen][train], config.sampling.class_cap
        )
        rows["train"] = train[kept]
    if not whole:
        rows = {part: labelled[found] for part, found in rows.items()}
    return rows | {UNLABELLED: np.flatnonzero(dataset.leaf < 0)}


def _noted_directory(noted: dict[str, Any]) -> pathlib.Path | None:
    """The built data set of a run, where it still is what the run says; None otherwise."""
    directory = pathlib.Path(noted.get("directory") or "")
    try:
        same = datasets.open_dataset(directory).fingerprint == noted.get("fingerprint")
    except UserError:
        return None
    return directory if same else None


def _progress(name: str, notify: Callable[[str], None]) -> Callable[[int, int | None], None]:
    """Tells how far the building of a data set is, every ten seconds."""
    told = began = time.monotonic()
    first: int | None = None  # images that were there when this build went on

    def progress(done: int, total: int | None) -> None:
        nonlocal told, first
        first, now = done if first is None else first, time.monotonic()
        if now - told < 10:
            return
        told = now
        rate = (done - first) / (now - began)
        text = f"{name}: {done} images read"
        if total and total > done and rate:
            text += f" of about {total}, {duration((total - done) / rate)} left"
        notify(text + f" ({rate:.0f} a second)")

    return progress


def _check_levels(config: Config, taxonomy: Taxonomy) -> None:
    """Refuses monitored metrics of a level that the tree does not have."""
    problems = []
    for name, value in (
        ("checkpoint.monitor", config.checkpoint.monitor),
        ("optim.plateau_monitor", config.optim.plateau_monitor),
    ):
        level = value.rpartition("/")[0]
        if level and level not in taxonomy.level_names:
            problems.append(
                f'config.{name}: the tree has no level "{level}". '
                f"{near_miss(level, taxonomy.level_names)}"
            )
    raise_all(problems)


def _check_features(config: Config, dataset: datasets.Dataset) -> None:
    """Refuses measurements that the data set does not have."""
    wanted = [n.removeprefix(FEATURE) for n in config.data.measurements if n.startswith(FEATURE)]
    raise_all(
        [
            f'config.data.measurements: the data set has no feature "{name}". '
            + (
                near_miss(name, dataset.features)
                if dataset.features
                else "It has none; some have with config.data.features=true."
            )
            for name in wanted
            if name not in dataset.features
        ]
    )


def class_warnings(data: Data, split: SplitConfig) -> list[str]:
    """A sentence for every part of the split that lacks classes, or images altogether where there
    should be some. Classes that are nowhere are told of the training part alone."""
    counts = {part: data.class_counts(part) for part in PARTS}
    anywhere = np.sum([*counts.values()], axis=0) > 0
    found = [
        f"no image is in {part}, of which config.split.fractions asks for {share:g}: with method="
        f"{split.method} "
        + (
            "the data set's own split decides"
            if split.method == "official"
            else "config.split.seed decides, and among few groups config.split.group_depth"
        )
        for part, share in zip(PARTS, split.fractions, strict=True)
        if share > 0 and not len(data.rows[part]) and anywhere.any()
    ]
    for part, consequence in (
        ("train", " and cannot be learned"),
        ("validation", ""),
        ("test", " and are not tested"),
    ):
        missing = (counts[part] == 0) & (anywhere | (part == "train"))
        names = [data.taxonomy.leaf_names[leaf] for leaf in np.flatnonzero(missing)]
        if names and len(data.rows[part]):
            listed = ", ".join(names)
            found.append(f"{len(names)} classes have no image in {part}{consequence}: {listed}")
    return found


def write_class_counts(data: Data, path: pathlib.Path) -> None:
    """Writes a table of the images of every class in every part of the split: the names of all
    levels, then one column for each part."""
    tree, counts = data.taxonomy, [data.class_counts(part) for part in PARTS]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*tree.level_names, *PARTS])
        for leaf in range(tree.num_leaves):
            writer.writerow([*tree.path(leaf), *(int(part[leaf]) for part in counts)])


def geometry(config: Config) -> Geometry:
    """How the configured images are framed."""
    settings = config.data
    return Geometry(settings.geometry, settings.crop_bottom_px, settings.pixel_size_um)


def make_sampler(config: Config, data: Data) -> Callable[[np.ndarray], np.ndarray]:
    """The configured order of training images: positions to rows."""
    settings = config.sampling
    classes = (data.rows["train"], data.dataset.leaf, data.taxonomy.num_leaves, config.seed)
    if settings.name == "repeat_factor":
        return sampling.RepeatFactorSampler(*classes, threshold=settings.threshold)
    if settings.name == "weighted":
        return sampling.WeightedSampler(*classes, power=settings.power, weights=data.weights)
    return sampling.UniformSampler(data.rows["train"], config.seed)


def _example_weights(config: Config, dataset: datasets.Dataset) -> np.ndarray:
    """The weights of all images from the configured table, float64."""
    path = pathlib.Path(config.sampling.weights)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        named = {row["id"]: float(row["weight"]) for row in rows}
        if len(named) < max(len(rows), 1):
            raise ValueError("an id is there twice" if rows else "it has no rows")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"config.sampling.weights {path}: cannot be read as a csv with the columns id and "
            f"weight ({type(error).__name__}: {error})."
        ) from error
    found = dataset.rows_of(list(named))
    unknown = [name for name, row in zip(named, found.tolist(), strict=True) if row < 0]
    wrong = [name for name, weight in named.items() if not 0 <= weight < float("inf")]
    if unknown or wrong:
        raise UserError(
            f"config.sampling.weights {path}: {len(unknown)} ids are not in the data set "
            f"({', '.join(unknown[:3])}); {len(wrong)} weights are negative or no numbers "
            f"({', '.join(wrong[:3])})."
        )
    weights = np.ones(len(dataset))
    weights[found] = list(named.values())
    return weights
