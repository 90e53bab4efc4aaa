"""Public weights by name: a folder of files with checksums, filled from the Hugging Face hub.

A file in the folder is used as it lies there, with no network. huggingface_hub is imported only to
download. Reads and writes the folder.
"""

import errno
import os
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

from plankton_jax.errors import UserError, near_miss
from plankton_jax.files import replacing
from plankton_jax.pretrained import PRETRAINED
from plankton_jax.weights.files import file_sha256

FILE = "model.safetensors"
TIMEOUT = 10.0  # seconds until the hub counts as out of reach


def hub_id(text: str) -> str:
    """The hub's name of a repository: `timm/NAME.TAG` for NAME.TAG, others as they are.

    Raises:
      UserError: neither OWNER/NAME nor the name of public weights.
    """
    name = re.sub(r"^(hf[_-]hub:|https?://huggingface\.co/)", "", text).strip("/")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return name
    if name in PRETRAINED:
        return f"timm/{name}"
    raise UserError(
        f'weights: there is no file "{text}", and no public weights have this name. '
        f"{near_miss(name, PRETRAINED)} Allowed: a file, OWNER/NAME on the hub, or NAME.TAG."
    )


def tag_of(repository: str) -> str:
    """The public weights that a hub repository holds, or "" where that is not known."""
    name = repository.removeprefix("timm/")
    return name if name in PRETRAINED else ""


def cached_path(repository: str, folder: str | os.PathLike) -> pathlib.Path:
    """Where the weights of a hub repository lie: `timm/NAME.TAG` as NAME.TAG.safetensors."""
    name = repository.removeprefix("timm/").replace("/", "--")
    return pathlib.Path(folder).expanduser().resolve() / f"{name}.safetensors"


def fetch(
    repository: str, folder: str | os.PathLike, notify: Callable[[str], None] | None = None
) -> pathlib.Path:
    """The file of a hub repository, downloaded where the folder does not have it yet.

    It is compared with its checksum, which `record` writes when the file has been read.

    Raises:
      UserError: it is not in the folder and cannot be downloaded, or is not what it was.
    """
    path = cached_path(repository, folder)
    if not path.is_file():
        _download(repository, path, notify or (lambda text: None))
    _check(path)
    return path


def record(path: pathlib.Path, notify: Callable[[str], None] | None = None) -> None:
    """Writes a file's checksum beside it where there is none, once it proved to be whole.

    The line is as `sha256sum` writes it and `sha256sum --check` reads it. A folder that cannot be
    written, as a shared one may be, is told.
    """
    beside = _record_of(path)
    if beside.is_file():
        return
    try:
        with replacing(beside) as temporary:
            temporary.write_text(f"{file_sha256(path)}  {path.name}\n")
    except OSError as error:
        notify = notify or (lambda text: None)
        notify(
            f"{beside}: the checksum cannot be kept ({error.strerror}), so nothing will tell "
            "whether the weights beside it are still the same"
        )


def _record_of(path: pathlib.Path) -> pathlib.Path:
    """Where the checksum of a file lies."""
    return path.with_name(path.name + ".sha256")


def _check(path: pathlib.Path) -> None:
    """Compares a file with the checksum beside it, where there is one."""
    beside = _record_of(path)
    if not beside.is_file():
        return
    found = file_sha256(path)
    expected = beside.read_text().split(" ")[0].strip()
    if found != expected:
        raise UserError(
            f"{path}: its sha256 is {found}, and {beside.name} beside it says {expected}: the file "
            "is damaged or another one. Delete both to download it anew; where the file was "
            f"replaced on purpose, delete {beside.name} alone."
        )


def _download(repository: str, path: pathlib.Path, notify: Callable[[str], None]) -> None:
    """Downloads the weights of a repository to `path`, whole or not at all."""
    known = PRETRAINED.get(tag_of(repository))
    if known and known.url:
        raise UserError(
            f"{known.name}: not on the hub and not in the cache. Download {known.url} and convert "
            f"it into the cache: python -m plankton_jax.convert --model {known.model} "
            f"--checkpoint FILE --tag {known.name} --out {path}"
        )
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise _not_to_be_had(repository, path, "huggingface_hub is not installed") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path.parent}: weights cannot be kept there ({error.strerror}); choose another "
            "folder with config.model.weights_cache, or --cache of the convert command."
        ) from error
    absent = (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError)
    try:
        found = huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(repository, FILE), timeout=TIMEOUT
        )
        notify(f"downloading {repository}, {(found.size or 0) / 1e6:.0f} MB, to {path}")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
            file = huggingface_hub.hf_hub_download(
                repository,
                FILE,
                revision=found.commit_hash,
                local_dir=folder,
                etag_timeout=TIMEOUT,
            )
            _check_download(file, found, repository)
            os.replace(file, path)
    except absent as error:
        raise UserError(
            f"{repository}: the hub has no such repository, none that this machine may read, or "
            f"none with a {FILE} ({_first_line(error)}).{_no_file(repository)}"
        ) from error
    except UserError:
        raise
    except Exception as error:  # whatever the hub's client runs into, the way out is the same
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _not_to_be_had(repository, path, _first_line(error)) from error


def _check_download(file: str, found: Any, repository: str) -> None:
    """Compares a downloaded file with the checksum that the hub gives for it."""
    is_sha256 = re.fullmatch(r"[0-9a-f]{64}", found.etag or "")
    if is_sha256 and file_sha256(file) != found.etag:
        raise UserError(
            f"{repository}: what was downloaded has not the sha256 {found.etag} that the hub gives "
            "for it. Run the same command again."
        )


def _not_to_be_had(repository: str, path: pathlib.Path, reason: str) -> UserError:
    return UserError(
        f"{repository}: not in the cache, and the hub is out of reach ({reason}). Where there is a "
        f"network, download https://huggingface.co/{repository}/resolve/main/{FILE} ; put it here "
        f"as {path} and run the same command again.{_no_file(repository)}"
    )


def _no_file(repository: str) -> str:
    """A sentence for who meant a file; nothing for the name of public weights."""
    if tag_of(repository) or pathlib.Path(repository).exists():
        return ""
    return f' There is no file "{repository}" either.'


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
