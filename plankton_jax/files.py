"""Writing a file whole or not at all, holding one, and reading JSON that may be damaged.

Touches the file it is given and one temporary beside it.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from plankton_jax.errors import UserError


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path` that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a folder, would outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def lock(path: pathlib.Path, where: str, busy: str) -> Iterator[None]:
    """Holds a file, made if need be, for this process alone.

    Args:
      where: what messages begin with.
      busy: what another process that holds it is doing, and what to do about it.

    Raises:
      UserError: another process holds it, or it cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise UserError(f"{where}: cannot be written ({error.strerror}).") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{where}: {busy}") from error
        except OSError as error:
            raise UserError(
                f"{where}: files cannot be locked there ({error.strerror}); choose a folder on "
                "another file system."
            ) from error
        yield


def read_json(path: pathlib.Path, remedy: str) -> dict[str, Any]:
    """The JSON object of a file.

    Args:
      remedy: the sentence that tells a user what to do about a damaged file.

    Raises:
      UserError: the file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}). {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {type(value).__name__}, not a JSON object. {remedy}")
    return value
