"""The TFDS builder that all data sets here derive from.

It builds one TFDS split in ArrayRecord shards, read as `as_data_source("all")`, streaming and in
the order in which `records()` gives them, and beside the shards an index, so that a data set is
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
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder
from tensorflow_datasets.core import splits as tfds_splits

from data_builders import _index
from data_builders._shards import Record, ShardWriter, deserialise, read_rows, serialise
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

__all__ = ["Options", "PlanktonBuilder", "Record", "is_built"]

# TFDS reads the union of all splits as "all"; a split that is itself called so recurses for ever.
SPLIT = "images"
PROGRESS_EVERY = 64

Progress = Callable[[int, int | None], None]
"""Called with the number of images done and, when known, of all images."""


@dataclasses.dataclass(eq=False)
class Options(tfds.core.BuilderConfig):
    """What a data set is built from. Each builder takes those it names in `accepts`.

    Attributes:
      name: the directory of the built data set; left empty, the builder derives it.
      source: the folder or archive that holds the images.
      taxonomy_csv: the tree of the classes, as `Taxonomy.from_csv` reads it.
      num_examples: images to draw.
      seed: of what is drawn.
    """

    name: str = ""
    source: str | None = None
    taxonomy_csv: str | None = None
    num_examples: int | None = None
    seed: int = 0


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
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict[str, Any]] = {}  # nothing is downloaded
    licence: ClassVar[str] = ""
    accepts: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, *, config: Options | str | None = None, **kwargs: Any):
        self.options = config if isinstance(config, Options) else Options(name=config or "")
        self.progress: Progress | None = None
        self._rejected: list[tuple[str, str]] = []
        if not self.options.name:
            self._check_options()
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

    @abc.abstractmethod
    def records(self) -> Iterator[Record]:
        """Every image, in the order in which it is to be stored; ids are unique."""

    def directory_name(self) -> str:
        """Names the built data set within `<data_dir>/<data set>/`; differs when its images do."""
        return "default"

    def num_records(self) -> int | None:
        """How many images will come at most, when that is known; for the progress display."""
        return self.options.num_examples

    def reject(self, path: str, reason: str) -> None:
        """Notes a file that is left out. Few different reasons: files are counted by them."""
        printable = path.encode("utf-8", "backslashreplace").decode()
        self._rejected.append((printable, reason))

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
        """Writes shards and index into the directory that TFDS has made for the time being."""
        del dl_manager, download_config
        self._build(pathlib.Path(self.data_path), self.taxonomy())

    def _log_download_bytes(self) -> None:
        """Says nothing: standard output belongs to the command that builds."""

    def _log_download_done(self) -> None:
        """Says nothing."""

    # ---- building -------------------------------------------------------------------------------

    def _build(self, directory: pathlib.Path, taxonomy: Taxonomy) -> None:
        shards, index = ShardWriter(directory), _index.Index(taxonomy.num_leaves)
        self._rejected.clear()
        total = self.num_records()
        for record in self.records():
            shards.write(serialise(record))
            index.add(record)
            if self.progress is not None and len(index) % PROGRESS_EVERY == 0:
                self.progress(len(index), total)
        if index.num_classes() < 2:
            count = index.num_classes()
            raise UserError(_too_little(self.name, self.options.source, count, self._rejected))
        if self.progress is not None:
            self.progress(len(index), len(index))
        paths = self._finish_shards(shards)
        self._write_index(directory, taxonomy, index, paths, shards.lengths)

    def _finish_shards(self, shards: ShardWriter) -> list[pathlib.Path]:
        template = self._get_filename_template(SPLIT)
        paths = [
            pathlib.Path(path)
            for path in template.sharded_filepaths(num_shards=len(shards.lengths))
        ]
        shards.finish(paths)
        split = tfds_splits.SplitInfo(
            name=SPLIT,
            shard_lengths=shards.lengths,
            num_bytes=shards.num_bytes,
            filename_template=template,
        )
        self.info.set_splits(tfds_splits.SplitDict([split]))
        return paths

    def _write_index(
        self,
        directory: pathlib.Path,
        taxonomy: Taxonomy,
        index: _index.Index,
        paths: list[pathlib.Path],
        lengths: list[int],
    ) -> None:
        table, duplicates = index.table(), index.duplicates()
        rejected = sorted(self._rejected)
        _index.write_index(directory / _index.INDEX_FILE, table)
        _index.write_json(directory / _index.TAXONOMY_FILE, taxonomy.to_json())
        _index.write_csv(directory / _index.REJECTED_FILE, ("path", "reason"), rejected)
        _index.write_csv(directory / _index.DUPLICATES_FILE, ("id", "duplicate_of"), duplicates)
        rows = _index.statistics_rows(table)
        mean, std = _index.pixel_statistics(
            deserialise(serialised).image for serialised in read_rows(paths, lengths, rows)
        )
        metadata = {
            "name": self.name,
            "fingerprint": index.fingerprint(taxonomy),
            "licence": self.licence,
            "citation": self.get_metadata().citation or "",
            "source": self.options.source or "",
            "num_examples": len(index),
            "rejected": dict(collections.Counter(reason for _, reason in rejected)),
            "duplicates": len(duplicates),
            "mean": mean,
            "std": std,
            "format_version": _index.FORMAT_VERSION,
        }
        _index.write_json(directory / _index.METADATA_FILE, metadata)

    def _check_options(self) -> None:
        """Refuses settings that would have no effect on this data set."""
        given = {
            name
            for name in ("source", "taxonomy_csv", "num_examples")
            if getattr(self.options, name) is not None
        }
        problems = [
            f"config.data.{name}: {getattr(self.options, name)!r} has no meaning for "
            f"config.data.dataset={self.name}. Leave it unset."
            for name in sorted(given - self.accepts)
        ]
        if problems:
            raise UserError(*problems)


def is_built(directory: str | os.PathLike[str]) -> bool:
    """Whether the directory holds a whole built data set of this format."""
    directory = pathlib.Path(directory)
    needed = ("dataset_info.json", _index.INDEX_FILE, _index.TAXONOMY_FILE, _index.METADATA_FILE)
    return all((directory / name).is_file() for name in needed)


def _too_little(name: str, source: str | None, count: int, rejected: list[tuple[str, str]]) -> str:
    """The message for a source with usable images of `count` classes, none or one."""
    if source is None:
        return (
            f"config.data.num_examples: the images that {name} drew are of fewer than two classes; "
            "allowed: more of them."
        )
    shown = "; ".join(f"{path}: {reason}" for path, reason in rejected[:5])
    more = f" (and {len(rejected) - 5} more)" if len(rejected) > 5 else ""
    return (
        f"config.data.source {source}: {name} found "
        + ("usable images of one class only. " if count else "no usable image. ")
        + f"Left out: {shown or 'nothing'}{more}. Give images of two classes or more that can be "
        "read."
    )
