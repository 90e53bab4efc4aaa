"""Public weights by name: from the folder, from a hub, or a message that says what to do."""

import errno
import hashlib
import http.server
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest
from weights_support import random_state_dict, write

from plankton_jax.errors import UserError
from plankton_jax.weights import hub, open_source

NAME = "test_vit.r160_in1k"


def _convert(tmp_path, endpoint, checkpoint=NAME):
    """Runs the command with another hub than the real one, or none."""
    arguments = ("--model", "test_vit", "--checkpoint", checkpoint)
    arguments += ("--out", tmp_path / "x.safetensors", "--cache", tmp_path / "cache")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "plankton_jax.convert", *map(str, arguments)],
        env=clean | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )


class _Hub(http.server.BaseHTTPRequestHandler):
    """Serves one file as the hub does."""

    content = b""
    etag = ""

    def do_HEAD(self):
        self._answer(False)

    def do_GET(self):
        self._answer(True)

    def _answer(self, with_content):
        if not self.path.startswith(f"/timm/{NAME}/resolve/"):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{self.etag}"')
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        if with_content:
            self.wfile.write(self.content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def served(tmp_path):
    """The address of a hub that has the public weights of `test_vit`."""
    path = write(tmp_path / "served.safetensors", random_state_dict("test_vit", 1000))
    _Hub.content = path.read_bytes()
    _Hub.etag = hashlib.sha256(_Hub.content).hexdigest()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_weights_are_downloaded_once_and_checked(tmp_path, served):
    first = _convert(tmp_path, served)
    assert first.returncode == 0, first.stderr
    assert "downloading timm/test_vit.r160_in1k" in first.stderr
    assert "licence of the weights: apache-2.0" in first.stdout
    kept = tmp_path / "cache" / f"{NAME}.safetensors"
    assert kept.read_bytes() == _Hub.content
    line = (tmp_path / "cache" / f"{NAME}.safetensors.sha256").read_text()
    assert line == f"{_Hub.etag}  {NAME}.safetensors\n"
    assert sorted(path.name for path in kept.parent.iterdir()) == [
        kept.name,
        f"{kept.name}.sha256",
    ]
    offline = _convert(tmp_path, "http://127.0.0.1:9")
    assert offline.returncode == 0 and "downloading" not in offline.stderr
    absent = _convert(tmp_path, served, "someone/else")
    assert absent.returncode == 2 and "the hub has no such repository" in absent.stderr
    assert 'There is no file "someone/else" either.' in absent.stderr


def test_a_damaged_download_is_refused(tmp_path, served):
    _Hub.etag = "0" * 64
    told = _convert(tmp_path, served)
    assert told.returncode == 2 and "has not the sha256 0000" in told.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_out_of_reach_says_which_file_goes_where(tmp_path):
    start = time.monotonic()
    told = _convert(tmp_path, "http://127.0.0.1:9")
    assert time.monotonic() - start < 60
    assert told.returncode == 2 and "Traceback" not in told.stderr
    path = tmp_path / "cache" / f"{NAME}.safetensors"
    assert f"put it here as {path}" in told.stderr
    assert f"https://huggingface.co/timm/{NAME}/resolve/main/model.safetensors" in told.stderr
    assert told.stderr.count("\n") == 1 and "There is no file" not in told.stderr
    mistyped = _convert(tmp_path, "http://127.0.0.1:9", "weights/mine")
    assert 'There is no file "weights/mine" either.' in mistyped.stderr


def test_a_file_put_there_by_hand_is_used_and_watched(tmp_path):
    path = hub.cached_path(f"timm/{NAME}", tmp_path)
    path.write_bytes(b"weights")
    assert hub.fetch(f"timm/{NAME}", tmp_path) == path
    hub.record(path)
    assert hub.fetch(f"timm/{NAME}", tmp_path) == path
    path.write_bytes(b"other weights")
    with pytest.raises(UserError, match="sha256 is .*Delete both") as error:
        hub.fetch(f"timm/{NAME}", tmp_path)
    assert hashlib.sha256(b"other weights").hexdigest() in str(error.value)


def test_a_damaged_file_put_there_by_hand_may_be_replaced(tmp_path):
    whole = write(tmp_path / "whole.safetensors", random_state_dict("test_vit")).read_bytes()
    path = hub.cached_path(f"timm/{NAME}", tmp_path / "cache")
    path.parent.mkdir()
    path.write_bytes(whole[:-10])
    with pytest.raises(UserError, match="cannot be read: cut short"):
        open_source(NAME, path.parent, architecture=None)
    path.write_bytes(whole)
    assert open_source(NAME, path.parent, architecture=None).model == "test_vit"
    path.write_bytes(whole[:-10])
    with pytest.raises(UserError, match="sha256 is "):
        open_source(NAME, path.parent, architecture=None)


def test_a_cache_that_cannot_be_written_is_used(tmp_path, monkeypatch):
    path = write(hub.cached_path(f"timm/{NAME}", tmp_path), random_state_dict("test_vit"))

    def refuse(self, text):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(pathlib.Path, "write_text", refuse)
    told = []
    source = open_source(NAME, tmp_path, architecture=None, notify=told.append)
    assert source.path == path and list(tmp_path.iterdir()) == [path]
    (line,) = told
    assert "the checksum cannot be kept (Read-only file system)" in line


def test_names_of_repositories():
    assert hub.hub_id(NAME) == hub.hub_id(f"hf_hub:timm/{NAME}") == f"timm/{NAME}"
    assert hub.hub_id("https://huggingface.co/lab/net") == "lab/net"
    assert hub.cached_path("lab/net", "/cache").name == "lab--net.safetensors"
    assert hub.tag_of("lab/net") == "" and hub.tag_of(f"timm/{NAME}") == NAME
    with pytest.raises(UserError, match=f'Did you mean "{NAME}"'):
        hub.hub_id("test_vit.r160_in")


def test_weights_outside_the_hub_say_how_to_get_them(tmp_path):
    with pytest.raises(UserError, match="Download https://.*xception.*--out .*legacy_xception"):
        hub.fetch("timm/legacy_xception.tf_in1k", tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: weights cannot be kept there"):
        hub.fetch(f"timm/{NAME}", tmp_path / "file")
