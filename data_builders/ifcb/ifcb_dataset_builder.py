"""Bins of an Imaging FlowCytobot as a data set; see README.md beside this file.

Reads the bins and the labels; writes nothing but what its base class writes.
"""

import functools
import pathlib
from collections.abc import Iterator

import cv2

from data_builders._files_builder import directory_name
from data_builders._sources import SETTING
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

    def items(self, start: int) -> Iterator[Record | Rejected]:
        for found in self._bins:
            if not isinstance(found, _bins.Bin):
                if start == 0:
                    yield Rejected(*found)
                start = max(start - 1, 0)
                continue
            regions = _bins.read_regions(found)
            if start < len(regions):
                roi = found.stem.with_suffix(".roi").read_bytes()
                for region in regions[start:]:
                    yield self._record(found, roi, region)
            start = max(start - len(regions), 0)

    def _record(self, sample: _bins.Bin, roi: bytes, region: _bins.Region) -> Record | Rejected:
        pid = f"{sample.name}_{region.number:05d}"
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
        names = [each.name for each in bins]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise_all([f"{SETTING} {root}: bin {name} is there twice. Keep one." for name in twice])
        return found

    @functools.cached_property
    def _labels(self) -> dict[str, str]:
        return read_labels(self.options.labels) if self.options.labels else {}

    @functools.cached_property
    def _taxonomy(self) -> Taxonomy:
        """The given tree, the labels side by side, or one class that no image is of."""
        labels = sorted(set(self._labels.values()))
        if self.options.taxonomy_csv is None:
            return Taxonomy.flat(labels or [UNLABELLED])
        given = Taxonomy.from_csv(self.options.taxonomy_csv)
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
