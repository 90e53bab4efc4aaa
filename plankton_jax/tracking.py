"""What a run tells while it goes: `metrics.jsonl`, TensorBoard events, services, the console.

Writes into the run directory and to standard error. When a run goes on after a kill, lines of
steps that will be made again are taken back first.
"""

import contextlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from plankton_jax.files import replacing
from plankton_jax.trackers import Trackers


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, in the order of steps."""

    def __init__(self, path: pathlib.Path, resume_step: int):
        self._path = path
        self._take_back(resume_step)
        self._file = path.open("a", buffering=1)

    def _take_back(self, resume_step: int) -> None:
        """Drops lines after `resume_step` and a line that a kill cut short."""
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= resume_step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue
        with replacing(self._path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))

    def write(self, values: dict[str, Any]) -> None:
        """Appends one line; numbers that are not finite become null, as JSON has none."""
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        self._file.write(json.dumps(finite) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class EventsFile:
    """TensorBoard events, written at once.

    tensorboardX's own writer has a thread, which a full disk ends; it then waits for it for ever.
    """

    def __init__(self, folder: pathlib.Path, resume_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import (
            SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
        )

        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        if resume_step:  # TensorBoard then hides the steps that are made again
            self._write(resume_step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, values: dict[str, float], step: int) -> None:
        """Adds one point to the curve of every value."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step, summary=scalar(name, value))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import (
            Event,  # pyright: ignore[reportAttributeAccessIssue]
        )

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))


class Tracker:
    """All the places that metrics go to."""

    def __init__(
        self,
        run: pathlib.Path,
        *,
        resume_step: int,
        tensorboard: bool,
        services: Trackers | None = None,
    ):
        self._services = services
        self._file = MetricsFile(run / "metrics.jsonl", resume_step)
        self._events = None
        if tensorboard:
            self._events = EventsFile(run / "tensorboard", resume_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._events:
            self._events.close()
        if self._services:
            self._services.close()

    def write(self, kind: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Writes metrics of `kind` ("train" or "validation") at `step`."""
        self._file.write({"step": step, "epoch": round(epoch, 4), "kind": kind, **values})
        named = {f"{kind}/{name}": value for name, value in values.items()}
        if self._events:
            self._events.write(named, step)
        if self._services:
            self._services.write(named, step)


class Console:
    """Progress with images/s and time left: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, total_steps: int, batch_size: int, start_step: int):
        self._total, self._batch = total_steps, batch_size
        self._began: float | None = None
        self._start_step, self._last = start_step, (time.monotonic(), start_step)
        self._bar = None
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console as RichConsole

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                # Rich's own needs two updates within 30 seconds, which slow networks do not give.
                progress.TextColumn("left {task.fields[left]}"),
                progress.TextColumn("{task.fields[metrics]}"),
                console=RichConsole(stderr=True),
            )
            self._task = self._bar.add_task(
                "training", total=total_steps, completed=start_step, metrics="", left="?"
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, step: int) -> None:
        """Told behind the first step, the `step + 1`-th, whose compiling no later one repeats."""
        if self._began is None:
            self._began, self._start_step = time.monotonic(), step + 1
            self._last = (self._began, step + 1)

    def images_per_second(self, step: int) -> float:
        """The rate since the last call."""
        now = time.monotonic()
        (then, from_step), self._last = self._last, (now, step)
        return (step - from_step) * self._batch / max(now - then, 1e-9)

    @contextlib.contextmanager
    def not_counted(self) -> Iterator[None]:
        """Leaves what the block takes (a validation, a save) out of the next rate."""
        began = time.monotonic()
        yield
        self._last = (self._last[0] + time.monotonic() - began, self._last[1])

    def say(self, text: str) -> None:
        """Prints one line."""
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def show(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Shows where training is."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        elapsed = time.monotonic() - (self._began or time.monotonic())
        per_step = elapsed / max(step - self._start_step, 1)
        left = duration(per_step * (self._total - step))
        if self._bar:
            self._bar.update(self._task, completed=step, metrics=shown, left=left)
            return
        self.say(f"step {step}/{self._total}  epoch {epoch:.2f}  {shown}  left {left}")


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
