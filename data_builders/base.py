"""The TFDS builder that all data sets here derive from.

It builds one TFDS split in ArrayRecord shards, read as `as_data_source("all")`, streaming and in
the order in which `items()` gives them, and beside the shards an index, so that a data set is
opened without reading a record. Everything is written in TFDS's temporary directory, which gets
its name when all is there: a build that fails or is killed leaves nothing that passes for a data
set. TensorFlow is not imported. Touches the data directory alone.

TFDS's own `GeneratorBasedBuilder` is not used: it keeps up to 1 GB of records in memory, sorts what
is beyond that in files with the help of TensorFlow, and takes 135 microseconds to encode a record.
"""

import abc
import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder
from tensorflow_datasets.core import splits as tfds_splits

from data_builders import _index, _ranges
from data_builders._options import Options
from data_builders._shards import Record, deserialise, read_rows
from data_builders._staging import Rejected, Staging
from plankton_jax.errors import UserError, near_miss
from plankton_jax.taxonomy import Taxonomy

__all__ = ["Options", "PlanktonBuilder", "Record", "Rejected", "is_built"]

# TFDS reads the union of all splits as "all"; a split that is itself called so recurses for ever.
SPLIT = "images"
PROGRESS_EVERY = 64
UNFINISHED = "unfinished"
"""Beside the data set's own folder: what a build that was stopped has done; see `_staging`."""

Progress = Callable[[int, int | None], None]
"""Called with the number of images done and, when known, of all images."""


class _Info(tfds.core.DatasetInfo):
    """Dataset information that is never asked for in TFDS's bucket, where nothing of ours lies."""

    def initialize_from_bucket(self) -> None:
        """Does nothing; TFDS's own leaves an empty temporary directory on every call."""


class PlanktonBuilder(dataset_builder.FileReaderBuilder, skip_registration=True):
    """Base of the data sets: a subclass gives a taxonomy and records.

    The description is the `README.md` beside the builder, the citation its `CITATIONS.bib`.

    Attributes:
      licence: of the images; an SPDX name where there is one.
      accepts: the fields of `Options` that mean something to this data set.
      options: what this data set is built from.
      progress: called now and then while a data set is built.
      variants: that there are of the data set; the first is taken where none is named.
      notify: called with sentences for the user.
      download_dir: where archives are fetched to.
      keep_sources: whether sources stay open from one call of `items` to the next.
      allows_unlabelled: whether images without a label alone make a data set.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict[str, Any]] = {}  # nothing is downloaded
    licence: ClassVar[str] = ""
    accepts: ClassVar[frozenset[str]] = frozenset()
    allows_unlabelled: ClassVar[bool] = False
    variants: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        config: Options | str | None = None,
        download_dir: str | os.PathLike[str] = "downloads",
        **kwargs: Any,
    ):
        self.options = config if isinstance(config, Options) else Options(name=config or "")
        self.progress: Progress | None = None
        self.notify: Callable[[str], None] = lambda text: None
        self.download_dir = pathlib.Path(download_dir)
        self.keep_sources = False
        self.root = str(kwargs.get("data_dir", ""))
        if not self.options.name:
            self._check_options()
            if self.variants and not self.options.variant:
                self.options = dataclasses.replace(self.options, variant=self.variants[0])
            self.options = dataclasses.replace(self.options, name=self.directory_name())
        kwargs["file_format"] = "array_record"
        super().__init__(config=self.options, **kwargs)

    # ---- what a subclass gives ------------------------------------------------------------------

    @abc.abstractmethod
    def taxonomy(self) -> Taxonomy:
        """The tree of classes.

        Raises:
          UserError: the source or the options do not make a data set; nothing is written yet.
        """

    def check_sources(self) -> None:
        """Looks, before the first record, for what would stop the build at a later one.

        Raises:
          UserError: something would; what an earlier build has done is kept.
        """

    @abc.abstractmethod
    def items(self, start: int) -> Iterator[Record | Rejected]:
        """All that the source holds from the `start`-th item on: images in the order in which they
        are to be stored, and what is left out. Ids are unique; the order is always the same."""

    def directory_name(self) -> str:
        """Names the built data set within `<data_dir>/<data set>/`; differs when its images do."""
        return "default"

    def release(self) -> None:
        """Lets go of what large sources need while their records are taken; all are written."""

    def num_records(self) -> int | None:
        """About how many images will come, when that is known; for the progress display, which asks
        anew each time."""
        return self.options.num_examples

    def num_items(self) -> int | None:
        """How many `items(0)` gives, for builds in ranges; None where there are none."""
        return None

    def features(self) -> tuple[str, ...]:
        """Names of the numbers that every record carries."""
        return ()

    def refusal(self, fatal: Sequence[Rejected]) -> str:
        """The message for a source with items that are not only left out."""
        shown = "; ".join(f"{item.path} ({item.reason})" for item in fatal[:20])
        return f"config.data.source {self.options.source}: {shown}"

    def more_metadata(self) -> dict[str, Any]:
        """What is noted of this data set beside what all have."""
        return {}

    # ---- what TFDS asks for ---------------------------------------------------------------------

    def _create_builder_config(self, builder_config: Any, version: Any) -> Options:
        """The options themselves; TFDS's own logs a warning for each that it does not know."""
        del builder_config, version
        return self.options

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Tensor(shape=(), dtype=np.object_)
        number = tfds.features.Scalar(np.int32)
        metadata = self.get_metadata()
        return _Info(
            builder=self,
            description=metadata.description,
            citation=metadata.citation,
            license=self.licence,
            features=tfds.features.FeaturesDict(
                {
                    **dict.fromkeys(("image", "id", "group", "split"), text),
                    **dict.fromkeys(("leaf", "height", "width"), number),
                }
            ),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Writes shards and index into the directory that TFDS has made for the time being.

        Raises:
          UserError: options of Beam for a data set that is built in one piece.
        """
        del dl_manager
        beam_options = download_config.beam_options if download_config else None
        if beam_options is not None and type(self).num_items is PlanktonBuilder.num_items:
            raise UserError(
                f"config.data.beam: found a value with config.data.dataset={self.name}, which is "
                'built in one piece; allowed: "".'
            )
        run = None if beam_options is None else _ranges.beam_runner(beam_options)
        self._build(pathlib.Path(self.data_path), self.taxonomy(), run)

    def _log_download_bytes(self) -> None:
        """Says nothing: standard output belongs to the command that builds."""

    def _log_download_done(self) -> None:
        """Says nothing."""

    # ---- building -------------------------------------------------------------------------------

    def _build(
        self, directory: pathlib.Path, taxonomy: Taxonomy, run: _ranges.Run | None = None
    ) -> None:
        """Writes shards and index into `directory`, with `run` in ranges side by side."""
        self.check_sources()
        unfinished = directory.parent / f"{UNFINISHED}.{self.VERSION}"
        staging = Staging(unfinished, taxonomy.num_leaves, self.features())
        try:
            if run is None:
                self._write_records(staging)
            else:
                folder = unfinished.with_name(f"{unfinished.name}.ranges")
                _ranges.build_ranges(self, staging, folder, run)
            self.release()
            index = staging.index()
            problem = self._verdict(staging.rejected, index)
            if not problem:
                self._finish(directory, taxonomy, staging, index)
        except BaseException:  # such as a source that is gone: what is done stays for the next run
            staging.stop(keep=True)
            raise
        staging.remove()
        if problem:
            raise UserError(problem)

    def _verdict(self, rejected: Sequence[Rejected], index: pa.RecordBatch) -> str:
        """Why all that was found makes no data set, or nothing."""
        fatal = [item for item in rejected if item.fatal]
        if fatal:
            return self.refusal(fatal)
        leaves = np.unique(index.column("leaf").to_numpy())
        if (leaves >= 0).sum() < 2 and not (self.allows_unlabelled and index.num_rows):
            return _too_little(self.name, self.options.source, len(leaves), rejected)
        return ""

    def _write_records(self, staging: Staging) -> None:
        told = len(staging)
        for item in self.items(staging.position):
            staging.add(item)
            if self.progress is not None and len(staging) >= told + PROGRESS_EVERY:
                told = len(staging)
                self.progress(told, self.num_records())
        staging.save()
        if self.progress is not None:
            self.progress(len(staging), len(staging))

    def _finish(
        self,
        directory: pathlib.Path,
        taxonomy: Taxonomy,
        staging: Staging,
        index: pa.RecordBatch,
    ) -> None:
        """Moves the shards to their place and writes what lies beside them."""
        table, features, digests = _index.split_index(index)
        duplicates = _index.find_duplicates(table, digests)
        rejected = sorted((_printable(item.path), item.reason) for item in staging.rejected)
        _index.write_index(directory / _index.INDEX_FILE, table)
        if features.num_columns:
            _index.write_index(directory / _index.FEATURES_FILE, features)
        _index.write_json(directory / _index.TAXONOMY_FILE, taxonomy.to_json())
        _index.write_csv(directory / _index.REJECTED_FILE, ("path", "reason"), rejected)
        _index.write_csv(directory / _index.DUPLICATES_FILE, ("id", "duplicate_of"), duplicates)
        lengths, num_bytes = staging.shards()
        template = self._get_filename_template(SPLIT)
        paths = [pathlib.Path(p) for p in template.sharded_filepaths(num_shards=len(lengths))]
        staging.move_shards(paths)
        rows = _index.statistics_rows(table)
        mean, std = _index.pixel_statistics(
            deserialise(serialised).image for serialised in read_rows(paths, lengths, rows)
        )
        metadata = {
            "name": self.name,
            "fingerprint": _index.fingerprint(taxonomy, table, features, digests),
            "licence": self.licence,
            "citation": self.get_metadata().citation or "",
            "source": self.options.source or "",
            "num_examples": table.num_rows,
            "rejected": dict(collections.Counter(reason for _, reason in rejected)),
            "duplicates": len(duplicates),
            "mean": mean,
            "std": std,
            "features": _index.feature_statistics(features),
            "format_version": _index.FORMAT_VERSION,
            **self.more_metadata(),
        }
        _index.write_json(directory / _index.METADATA_FILE, metadata)
        split = tfds_splits.SplitInfo(
            name=SPLIT, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template
        )
        self.info.set_splits(tfds_splits.SplitDict([split]))

    def _check_options(self) -> None:
        """Refuses settings that would have no effect on this data set."""
        given = {
            name
            for name in ("source", "taxonomy_csv", "num_examples", "features", "statuses", "labels")
            if getattr(self.options, name) not in (None, False, ())
        }
        problems = [
            f"config.data.{name}: {getattr(self.options, name)!r} has no meaning for "
            f"config.data.dataset={self.name}. Leave it unset."
            for name in sorted(given - self.accepts)
        ]
        variant = self.options.variant
        if variant and variant not in self.variants:
            names = [f"{self.name}/{known}" for known in self.variants] or [self.name]
            problems.append(
                f'config.data.dataset: found "{self.name}/{variant}". '
                + near_miss(f"{self.name}/{variant}", names)
            )
        if problems:
            raise UserError(*problems)


def is_built(directory: str | os.PathLike[str]) -> bool:
    """Whether the directory holds a whole built data set of this format."""
    directory = pathlib.Path(directory)
    needed = ("dataset_info.json", _index.INDEX_FILE, _index.TAXONOMY_FILE, _index.METADATA_FILE)
    return all((directory / name).is_file() for name in needed)


def _too_little(name: str, source: str | None, count: int, rejected: Sequence[Rejected]) -> str:
    """The message for a source with usable images of `count` classes, none or one."""
    if source is None:
        return (
            f"config.data.num_examples: the images that {name} drew are of fewer than two classes; "
            "allowed: more of them."
        )
    shown = "; ".join(f"{item.path}: {item.reason}" for item in rejected[:5])
    more = f" (and {len(rejected) - 5} more)" if len(rejected) > 5 else ""
    return (
        f"config.data.source {source}: {name} found "
        + ("usable images of one class only. " if count else "no usable image. ")
        + f"Left out: {shown or 'nothing'}{more}. Give images of two classes or more that can be "
        "read."
    )


def _printable(path: str) -> str:
    """A path that is no UTF-8 with its odd bytes spelled out."""
    return path.encode("utf-8", "backslashreplace").decode()
