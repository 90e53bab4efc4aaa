"""Builds ranges of a data set's items side by side, such as by the runners of Apache Beam.

Every range is an unfinished build of its own (`_staging`) in a folder beside the whole one's; they
are put together in their order, so the data set is the one that a build in one piece makes. Ranges
that are done when a build is stopped are not done again. Writes into these folders alone.
"""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from data_builders._staging import JOURNAL_FILE, Staging
from plankton_jax.errors import UserError

if TYPE_CHECKING:
    from data_builders._options import Options
    from data_builders.base import PlanktonBuilder, Progress

ITEMS = 1 << 15
"""Of a range: some seconds of work, and fewer than a shard holds."""

WATCH_SECONDS = 5.0

Run = Callable[[Callable[[tuple[int, int]], None], Iterable[tuple[int, int]]], None]
"""Applies a function, which can be pickled, to all ranges, in any order and anywhere that sees the
data directory and the source."""


@dataclasses.dataclass(frozen=True, eq=False)
class Maker:
    """What makes a builder again in another process; equal where it makes the same data set."""

    kind: "type[PlanktonBuilder]"
    options: "Options"
    root: str
    download_dir: str

    def __call__(self) -> "PlanktonBuilder":
        return self.kind(
            data_dir=self.root, config=self.options, download_dir=pathlib.Path(self.download_dir)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Maker) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.kind, self.options.name, self.root


def build_ranges(
    builder: "PlanktonBuilder", staging: Staging, folder: pathlib.Path, run: Run
) -> None:
    """Takes all items of a data set that `staging` does not have yet.

    Args:
      folder: of the ranges; is gone afterwards.
      run: does the work.
    """
    count = builder.num_items() or 0
    starts = range(staging.position, count, ITEMS)
    ranges = [(start, min(start + ITEMS, count)) for start in starts]
    builder.notify(f"{builder.name}: {count - staging.position} files in ranges of {ITEMS}")
    maker = Maker(type(builder), builder.options, builder.root, str(builder.download_dir))
    with _watched(builder.progress, folder, ranges, count):
        run(functools.partial(_build_range, maker, folder), ranges)
    for bounds in ranges:
        staging.adopt(_opened(builder, folder, bounds))
    shutil.rmtree(folder, ignore_errors=True)
    if builder.progress is not None:
        builder.progress(len(staging), len(staging))


@contextlib.contextmanager
def _watched(
    progress: "Progress | None", folder: pathlib.Path, ranges: list[tuple[int, int]], count: int
) -> Iterator[None]:
    """Tells now and then how many of `count` files lie in ranges that are done."""
    if progress is None:
        yield
        return
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(WATCH_SECONDS):
            left = [b for b in ranges if not (_folder_of(folder, b) / JOURNAL_FILE).is_file()]
            progress(count - sum(end - start for start, end in left), count)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def beam_runner(options: Any) -> Run:
    """Ranges as a pipeline of Apache Beam with these `PipelineOptions`."""

    def run(work: Callable[[tuple[int, int]], None], ranges: Iterable[tuple[int, int]]) -> None:
        import apache_beam as beam  # pyright: ignore[reportMissingImports]

        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | beam.Create([*ranges]) | beam.Reshuffle() | beam.Map(work)

    return run


def beam_options(flags: list[str]) -> Any:
    """Beam's `PipelineOptions`.

    Raises:
      UserError: Apache Beam is not installed, or does not know a flag.
    """
    try:
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
        )
    except ImportError as error:
        raise UserError(
            f"config.data.beam: found {' '.join(flags)!r}; Apache Beam is not installed "
            f"({error}). Install apache-beam, in an environment of its own where its versions do "
            "not fit, or leave this unset."
        ) from error
    options = PipelineOptions(flags)
    known = options.get_all_options()
    unknown = [flag for flag in flags if flag.startswith("-") and _name(flag) not in known]
    if unknown:
        raise UserError(
            f"config.data.beam: found {', '.join(unknown)}, which Apache Beam does not know; "
            "allowed: flags of its PipelineOptions, such as --runner=DirectRunner."
        )
    return options


def _name(flag: str) -> str:
    """The option that a flag of Beam sets; some are switched off by `--no_`."""
    return flag.lstrip("-").partition("=")[0].removeprefix("no_")


def _build_range(maker: Maker, folder: pathlib.Path, bounds: tuple[int, int]) -> None:
    """Writes one range, or what is missing of it."""
    builder = _kept_builder(maker)
    staging = _opened(builder, folder, bounds)
    start = bounds[0] + staging.position
    for item in itertools.islice(builder.items(start), bounds[1] - start):
        staging.add(item)
    staging.save()


def _opened(builder: "PlanktonBuilder", folder: pathlib.Path, bounds: tuple[int, int]) -> Staging:
    return Staging(_folder_of(folder, bounds), builder.taxonomy().num_leaves, builder.features())


def _folder_of(folder: pathlib.Path, bounds: tuple[int, int]) -> pathlib.Path:
    return folder / f"{bounds[0]:012d}-{bounds[1]:012d}"


@functools.lru_cache(1)
def _kept_builder(maker: Maker) -> "PlanktonBuilder":
    """The builder of this process, whose sources stay listed and open from range to range."""
    builder = maker()
    builder.keep_sources = True
    return builder
