"""Labels of images that have none of their own: a csv, or class scores of the IFCB dashboard."""

import csv
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from plankton_jax.errors import UserError

SETTING = "config.data.labels"
SCORE_SUFFIXES = (".h5", ".hdf5")


def read_labels(path: str) -> dict[str, str]:
    """The label of every pid that is given one.

    Raises:
      UserError: nothing there, or nothing that can be read as labels.
    """
    root = pathlib.Path(path)
    if root.is_dir():
        files = sorted(file for file in root.rglob("*") if file.suffix in SCORE_SUFFIXES)
    elif root.is_file():
        files = [root]
    else:
        raise UserError(f"{SETTING} {path}: is not there.")
    labels: dict[str, str] = {}
    for file in files:
        read = _read_scores if file.suffix in SCORE_SUFFIXES else _read_csv
        for pid, label in read(file):
            pid = _padded(pid)
            if labels.setdefault(pid, label) != label:
                raise UserError(
                    f'{SETTING} {file}: gives {pid} the label "{label}"; it has '
                    f'"{labels[pid]}" already. Give every image one label.'
                )
    if not labels:
        raise UserError(
            f"{SETTING} {path}: holds no label. Needed: a csv with the columns pid and label, or "
            "class scores (HDF5)."
        )
    return labels


def _padded(pid: str) -> str:
    """The pid with five digits for the region's number, which some tables write without zeros."""
    sample, _, number = pid.rpartition("_")
    return f"{sample}_{number.zfill(5)}" if number.isdecimal() else pid


def _read_csv(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = {(name or "").strip().casefold(): name for name in rows.fieldnames or ()}
            if not {"pid", "label"} <= set(names):
                raise UserError(
                    f"{SETTING} {path}: has the columns {', '.join(rows.fieldnames or ())}; needed "
                    "are pid and label."
                )
            for row in rows:
                pid, label = ((row[names[name]] or "").strip() for name in ("pid", "label"))
                if pid and label:
                    yield pid.removesuffix(".png"), label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{SETTING} {path}: cannot be read ({error}).") from error


def _read_scores(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """The class of the highest score of every region."""
    import h5py

    try:
        with h5py.File(path) as opened:
            file: Any = opened
            told = dict(file.attrs) | dict(file["metadata"].attrs if "metadata" in file else {})
            names = [_text(name) for name in file["class_labels"][()]]
            numbers = np.asarray(file["roi_numbers"][()])
            scores = np.asarray(file["output_scores"][()])
            if numbers.ndim != 1 or (numbers != np.floor(numbers)).any():
                raise ValueError(f"roi_numbers of shape {numbers.shape} are not whole numbers")
            if not names or not np.issubdtype(scores.dtype, np.number):
                raise ValueError(f"{len(names)} classes and scores of type {scores.dtype}")
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{SETTING} {path}: is no file of class scores ({error}). Needed: class_labels, "
            "roi_numbers and output_scores."
        ) from error
    version = _text(told.get("version", "v3"))
    if version != "v3" or scores.shape != (len(numbers), len(names)):
        raise UserError(
            f"{SETTING} {path}: class scores of version {version}, {scores.shape} for "
            f"{len(numbers)} regions and {len(names)} classes; needed: v3, a row a region."
        )
    sample = _text(told.get("bin_id", path.stem.partition("_class")[0]))
    known = ~np.isnan(scores).any(axis=1)  # a region that was not classified has no label
    for number, column in zip(
        numbers[known].tolist(), scores[known].argmax(axis=1).tolist(), strict=True
    ):
        yield f"{sample}_{int(number):05d}", names[column]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
