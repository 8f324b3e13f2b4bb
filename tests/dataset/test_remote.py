"""Copies of files on web servers are bounded and whole."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_clip
from wfvae_cli.dataset import remote
from wfvae_cli.dataset.items import is_single
from wfvae_cli.errors import InputError

LENGTHS = {
    "/whole": 300_000,
    "/moved": None,
    "/away": None,
    "/short": 1_000_000,
    "/huge": 10**16,
    "/endless": None,
}


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        port = self.headers["Host"].rpartition(":")[2]
        moved = {"/moved": "/whole", "/away": f"http://localhost:{port}/whole"}.get(self.path)
        self.send_response(200 if moved is None else 302)
        if moved is not None:
            self.send_header("Location", moved)
        length = LENGTHS[self.path]
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD" or moved is not None:
            return
        with contextlib.suppress(OSError):
            self.wfile.write(bytes(300_000))
            while self.path == "/endless":
                self.wfile.write(bytes(1 << 16))

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


def download(url: str, folder: Path) -> int:
    target = folder / "copy"
    remote.download(url, str(target), lambda: None)
    return target.stat().st_size


def test_a_whole_file(address: str, tmp_path: Path) -> None:
    assert download(f"{address}/whole", tmp_path) == 300_000


def test_a_connection_that_ends_early(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="300000 of 1000000 bytes"):
        download(f"{address}/short", tmp_path)


def test_an_announced_size_that_does_not_fit(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="may be copied"):
        download(f"{address}/huge", tmp_path)
    assert (tmp_path / "copy").stat().st_size == 0


def test_an_endless_file(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_MOST_UNANNOUNCED", 1 << 20)
    with pytest.raises(InputError, match="more than the 1 MiB"):
        download(f"{address}/endless", tmp_path)
    assert (tmp_path / "copy").stat().st_size <= 1 << 20


def test_redirects_stay_on_the_host(address: str, tmp_path: Path) -> None:
    assert download(f"{address}/moved", tmp_path) == 300_000
    with pytest.raises(InputError, match="redirects to another host, http://localhost"):
        download(f"{address}/away", tmp_path)
    with pytest.raises(InputError, match="redirects to another host, http://localhost"):
        remote.stamp(f"{address}/away")


def test_a_disk_that_fills(address: str) -> None:
    """What is written to /dev/full fails as on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this system")
    with pytest.raises(InputError, match="cannot be kept in /dev/full: No space left"):
        remote.download(f"{address}/whole", "/dev/full", lambda: None)


def test_a_folder_needs_no_slash_to_be_a_dataset(tmp_path: Path) -> None:
    write_clip(tmp_path / "in" / "a.mp4")
    url = f"file://{tmp_path}"
    assert wfvae("encode", f"{url}/in", "-o", f"{url}/z").code == 0
    assert wfvae("decode", f"{url}/z", "-o", tmp_path / "back").code == 0
    assert (tmp_path / "back" / "a.mp4").exists()
    one = f"{url}/z/a.mp4.safetensors"
    assert wfvae("decode", one, "-o", tmp_path / "one.mp4").code == 0
    for command in ("info", "audit"):
        assert wfvae(command, one).code == 0
    assert wfvae("convert-cache", f"{url}/z", "-o", f"{url}/c", "--format", "energon").code == 0
    assert (tmp_path / "c" / "latents-000000-000.tar").exists()


def test_a_file_of_a_store_goes_into_a_folder(tmp_path: Path) -> None:
    assert not is_single("memory://videos/a.mp4")
    answer = wfvae("encode", "s3://videos/a.mp4", "-o", tmp_path / "z.safetensors")
    assert_refused(answer, 2, "a store (s3://) make a dataset", "give a folder")
    assert_refused(wfvae("audit", "s3://cache/x"), 2, "files of this machine")
