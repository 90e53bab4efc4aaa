"""Checkpoints of a run: last and best, atomic, verified; and the command that lists them.

    python -m plankton_jax.checkpoints --run runs/v5 [--json]

A checkpoint holds the whole training state and, as JSON beside it, the position in the data, the
validation metrics, a sha256 of what was saved and what it was saved with. Orbax writes into a
temporary folder and renames it, so a checkpoint is there whole or not at all.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plankton_jax.command import command_parser, run_command
from plankton_jax.config import METRICS
from plankton_jax.errors import UserError
from plankton_jax.run_directory import read_run

STATE, RECORD = "state", "record"


def digest(tree: Any) -> str:
    """sha256 over the names, shapes, types and bytes of all arrays of a pytree."""
    result = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for path, leaf in sorted(leaves, key=lambda item: jax.tree_util.keystr(item[0])):
        array = np.ascontiguousarray(leaf)
        result.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        result.update(array.reshape(-1).view(np.uint8).data)
    return result.hexdigest()


def best_step(records: dict[int, dict[str, Any]], monitor: str, mode: str) -> int | None:
    """The step whose validation metric is best, the earliest of equals; None without any."""
    sign = 1.0 if mode == "max" else -1.0
    scored = {
        step: sign * record["metrics"][monitor]
        for step, record in records.items()
        if record.get("metrics") and np.isfinite(record["metrics"][monitor])
    }
    return max(sorted(scored), key=lambda step: scored[step]) if scored else None


def read_records(folder: pathlib.Path) -> dict[int, dict[str, Any]]:
    """The JSON record of every complete checkpoint in `folder`, by step; unreadable ones left out.

    Reads small files only, so it is quick whatever the size of the network.
    """
    records = {}
    for path in folder.glob(f"*/{RECORD}/metadata"):
        if path.parts[-3].isdigit():
            try:
                record = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if isinstance(record, dict):
                records[int(path.parts[-3])] = record
    return dict(sorted(records.items()))


class _LatestAndBest:
    """Orbax's preservation policy: the newest few, and the best by the monitored metric."""

    def __init__(self, folder: pathlib.Path, keep: int, monitor: str, mode: str):
        self._folder, self._keep, self._monitor, self._mode = folder, keep, monitor, mode

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context
        best = best_step(read_records(self._folder), self._monitor, self._mode)
        newest = {info.step for info in checkpoints[-self._keep :]}
        return [info.step in newest or info.step == best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run, as a context manager.

    With `read_only` nothing on the disk is touched, also not the remains of a save that was cut
    short, so it is safe beside a training that is under way.
    """

    def __init__(
        self, run: pathlib.Path, *, keep: int, monitor: str, mode: str, read_only: bool = False
    ):
        import orbax.checkpoint as ocp

        self._args = ocp.args
        self.folder = run.resolve() / "checkpoints"
        self._monitor, self._mode = monitor, mode
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_LatestAndBest(self.folder, keep, monitor, mode),
                enable_async_checkpointing=not read_only,
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    @property
    def best(self) -> int | None:
        """The step of the best checkpoint, or None before the first validation."""
        return best_step(read_records(self.folder), self._monitor, self._mode)

    def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
        """Starts saving in the background; waits for the save before it first.

        Raises:
          UserError: the disk is full, or a parameter is not finite. What was saved before stays.
        """
        self.wait()
        self._check_space(state)
        host_state = jax.device_get(state)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(host_state.params)):
            raise not_finite(step, ["parameters"], self)
        hashes = {"params_sha256": digest(host_state.params), "state_sha256": digest(host_state)}
        record = {"step": step, **hashes, **record}
        if jax.default_backend() == "cpu":  # the next step reuses the buffers that are written
            state = jax.tree.map(jnp.copy, state)
        with _full_disk_is_told(self.folder):
            self._manager.save(
                step,
                args=self._args.Composite(
                    state=self._args.StandardSave(_as_dict(state)),
                    record=self._args.JsonSave(record),
                ),
            )

    def wait(self) -> None:
        """Waits until what was started is on the disk."""
        with _full_disk_is_told(self.folder):
            self._manager.wait_until_finished()

    def restore_newest(self, like: Any) -> tuple[Any, dict[str, Any], list[str]]:
        """The newest checkpoint that is whole: (state, record, what was wrong with newer ones).

        Damaged ones that are newer are moved to `damaged_checkpoints/`, not deleted; where none is
        whole, nothing is moved.

        Args:
          like: a state of the same structure, whose shapes and shardings are restored to.

        Raises:
          UserError: there are checkpoints and none can be read.
        """
        problems, damaged = [], []
        for step in reversed(self.steps):
            try:
                restored = self.restore(step, like)
            except UserError as error:
                problems.append(error.problems[0])
                damaged.append(step)
                continue
            for newer in damaged:
                self._set_aside(newer)
            return (*restored, problems)
        raise UserError(
            *problems, f"{self.folder}: no checkpoint is whole. Start in a new workdir."
        )

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """One checkpoint, verified against the sha256 it was saved with.

        Raises:
          UserError: it is damaged, or of a network of another shape.
        """
        import orbax.checkpoint as ocp

        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_dict(like))
        found, record = self._read(step, self._args.StandardRestore(target))
        state = type(like)(**found)
        self._verify(step, state, record["state_sha256"])
        return state, record

    def arrays(self, step: int) -> tuple[dict[str, Any], str]:
        """One checkpoint as nested dicts of arrays on the host, whatever network it is of, and the
        sha256 that its state was saved with. Its parameters are verified.

        Raises:
          UserError: it is damaged.
        """
        found, record = self._read(step, self._args.StandardRestore())
        self._verify(step, found["params"], record["params_sha256"])
        return jax.device_get(found), record["state_sha256"]

    def _read(self, step: int, state: Any) -> tuple[Any, dict[str, Any]]:
        """What is stored of a checkpoint; `state` says as what the state is to come."""
        hook = sys.unraisablehook
        sys.unraisablehook = functools.partial(_drop_late_reads, hook)
        logging.getLogger("asyncio").addFilter(_is_no_late_read)
        try:
            found = self._manager.restore(
                step, args=self._args.Composite(state=state, record=self._args.JsonRestore())
            )
        except Exception as error:  # Orbax and TensorStore raise many types for a damaged file
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise UserError(
                f"checkpoint {self.folder / str(step)}: cannot be restored "
                f"({type(error).__name__}: {reason})."
            ) from error
        # Only now: what a failed read leaves behind is collected at any later time.
        sys.unraisablehook = hook
        logging.getLogger("asyncio").removeFilter(_is_no_late_read)
        return found[STATE], found[RECORD]

    def _verify(self, step: int, tree: Any, expected: str) -> None:
        if digest(jax.device_get(tree)) != expected:
            raise UserError(
                f"checkpoint {self.folder / str(step)}: damaged; its content differs from what "
                "was saved (sha256)."
            )

    def _set_aside(self, step: int) -> None:
        """Moves a damaged checkpoint out of the way of a later save of the same step."""
        target = self.folder.parent / "damaged_checkpoints" / str(step)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        shutil.move(self.folder / str(step), target)
        self._manager.reload()

    def _check_space(self, state: Any) -> None:
        """Refuses to begin a save that cannot fit; the run's other files need a little as well."""
        needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) + 2**20
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"{self.folder}: a checkpoint needs about {needed / 2**20:.0f} MiB and "
                f"{free / 2**20:.0f} MiB are free. Make room and run the same command again: it "
                "goes on from the last checkpoint."
            )


def not_finite(step: int, what: Sequence[str], checkpoints: Checkpoints) -> UserError:
    """The error of a training that diverged, with what is kept and what to try."""
    checkpoints.wait()
    kept = f"Step {checkpoints.steps[-1]} is kept" if checkpoints.steps else "Nothing was saved yet"
    return UserError(
        f"step {step}: not finite in training: {', '.join(what)}. {kept}. Try a lower "
        "config.optim.learning_rate, a longer config.optim.warmup_epochs, "
        "config.optim.gradient_clip=1.0, or config.train.precision=float32, in a new workdir."
    )


@contextlib.contextmanager
def _full_disk_is_told(folder: pathlib.Path) -> Iterator[None]:
    """Turns "no space left" from below into a message for the user."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not (full or "No space left" in str(error) or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        raise UserError(
            f"{folder}: no space left on the disk while saving. Make room and run the same command "
            "again: it goes on from the last checkpoint."
        ) from error


def _drop_late_reads(hook: Any, unraisable: Any) -> None:
    """Drops one kind of error that nobody can catch, and leaves the others to `hook`.

    When one array of a checkpoint is damaged, the reads of the others are still under way; each
    prints a traceback when it finds that nobody waits for it any more, or when it is collected.
    """
    if "Event loop is closed" not in str(unraisable.exc_value):
        hook(unraisable)


def _is_no_late_read(record: logging.LogRecord) -> bool:
    """A filter of asyncio's log: drops what `_drop_late_reads` is about."""
    return "exception was never retrieved" not in record.getMessage()


def _as_dict(state: Any) -> dict[str, Any]:
    """The fields of a state dataclass; Orbax stores and restores plain dicts."""
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


def _main(arguments: list[str]) -> int:
    parser = command_parser("plankton_jax.checkpoints", "Lists the checkpoints of a run.")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="a run directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    folder = options.run / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"--run {options.run}: it has no checkpoints; allowed: a run directory.")
    config = read_run(options.run)[0].checkpoint
    records = read_records(folder)
    best = best_step(records, config.monitor, config.mode)
    if options.json:
        print(
            json.dumps({"run": str(options.run), "best": best, "checkpoints": [*records.values()]})
        )
        return 0
    for step, record in records.items():
        marks = " ".join(
            word
            for word, holds in (("last", step == max(records)), ("best", step == best))
            if holds
        )
        print(f"step {step:>8}  {record['params_sha256']}  {marks}".rstrip())
        metrics = record.get("metrics") or {}
        names = dict.fromkeys((config.monitor, *METRICS))
        shown = [f"{name} {metrics[name]:.4f}" for name in names if name in metrics]
        if shown:
            print(f"{'':8}{'  '.join(shown)}")
    return 0


if __name__ == "__main__":
    run_command(_main)
