"""Bins of an Imaging FlowCytobot as a data set; see README.md beside this file.

Reads the bins and the labels; writes nothing but what its base class writes.
"""

import collections
import functools
import pathlib
from collections.abc import Iterator

import cv2

from data_builders._entries import SETTING
from data_builders._files_builder import directory_name
from data_builders.base import PlanktonBuilder, Record, Rejected
from data_builders.ifcb import _bins
from data_builders.ifcb._labels import SETTING as LABELS_SETTING
from data_builders.ifcb._labels import read_labels
from plankton_jax.errors import UserError, near_miss, raise_all
from plankton_jax.names import UNLABELLED
from plankton_jax.taxonomy import Taxonomy, normalised_name

PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)


class Builder(PlanktonBuilder):
    """Regions of interest of any number of bins, labelled or not."""

    licence = "that of the bins' owner"
    _expected: int | None = None
    accepts = frozenset({"source", "labels", "taxonomy_csv"})
    allows_unlabelled = True

    def directory_name(self) -> str:
        """Differs with the bins' names, sizes and dates, the labels and the tree."""
        stamps = []
        for found in self._bins:
            if isinstance(found, _bins.Bin):
                for suffix in (".adc", ".roi"):
                    status = found.stem.with_suffix(suffix).stat()
                    stamps.append(f"{found.name}{suffix} {status.st_size} {status.st_mtime_ns}")
        marks = [repr(sorted(self._labels.items())), repr(self.taxonomy().to_json())]
        return directory_name(self.options.source or "", *stamps, *marks)

    def taxonomy(self) -> Taxonomy:
        return self._taxonomy

    def num_records(self) -> int | None:
        """Those of the bins that were read, and in proportion to their .adc files of the rest."""
        return self._expected

    def check_sources(self) -> None:
        """Looks for the image of every label.

        Raises:
          UserError: no label has an image.
        """
        samples = {pid.rpartition("_")[0] for pid in self._labels}
        there = {
            _pid(found, region)
            for found in self._bins
            if isinstance(found, _bins.Bin) and found.name in samples
            for region in _bins.read_regions(found)
            if not region.problem
        }
        unused = [pid for pid in self._labels if pid not in there]
        if not unused:
            return
        where = f"an image in {SETTING} {self.options.source}"
        named = f"{', '.join(unused[:3])}{' ...' if len(unused) > 3 else ''}"
        if len(unused) == len(self._labels):
            raise UserError(
                f"{LABELS_SETTING} {self.options.labels}: none of its {len(unused)} labels is of "
                f"{where}. Found: {named}; needed are pids such as IFCB5_2012_028_081515_00001, a "
                "bin's name and the number of a line of its .adc file."
            )
        self.notify(
            f"{LABELS_SETTING} {self.options.labels}: {len(unused)} of {len(self._labels)} labels "
            f"are not of {where}: {named}."
        )

    def items(self, start: int) -> Iterator[Record | Rejected]:
        images, opened = 0, 0
        total = sum(_size(found) for found in self._bins)
        for found in self._bins:
            if not isinstance(found, _bins.Bin):
                if start == 0:
                    yield Rejected(*found)
                start = max(start - 1, 0)
                continue
            regions = _bins.read_regions(found)
            images, opened = images + len(regions), opened + _size(found)
            self._expected = round(images * total / max(opened, 1))
            if start < len(regions):
                roi = found.stem.with_suffix(".roi").read_bytes()
                for region in regions[start:]:
                    yield self._record(found, roi, region)
            start = max(start - len(regions), 0)

    def _record(self, sample: _bins.Bin, roi: bytes, region: _bins.Region) -> Record | Rejected:
        pid = _pid(sample, region)
        if region.problem:
            return Rejected(pid, region.problem)
        pixels = _bins.read_pixels(roi, region)
        encoded = cv2.imencode(".png", pixels, PNG_OPTIONS)[1].tobytes()
        leaf = self._leaves.get(normalised_name(self._labels.get(pid, "")), -1)
        return Record(pid, leaf, encoded, *pixels.shape, group=sample.name)

    @functools.cached_property
    def _bins(self) -> list[_bins.Bin | tuple[str, str]]:
        if not self.options.source:
            raise UserError(f"{SETTING}: not set. Set it to a folder with bins (.hdr, .adc, .roi).")
        root = pathlib.Path(self.options.source)
        if not root.is_dir():
            raise UserError(f"{SETTING} {root}: is not a folder. Needed: one with bins.")
        found = list(_bins.find_bins(root))
        bins = [each for each in found if isinstance(each, _bins.Bin)]
        if not bins:
            raise UserError(
                f"{SETTING} {root}: holds no whole bin, which is three files, .hdr, .adc and .roi."
            )
        names = collections.Counter(each.name for each in bins)
        twice = sorted(name for name, count in names.items() if count > 1)
        raise_all([f"{SETTING} {root}: bin {name} is there twice. Keep one." for name in twice])
        return found

    @functools.cached_property
    def _labels(self) -> dict[str, str]:
        return read_labels(self.options.labels) if self.options.labels else {}

    @functools.cached_property
    def _taxonomy(self) -> Taxonomy:
        """The given tree, the labels side by side, or one class that no image is of."""
        labels = sorted(set(self._labels.values()))
        path = self.options.taxonomy_csv
        setting = LABELS_SETTING if path is None else "config.data.taxonomy_csv"
        try:
            if path is None:
                return Taxonomy.flat(labels or [UNLABELLED])
            given = Taxonomy.from_csv(path)
        except UserError as error:
            raise UserError(*(f"{setting}: {problem}" for problem in error.problems)) from error
        known = {normalised_name(name) for name in given.leaf_names}
        raise_all(
            [
                f'{LABELS_SETTING}: "{label}" is not in config.data.taxonomy_csv. '
                f"{near_miss(label, given.leaf_names)}"
                for label in labels
                if normalised_name(label) not in known
            ]
        )
        return given

    @functools.cached_property
    def _leaves(self) -> dict[str, int]:
        return {normalised_name(name): i for i, name in enumerate(self._taxonomy.leaf_names)}


def _pid(sample: _bins.Bin, region: _bins.Region) -> str:
    return f"{sample.name}_{region.number:05d}"


def _size(found: _bins.Bin | tuple[str, str]) -> int:
    """Bytes of a bin's .adc file, to which the number of its regions is about in proportion."""
    return found.stem.with_suffix(".adc").stat().st_size if isinstance(found, _bins.Bin) else 0
