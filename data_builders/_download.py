"""Fetches archives from where they are published, and goes on with one that was cut short.

Writes into one folder: an archive has its name once it is whole, `NAME.part` until then.
"""

import dataclasses
import hashlib
import http.client
import pathlib
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from plankton_jax.errors import UserError

# Who asks and what for: some hosts turn away the default of Python's library.
USER_AGENT = "plankton_jax/0.1 (plankton image classification; a person's download of a data set)"
TRIES = 5
WAIT_SECONDS = 2.0
TIMEOUT_SECONDS = 60
_BLOCK = 1 << 20
_TOLD_EVERY_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file that is published.

    Attributes:
      name: of the file here.
      url: where it is.
      size: bytes, where they are known.
      sha256: hexadecimal digits, where they are known.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None


def fetch(archive: Archive, folder: pathlib.Path, notify: Callable[[str], None]) -> pathlib.Path:
    """The path of the whole archive in `folder`, fetched if it is not there.

    Raises:
      UserError: it cannot be fetched, is not what was published, or does not fit on the disk; the
        message says where a copy fetched by hand is to be put.
    """
    path = folder / archive.name
    if path.is_file():
        _check(archive, path, path)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            notify(f"{archive.name}: {reason}; trying again")
            time.sleep(WAIT_SECONDS * attempt)
        try:
            _fetch_rest(archive, part, notify)
            _check(archive, part, path)
            part.rename(path)
            return path
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = str(error)
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410):
                break
            if isinstance(error, OSError) and error.errno is not None and not part.parent.is_dir():
                raise
    raise UserError(
        f"{archive.url}: cannot be fetched ({reason}). What has come is kept. Run the same command "
        f"again, or fetch it by hand and put it at {path}."
    )


def _fetch_rest(archive: Archive, part: pathlib.Path, notify: Callable[[str], None]) -> None:
    """Appends what is missing to `part`, which begins anew when the host cannot do so."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(archive.url, headers={"User-Agent": USER_AGENT})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing, or what is here is too long
            if archive.size is None or done == archive.size:
                return
            part.unlink()
        raise
    with response:
        if response.status != 206:
            done = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - done > free:
            raise UserError(
                f"{part.parent}: {archive.name} needs {(total - done) / 2**30:.1f} GiB more and "
                f"{free / 2**30:.1f} GiB are free. Make room and run the same command again."
            )
        told = time.monotonic()
        with part.open("ab" if done else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                done += len(block)
                if time.monotonic() - told >= _TOLD_EVERY_SECONDS:
                    told = time.monotonic()
                    of = "" if total is None else f" of {total / 2**20:.0f}"
                    notify(f"{archive.name}: {done / 2**20:.0f}{of} MiB fetched")
        if total is not None and done != total:
            raise http.client.IncompleteRead(b"", total - done)


def _check(archive: Archive, path: pathlib.Path, final: pathlib.Path) -> None:
    """Refuses a file that is not the one that was published."""
    size = path.stat().st_size
    problem = ""
    if archive.size is not None and size != archive.size:
        problem = f"found {size} bytes, {archive.size} were published"
    elif archive.sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != archive.sha256:
            problem = f"its sha256 is {found}, {archive.sha256} was published"
    if problem:
        if path != final:
            path.unlink()
        raise UserError(
            f"{final}: {problem}. Remove it if it is there, and run the same command again or put "
            f"a whole copy of {archive.url} there."
        )
