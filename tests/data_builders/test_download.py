"""Fetching archives from a host on this machine: whole, cut short, resumed, refused."""

import hashlib
import http.server
import re
import threading

import pytest

from data_builders import _download
from data_builders._download import Archive, fetch
from plankton_jax.errors import UserError

CONTENT = bytes(range(256)) * 40_000


class _Host(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the class attributes say how well."""

    cut_after: int | None = None
    ranges = True
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.seen.append((self.headers["User-Agent"], self.headers.get("Range", "")))
        if self.path != "/archive.zip":
            self.send_error(404)
            return
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        body = CONTENT[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if type(self).cut_after is not None:
            body, type(self).cut_after = body[: type(self).cut_after], None
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Says nothing."""


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(_download, "WAIT_SECONDS", 0.0)
    handler = type("Handler", (_Host,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_archive_is_fetched_once(host, tmp_path):
    handler, url = host
    archive = Archive(
        "a.zip", f"{url}/archive.zip", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()
    )
    for _ in range(2):
        path = fetch(archive, tmp_path / "new", print)
        assert path.read_bytes() == CONTENT
    assert len(handler.seen) == 1 and "plankton_jax" in handler.seen[0][0]
    assert [file.name for file in path.parent.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("ranges", [True, False])
def test_one_that_is_cut_short_goes_on(host, tmp_path, ranges):
    handler, url = host
    handler.cut_after, handler.ranges = 3_000_000, ranges
    told: list[str] = []
    path = fetch(Archive("a.zip", f"{url}/archive.zip"), tmp_path, told.append)
    assert path.read_bytes() == CONTENT
    assert "trying again" in told[0] and len(handler.seen) == 2
    assert handler.seen[1][1].startswith("bytes=")


def test_what_is_there_already_is_not_asked_for_again(host, tmp_path):
    handler, url = host
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:5_000_000])
    assert fetch(Archive("a.zip", f"{url}/archive.zip"), tmp_path, print).read_bytes() == CONTENT
    assert handler.seen[0][1] == "bytes=5000000-"
    (tmp_path / "b.zip.part").write_bytes(CONTENT)  # killed between the last byte and the name
    assert fetch(Archive("b.zip", f"{url}/archive.zip"), tmp_path, print).read_bytes() == CONTENT


def test_what_cannot_be_had_says_where_to_put_it(host, tmp_path):
    _, url = host
    with pytest.raises(UserError, match=r"404.*put it at .*a\.zip"):
        fetch(Archive("a.zip", f"{url}/nothing"), tmp_path, print)
    with pytest.raises(UserError, match="cannot be fetched"):
        fetch(Archive("a.zip", "http://127.0.0.1:1/a"), tmp_path, lambda text: None)


def test_another_file_than_was_published_is_refused(host, tmp_path):
    _, url = host
    with pytest.raises(UserError, match="sha256 is .*was published"):
        fetch(Archive("a.zip", f"{url}/archive.zip", sha256="0" * 64), tmp_path, print)
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.zip").write_bytes(b"by hand")
    with pytest.raises(UserError, match="found 7 bytes, 9 were published"):
        fetch(Archive("a.zip", f"{url}/archive.zip", size=9), tmp_path, print)
    assert (tmp_path / "a.zip").read_bytes() == b"by hand"
