"""What all commands share: reading a configuration, and telling a user's mistake from a bug.

Reads configuration files (which are Python and run as such) and prints; imports nothing heavy.
"""

import argparse
import dataclasses
import errno
import functools
import hashlib
import importlib.util
import inspect
import json
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import Any, cast

from plankton_jax.config import Config, coerced, setting_names, walk
from plankton_jax.errors import UserError, near_miss, raise_all
from plankton_jax.files import read_json
from plankton_jax.validation import all_problems, unknown_fields

EXIT_USER_ERROR = 2
CONFIG_COPY = "config_file.py"
_REFUSALS = (
    errno.EACCES,
    errno.EEXIST,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)


def run_command(main: Callable[[list[str]], int]) -> None:
    """Runs a command and ends the process: 0 or what it returns, 2 for a user's mistake.

    With `--debug` among the arguments the traceback of a user's mistake is shown as well.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        status = main(arguments)
    except UserError as error:
        if debug:
            traceback.print_exc()
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        status = EXIT_USER_ERROR
    except BrokenPipeError:
        status = 0
    except OSError as error:
        told = _refusal_of_the_system(error)
        if debug or not told:
            raise
        print(f"error: {told}", file=sys.stderr)
        status = EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.stdout.flush()
    sys.exit(status)


def _refusal_of_the_system(error: OSError) -> str:
    """What to tell where the disk, a permission or a path was in the way; "" for anything else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" that holds {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}. Make room and run the same command again."
    if error.errno in _REFUSALS and error.filename:
        return (
            f"{error.filename}: {error.strerror}. Choose another path, or change what may be done "
            "with this one."
        )
    return ""


def quiet_libraries() -> None:
    """Orbax and Grain log every save and read through absl, and what goes wrong with its
    traceback, though it is raised and told as well."""
    shown = logging.ERROR if "--debug" in sys.argv else logging.CRITICAL
    logging.getLogger("absl").setLevel(shown)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def command_parser(module: str, description: str) -> argparse.ArgumentParser:
    """An argument parser that names the command as users type it."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog="With --debug a mistake is shown with its traceback.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def read_config(path: str, overrides: list[str]) -> Config:
    """Reads `FILE.py[:ARG]` or a run's `config.json` and applies `--config.a.b=value` overrides.

    Raises:
      UserError: the file is missing, does not run or returns something else; unknown or mistyped
        settings, settings out of range or at odds with each other, all of them together.
    """
    return _checked(_load(*file_and_argument(path)), overrides)


def file_and_argument(path: str) -> tuple[pathlib.Path, str | None]:
    """The two parts of `FILE[:ARG]`; a file whose own name has colons is taken as it is."""
    parts = path.split(":")
    for count in range(len(parts), 1, -1):
        file = pathlib.Path(":".join(parts[:count]))
        if file.is_file():
            return file, ":".join(parts[count:]) or None
    return pathlib.Path(parts[0]), ":".join(parts[1:]) or None


def default_config(overrides: list[str]) -> Config:
    """The defaults with `--config.a.b=value` overrides; errors as in `read_config`."""
    return _checked(Config(), overrides)


def _checked(config: Config, overrides: list[str]) -> Config:
    """The configuration with its overrides, looked at as a whole."""
    problems, good = unknown_fields(config), []
    for override in overrides:
        found = _unknown_setting(config, override) or _override_problem(config, override)
        problems += [found] if found else []
        good += [] if found else [override]
    config = _apply(config, good)
    problems += all_problems(config)
    dataset = getattr(config.data, "dataset", None)
    problems += _dataset_problem(dataset) if isinstance(dataset, str) else []
    for name, _, value in walk(config):
        problems += _function_problem(name, value) if callable(value) else []
    raise_all(problems)
    for name, field, value in walk(config):
        _set(config, name, coerced(value, field.type))
    return config


def _set(config: Config, name: str, value: Any) -> None:
    """Sets the setting of a dotted name."""
    *groups, last = name.split(".")
    setattr(functools.reduce(getattr, groups, config), last, value)


def _dataset_problem(name: str) -> list[str]:
    """Says that a data set is neither a builder's name nor a path that is there."""
    import data_builders  # imports nothing heavy

    names = data_builders.available()
    if name in names or pathlib.Path(name).expanduser().is_dir():
        return []
    return [
        f'config.data.dataset: found "{name}". {near_miss(name, names)} Or the path of a data set '
        "that was built before."
    ]


def _load(file: pathlib.Path, argument: str | None) -> Config:
    """Runs `get_config(argument)` of a configuration file, or reads a saved one."""
    if file.is_dir():
        inside = ", ".join(sorted(str(path) for path in file.glob("*.py"))) or "none"
        raise UserError(f"--config: {file} is a folder; needed: a file. Those in it: {inside}.")
    if not file.is_file():
        nearby = [str(path) for path in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise UserError(f"--config: there is no file {file}. {near_miss(str(file), nearby)}")
    if file.suffix == ".json":
        if argument is not None:
            raise UserError(f'--config {file}: a saved one takes no argument; found "{argument}".')
        return config_from_json(file)
    module = load_module(file)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(f"--config {file}: it has no function get_config(arg=None).")
    takes_argument = bool(inspect.signature(get_config).parameters)
    if argument is not None and not takes_argument:
        raise UserError(f'--config {file}: get_config takes no argument; found "{argument}".')
    try:
        config = get_config(argument) if argument is not None else get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        where = _last_line(error, file)
        raise UserError(
            f"--config {file}{where}: {type(error).__name__}: {error}. Mend the file and run again."
        ) from error
    if not isinstance(config, Config):
        raise UserError(
            f"--config {file}: get_config returned {type(config).__name__}; "
            "allowed: plankton_jax.config.Config."
        )
    return config


@functools.cache
def load_module(file: pathlib.Path) -> Any:
    """Runs a Python file once and returns it as a module."""
    name = f"plankton_jax_config_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"--config {file}: not a Python file; allowed: FILE.py[:ARG] or FILE.json.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--config {file}{_last_line(error, file)}: {type(error).__name__}: {error}."
        ) from error
    return module


def _last_line(error: BaseException, file: pathlib.Path) -> str:
    """`, line N` for the last line of `file` that the error came through."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f", line {error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if pathlib.Path(frame.filename).resolve() == file.resolve()
    ]
    return f", line {lines[-1]}" if lines else ""


def _unknown_setting(config: Config, override: str) -> str:
    """What is wrong with an argument that names no setting or gives it no value, or nothing."""
    names = setting_names(config)
    name, equals, _ = override.partition("=")
    setting = name.removeprefix("--config.")
    if not name.startswith("--config."):
        return f"{name}: unknown argument; --help lists those of this command."
    if setting not in names:
        hint = _near_setting(setting, names)
        return f"{name}: there is no such setting. {hint}"
    return "" if equals else f"{name}: a value is missing; write {name}=VALUE."


def _near_setting(setting: str, names: list[str]) -> str:
    """What a name of no setting may have meant: one of another group, of its initials, or near."""
    group, _, last = setting.rpartition(".")
    ends = {name: name.rpartition(".")[2] for name in names}
    fellows = [name for name in names if name.rpartition(".")[0] == group]
    same = [name for name, end in ends.items() if end == last]
    short = [name for name in fellows if "".join(w[0] for w in ends[name].split("_")) == last]
    if found := same or short:
        return f'Did you mean "{found[0]}"?'
    return near_miss(setting, fellows) or near_miss(setting, names)


def _override_problem(config: Config, override: str) -> str:
    """What ml_collections has against one override, or nothing."""
    try:
        _apply(config, [override])
    except Exception as error:
        name, _, value = override.partition("=")
        return f'{name}: found "{value}", which is not of the right type ({error}).'
    return ""


def _apply(config: Config, overrides: list[str]) -> Config:
    """A copy of `config` with the overrides parsed and set by ml_collections' flags."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    config_flags.DEFINE_config_dataclass(
        "config", _copied(config), flag_values=values, sys_argv=overrides
    )
    values(["command", *overrides])
    return cast(Config, values["config"].value)


def _copied(config: Any) -> Any:
    """A copy whose nested dataclasses are copies too; values are shared."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    nested = {name: _copied(v) for name, v in values.items() if dataclasses.is_dataclass(v)}
    return dataclasses.replace(config, **nested)


def config_to_json(config: Config) -> dict[str, Any]:
    """The resolved settings as plain values; functions as `config_file.py:name`.

    Raises:
      UserError: a function or class that cannot be found again by name.
    """
    result: dict[str, Any] = {}
    problems = []
    for name, field, value in walk(config):
        value = coerced(value, field.type)
        if callable(value):
            problems += _function_problem(name, value)
            value = {"function": getattr(value, "__qualname__", "?"), "of": origin(value)}
        *groups, last = name.split(".")
        functools.reduce(lambda node, key: node.setdefault(key, {}), groups, result)[last] = value
    raise_all(problems)
    return result


def _function_problem(name: str, value: Any) -> list[str]:
    """Says why a function given in a configuration cannot be named in a saved one."""
    module = sys.modules.get(value.__module__)
    if getattr(module, getattr(value, "__qualname__", "?"), None) is value:
        return []
    return [
        f"config.{name}: found {value!r}; allowed: a function or class defined at the top level of "
        "a file, so that the run can be repeated. Give it a name there."
    ]


def display_name(value: Any) -> str:
    """A name, or that of a function or class, for people to read."""
    return value if isinstance(value, str) else getattr(value, "__qualname__", repr(value))


def origin(value: Any) -> str:
    """Where a function is found again: the run's copy of the configuration file, or a module."""
    return CONFIG_COPY if value.__module__.startswith("plankton_jax_config_") else value.__module__


def config_from_json(file: pathlib.Path) -> Config:
    """Reads what `config_to_json` wrote, functions found beside the file or imported.

    Raises:
      UserError: the file is not a saved configuration of this version.
    """
    saved = read_json(file, "Needed: a configuration that a run saved, or FILE.py.")
    config = Config()
    names = setting_names(config)
    unknown = []
    for name, value in _flattened(saved):
        if name not in names:
            unknown.append(f"{file}: there is no setting {name}. {near_miss(name, names)}")
            continue
        if isinstance(value, dict):
            value = _found_function(value, file)
        if name == "optim.step_factor" and isinstance(value, float):
            value = (value,)  # saved when there was one for all epochs
        _set(config, name, _tupled(value))
    raise_all(unknown)
    return config


def _flattened(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of a nested object; an object of a function is a value."""
    items = []
    for key, item in value.items():
        if isinstance(item, dict) and set(item) != {"function", "of"}:
            items += _flattened(item, f"{prefix}{key}.")
        else:
            items.append((f"{prefix}{key}", item))
    return items


def _found_function(value: dict[str, str], file: pathlib.Path) -> Any:
    """The function or class that a saved configuration names."""
    try:
        if value["of"] == CONFIG_COPY:
            module = load_module(file.parent / CONFIG_COPY)
        else:
            module = importlib.import_module(value["of"])
        return getattr(module, value["function"])
    except (ImportError, AttributeError, OSError) as error:
        raise UserError(
            f"{file}: {value['function']} of {value['of']} is not to be found ({error})."
        ) from error


def _tupled(value: Any) -> Any:
    """Lists as tuples, all the way down: JSON has no tuples."""
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def config_hash(config: Config, results_only: bool = False) -> str:
    """sha256 over the settings (those that can change a result alone, on request)."""
    from plankton_jax.config import result_settings

    saved = dict(_flattened(config_to_json(config)))
    if len(config.optim.step_factor) == 1:  # as it was hashed when there was one for all epochs
        saved["optim.step_factor"] = config.optim.step_factor[0]
    if results_only:
        saved = {name: saved[name] for name in result_settings(config)}
    return hashlib.sha256(json.dumps(saved, sort_keys=True).encode()).hexdigest()
