"""Files of web servers: one host, a bounded wait, and room left on the disk."""

from __future__ import annotations

import collections
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wfvae_cli.dataset import remote
from wfvae_cli.errors import InputError


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        port = self.headers["Host"].rpartition(":")[2]
        targets = {"/here": "/file", "/away": f"http://localhost:{port}/file"}
        if self.path in targets:
            self.send_response(302)
            self.send_header("Location", targets[self.path])
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"content")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()


def test_redirects_stay_on_the_host(server: str, tmp_path: Path) -> None:
    target = tmp_path / "x"
    remote.download(f"{server}/here", str(target), lambda: None)
    assert target.read_bytes() == b"content"
    for call in (
        lambda: remote.download(f"{server}/away", str(target), lambda: None),
        lambda: remote.stamp(f"{server}/away"),
    ):
        with pytest.raises(InputError, match="redirects to localhost"):
            call()


def test_a_download_leaves_room(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000))
    with pytest.raises(InputError, match="nearly full"):
        remote.download(f"{server}/file", str(tmp_path / "x"), lambda: None)
