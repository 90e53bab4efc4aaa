"""The run directory: what a run writes down of itself, and what keeps two runs apart.

`config.json` (resolved settings), `config_file.py` (the file they came from), `data.json` (what the
images were), `initial_weights.json` (where they came from, if from anywhere), `environment.json`
(versions, devices, git commit), `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `predictions/`,
`figures/`. Reads and writes these files; runs no network.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from plankton_jax.command import CONFIG_COPY, config_from_json, config_to_json, origin
from plankton_jax.config import Config, result_settings, walk
from plankton_jax.errors import UserError, raise_all
from plankton_jax.files import lock, read_json, replacing

if TYPE_CHECKING:
    from plankton_jax.weights import Provenance

_PUT_BACK = "Put the run's own back, or choose another workdir."
VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the run directory for this process alone.

    Raises:
      UserError: another process holds it, it cannot be made, or it holds something else.
    """
    mark, saved = workdir / ".lock", workdir / "config.json"
    there = workdir.exists()
    foreign = workdir.is_dir() and any(workdir.iterdir()) and not (mark.exists() or saved.exists())
    if foreign or (there and not workdir.is_dir()):
        raise UserError(
            f"--workdir {workdir}: it holds something that is not a run of plankton_jax; allowed: "
            "a new or empty folder, or that of a run to go on with."
        )
    busy = "another process is training in it. Wait for that one to end or choose another folder."
    with lock(mark, f"--workdir {workdir}", busy):
        try:
            yield
        finally:
            if not saved.exists():  # nothing has begun
                mark.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    if not there:
                        workdir.rmdir()


def refuse_other_settings(workdir: pathlib.Path, config: Config, config_file: pathlib.Path) -> None:
    """Checks that a run to go on with has the same settings; writes nothing.

    Raises:
      UserError: settings that can change a result differ, every one is named, or the file whose
        functions they are has changed.
    """
    _compare_settings(config_from_json(workdir / "config.json"), config, workdir)
    source, copy = _source(config_file), workdir / CONFIG_COPY
    if source.is_file() and copy.is_file() and _uses_functions_of_the_file(config):
        _refuse_other_functions(copy, source, workdir)


def data_without_its_source(
    workdir: pathlib.Path, config: Config, notify: Callable[[str], None]
) -> dict[str, Any] | None:
    """What a run to go on with wrote down of its data, where what it was built from is gone; None
    where that is still there and can be looked at for changes.

    Raises:
      UserError: it is not there, and is not what the run was built from either.
    """
    source = config.data.source
    if not source or pathlib.Path(source).expanduser().exists():
        return None
    before, noted = read_run(workdir)
    if source != before.data.source:
        raise UserError(
            f'config.data.source: found "{source}", which is not there; the run in {workdir} was '
            f'built from "{before.data.source}". Give the path of the same images.'
        )
    notify(f"config.data.source: {source} is gone; going on with the data set built from it")
    return noted


def refuse_other_data(workdir: pathlib.Path, data: dict[str, Any]) -> None:
    """Checks that a run to go on with has the same images; writes nothing.

    Args:
      data: plain values; `fingerprint` identifies the images, labels and tree, `rows_sha256` what
        of them is in which part.

    Raises:
      UserError: something differs.
    """
    before = read_json(workdir / "data.json", _PUT_BACK)
    differing = [key for key in data if before.get(key) != data[key]]
    if differing:
        raise UserError(
            f"{workdir}: the data set has changed since this run began: "
            + "; ".join(f"{key} was {before.get(key)}, is {data[key]}" for key in differing)
            + ". Put the former images and tables back, or train in another workdir."
        )


def write(
    workdir: pathlib.Path, config: Config, config_file: pathlib.Path, data: dict[str, Any]
) -> None:
    """Writes down settings, data, and what this start of the run runs on."""
    value, source, copy = config_to_json(config), _source(config_file), workdir / CONFIG_COPY
    if source.is_file() and source.resolve() != copy.resolve():
        with replacing(copy) as temporary:
            shutil.copyfile(source, temporary)
    _write_json(workdir / "config.json", value)
    _write_json(workdir / "data.json", data)
    _write_environment(workdir)


def _source(config_file: pathlib.Path) -> pathlib.Path:
    """The Python file of a configuration; a saved one has a copy of its own beside it."""
    return config_file if config_file.suffix == ".py" else config_file.parent / CONFIG_COPY


def _uses_functions_of_the_file(config: Config) -> bool:
    """Whether a setting is a function or class that the configuration file defines."""
    values = [value for _, _, value in walk(config)]
    return any(callable(value) and origin(value) == CONFIG_COPY for value in values)


def _refuse_other_functions(
    copy: pathlib.Path, source: pathlib.Path, workdir: pathlib.Path
) -> None:
    """Refuses to go on with functions from a file that is not what it was."""
    if copy.read_bytes() != source.read_bytes():
        raise UserError(
            f"--workdir {workdir}: {source}, whose functions the run uses, has changed since it "
            f"began. Go on as it was with --config {workdir / 'config.json'}, or choose another "
            "workdir."
        )


def _compare_settings(before: Config, now: Config, workdir: pathlib.Path) -> None:
    """Names every setting that differs and can change a result."""
    old, new = _comparable(before), _comparable(now)
    raise_all(
        [
            f"--workdir {workdir}: its run has config.{name}={old[name]!r}, now it is "
            f"{new[name]!r}. Go on with the former, or choose another workdir."
            for name in old
            if old[name] != new[name]
        ]
    )


def _comparable(config: Config) -> dict[str, Any]:
    """The settings that can change a result, functions by the name they are saved under."""
    flat = {name: value for name, _, value in walk(config)}
    saved = config_to_json(config)
    result = {}
    for name in result_settings(config):
        value: Any = saved
        for key in name.split("."):
            value = value[key]
        result[name] = value if callable(flat[name]) else flat[name]
    return result


def _write_environment(workdir: pathlib.Path) -> None:
    """Adds what this start of the run ran on to `environment.json`, newest last."""
    import jax

    path = workdir / "environment.json"
    try:
        starts = json.loads(path.read_text())["starts"]
    except (OSError, ValueError, KeyError):
        starts = []
    devices = jax.devices()
    starts.append(
        {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
            "devices": [f"{device.platform}:{device.device_kind}" for device in devices],
            "process_count": jax.process_count(),
            "git_commit": _git_commit(),
        }
    )
    _write_json(path, {"starts": starts})


def write_provenance(workdir: pathlib.Path, provenance: "Provenance | None") -> None:
    """Writes down where a new run's initial weights come from; nothing where they were drawn."""
    path = workdir / "initial_weights.json"
    if provenance is None:
        path.unlink(missing_ok=True)
    else:
        _write_json(path, dataclasses.asdict(provenance))


def read_provenance(workdir: pathlib.Path) -> "Provenance | None":
    """Where a run's initial weights came from; None where they were drawn.

    Raises:
      UserError: the record cannot be read, or is gone and the run's normalisation with it.
    """
    from plankton_jax.weights import Provenance

    path = workdir / "initial_weights.json"
    if not path.exists():
        _refuse_lost_normalisation(workdir / "config.json", path)
        return None
    try:
        return Provenance.from_values(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Put the run's own back.") from error


def _refuse_lost_normalisation(saved: pathlib.Path, path: pathlib.Path) -> None:
    """Refuses a run whose images were normalised as a record says that is gone."""
    config = config_from_json(saved) if saved.is_file() else Config()
    has_weights = config.model.initial_weights or config.model.pretrained
    if has_weights and config.data.normalisation == "backbone":
        raise UserError(
            f"{path}: it is gone, and with it the mean and standard deviation that the run "
            "normalises its images with. Put the run's own back."
        )


def _git_commit() -> str:
    """The commit of the working tree this package lies in, with `+` when it is changed, or ""."""
    folder = pathlib.Path(__file__).parent
    try:
        run = lambda *command: subprocess.run(  # noqa: E731
            ["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=5
        )
        commit = run("rev-parse", "HEAD").stdout.strip()
        return commit + "+" if commit and run("status", "--porcelain").stdout.strip() else commit
    except (OSError, subprocess.TimeoutExpired):
        return ""


def read_run(run: pathlib.Path) -> tuple[Config, dict[str, Any]]:
    """The settings and the data description of a run.

    Raises:
      UserError: `run` is not the directory of a run.
    """
    for name in ("config.json", "data.json"):
        if not (run / name).is_file():
            raise UserError(
                f"--run {run}: it has no {name}; allowed: the workdir of a run that was trained."
            )
    return config_from_json(run / "config.json"), read_json(run / "data.json", _PUT_BACK)


def _write_json(path: pathlib.Path, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
