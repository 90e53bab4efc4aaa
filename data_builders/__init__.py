"""The data sets: one TFDS builder a folder, and `prepare`, which builds one when it is not there.

Names are those of the folders here that hold a `<name>_dataset_builder.py`. Nothing heavy is
imported until a data set is prepared.
"""

import contextlib
import errno
import importlib
import json
import os
import pathlib
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from plankton_jax.errors import UserError, near_miss

if TYPE_CHECKING:
    from data_builders.base import PlanktonBuilder

_ROOT = pathlib.Path(__file__).parent
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


_VARIANTS = {"zooscan": ("v1", "v2"), "ndsb": ("train", "all")}
"""Of the data sets that have several: what the builders say, without importing them."""


def available() -> tuple[str, ...]:
    """The names `prepare` knows: of data sets, and `name/variant` of those that have several."""
    names = sorted(path.parent.name for path in _ROOT.glob("*/*_dataset_builder.py"))
    variants = [f"{name}/{variant}" for name in names for variant in _VARIANTS.get(name, ())]
    return tuple(sorted([*names, *variants]))


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    taxonomy_csv: str | os.PathLike[str] | None = None,
    num_examples: int | None = None,
    seed: int = 0,
    features: bool = False,
    statuses: Sequence[str] = (),
    labels: str | os.PathLike[str] | None = None,
    beam: str = "",
    progress: Callable[[int, int | None], None] | None = None,
    notify: Callable[[str], None] | None = None,
) -> pathlib.Path:
    """The directory of a built data set, built first when it is not there.

    Args:
      name: one of `available()`, or the path of a built data set, which is returned as it is.
      data_dir: where data sets are built, as `<data_dir>/<name>/<what it is built from>/<version>`.
      source: the folder or zip archive that holds the images, for a data set that has one.
      taxonomy_csv: the tree of classes, for `image_folder`.
      num_examples: images to draw, for `synthetic_plankton`.
      seed: of what is drawn.
      features: whether numbers that come with the images are stored, for those that have some.
      statuses: of annotations in EcoTaxa whose images are taken; none: the validated ones.
      labels: a table or class scores, for `ifcb`.
      beam: options of Apache Beam to build with in parallel, such as "--runner=DirectRunner";
        empty: without Beam.
      progress: called with the number of images done and (or None) of all images.
      notify: called with a sentence when another process is waited for or files are left out.

    Raises:
      UserError: unknown name, options or a source that do not make a data set, no space left.
        Nothing that passes for a data set is left behind.
    """
    given = {"taxonomy_csv": taxonomy_csv, "num_examples": num_examples, "seed": seed}
    given |= {"features": features, "statuses": tuple(statuses), "labels": labels}
    if name not in available():
        directory = _built_directory(name)
        unused = [key for key, value in {"source": source, "beam": beam, **given}.items() if value]
        if unused:
            raise UserError(
                f"config.data.{unused[0]}: has no meaning for the data set {name}, which is built. "
                "Leave it unset, or name the data set that it is built from."
            )
        return directory

    def make() -> "PlanktonBuilder":
        builder = _make_builder(name, data_dir, source, **given)
        builder.progress, builder.notify = progress, notify or (lambda text: None)
        return builder

    builder = make()
    directory = pathlib.Path(builder.data_dir)
    if _is_built(directory):
        return directory
    builder.taxonomy()  # refuses a bad source before anything is written
    try:
        with _lock(directory.parent, notify):
            if _is_built(directory):  # by the process that held the lock
                return directory
            if _remove_remains(directory):
                builder = make()
            _build(builder, beam)
    except BaseException as error:
        with contextlib.suppress(OSError):  # goes when TFDS has left it empty
            directory.parent.rmdir()
        if explained := _explain(error, data_dir):
            raise explained from error
        raise
    _notify_left_out(directory, notify)
    return directory


def _is_built(directory: pathlib.Path) -> bool:
    from data_builders.base import is_built

    return is_built(directory)


def _built_directory(name: str) -> pathlib.Path:
    """A path given in the place of a name."""
    directory = pathlib.Path(name).expanduser()
    if _is_built(directory):
        return directory.resolve()
    if directory.exists():
        raise UserError(
            f"config.data.dataset {name}: holds no built data set (no whole set of dataset_info."
            "json, index.arrow, taxonomy.json and metadata.json). For a folder of images set "
            "config.data.dataset=image_folder and config.data.source to the folder."
        )
    raise UserError(
        f'config.data.dataset: "{name}" is neither a data set nor the path of a built one. '
        + near_miss(name, available())
    )


def _make_builder(
    name: str, data_dir: Any, source: Any, *, taxonomy_csv: Any, labels: Any, **given: Any
) -> "PlanktonBuilder":
    from data_builders.base import Options

    name, _, variant = name.partition("/")
    module = importlib.import_module(f"data_builders.{name}.{name}_dataset_builder")
    options = Options(
        source=None if source is None else str(pathlib.Path(source).expanduser().resolve()),
        taxonomy_csv=None if taxonomy_csv is None else str(pathlib.Path(taxonomy_csv).expanduser()),
        labels=None if labels is None else str(pathlib.Path(labels).expanduser()),
        variant=variant,
        **given,
    )
    root = pathlib.Path(data_dir).expanduser().absolute()
    return module.Builder(data_dir=root, config=options, download_dir=root / "downloads" / name)


def _build(builder: "PlanktonBuilder", beam: str) -> None:
    from tensorflow_datasets import download

    from data_builders._ranges import beam_options

    options = beam_options(shlex.split(beam)) if beam else None
    # TFDS makes a folder for downloads even where nothing is downloaded. Here it goes with the
    # other remains when the build is killed.
    parent = pathlib.Path(builder.data_dir).parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incomplete.", dir=parent) as downloads:
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=download.DownloadConfig(try_download_gcs=False, beam_options=options),
        )


@contextlib.contextmanager
def _lock(parent: pathlib.Path, notify: Callable[[str], None] | None) -> Iterator[None]:
    """Holds off other processes that would build the same data set; freed when a holder dies."""
    import fcntl

    parent.parent.mkdir(parents=True, exist_ok=True)
    with (parent.parent / f".{parent.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if notify is not None:
                notify(f"Another process is building {parent}; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_remains(directory: pathlib.Path) -> bool:
    """Removes what a killed build has left; the caller holds the lock, so nobody writes there."""
    remains = [*directory.parent.glob("incomplete.*"), *([directory] if directory.exists() else [])]
    for path in remains:
        shutil.rmtree(path)
    return bool(remains)


def _explain(error: BaseException, data_dir: Any) -> UserError | None:
    """Says in the user's terms what the operating system refused; None for anything else."""
    writer_failed = isinstance(error, RuntimeError) and "() failed: " in str(error)  # ArrayRecord
    if not isinstance(error, OSError) and not writer_failed:
        return None
    no_space = writer_failed and os.strerror(errno.ENOSPC) in str(error)
    if no_space or getattr(error, "errno", None) in _NO_SPACE:
        return UserError(
            f"config.data.data_dir {data_dir}: no space left to write a file ({error}). Free "
            "some space and run the same command again: it goes on from the last whole shard. Or "
            "set config.data.data_dir to another disk."
        )
    return UserError(
        f"config.data.data_dir {data_dir}: cannot be written ({error}). Set it to a directory in "
        "which files can be made."
    )


def _notify_left_out(directory: pathlib.Path, notify: Callable[[str], None] | None) -> None:
    if notify is None:
        return
    metadata = json.loads((directory / "metadata.json").read_text(encoding="utf-8"))
    if metadata["rejected"]:
        reasons = ", ".join(f"{count} {why}" for why, count in metadata["rejected"].items())
        notify(f"Files left out: {reasons}. They are listed in {directory / 'rejected.csv'}.")
    if metadata["duplicates"]:
        notify(
            f"Images with the content of another: {metadata['duplicates']}. They are kept, and "
            f"listed in {directory / 'duplicates.csv'}."
        )
