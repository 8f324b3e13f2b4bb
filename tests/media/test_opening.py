"""One file opens one file: playlists, descriptions, names that look like protocols, web servers."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from wfvae_cli.errors import VideoError
from wfvae_cli.media import web
from wfvae_cli.media.audio import AudioTrack, has_sound
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip

from .conftest import MakeClip, read, write_clip

SDP = (
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)


def playlist(*names: str) -> str:
    parts = "".join(f"#EXTINF:1,\n{name}\n" for name in names)
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n{parts}#EXT-X-ENDLIST\n"


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(VideoError) as caught, open_clip(path, **options) as reader:
        list(reader)
    return str(caught.value)


def count(path: Path | str, **options: Any) -> int:
    with open_clip(path, **options) as reader:
        return len(list(reader))


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(data)))


# playlists


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `ds` with a clip in it, another below it, and one beside the folder."""
    (tmp_path / "ds" / "sub").mkdir(parents=True)
    source = write_clip(tmp_path / "secret.ts", 5)
    for name in ("own.ts", "sub/below.ts"):
        shutil.copy(source, tmp_path / "ds" / name)
    return tmp_path / "ds"


@pytest.mark.parametrize("name", ["a.m3u8", "a.mp4", "a.ts", "a"])
@pytest.mark.parametrize(
    "script", [playlist("own.ts"), "ffconcat version 1.0\nfile own.ts\n", SDP.decode()]
)
def test_scripts_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str
) -> None:
    path = folder / name
    path.write_text(script)
    assert "playlist or script" in refusal(path)
    path.write_text("\ufeff" + script)
    assert "playlist or script" in refusal(path)
    pipe(monkeypatch, script.encode())
    assert "playlist or script" in refusal("-")


def test_a_named_playlist_opens_what_lies_beside_or_below_it(folder: Path) -> None:
    path = folder / "a.m3u8"
    path.write_text(playlist("own.ts", "sub/below.ts"))
    assert count(path, trusted=True) == 10
    script = folder / "a.ffconcat"
    script.write_text("ffconcat version 1.0\nfile own.ts\nfile sub/below.ts\n")
    assert count(script, trusted=True) == 10


@pytest.mark.parametrize(
    "name", ["../secret.ts", "{outside}", "file://{outside}", "link.ts", "http://127.0.0.1:9/a.ts"]
)
def test_a_named_playlist_opens_nothing_else(folder: Path, name: str) -> None:
    outside = folder.parent / "secret.ts"
    (folder / "link.ts").symlink_to(outside)
    named = name.format(outside=outside)
    path = folder / "a.m3u8"
    path.write_text(playlist(named))
    refusal(path, trusted=True)
    if name == "link.ts":
        return  # of concat scripts names are judged, not links
    script = folder / "a.ffconcat"
    script.write_text(f"ffconcat version 1.0\nfile '{named}'\n")
    refusal(script, trusted=True)


def test_a_script_under_another_name_is_refused_though_it_was_named(folder: Path) -> None:
    path = folder / "a.mp4"
    path.write_text("ffconcat version 1.0\nfile own.ts\n")
    assert "under another name" in refusal(path, trusted=True)


def test_a_playlist_in_a_concat_script_is_refused(folder: Path) -> None:
    (folder / "b.m3u8").write_text(playlist("own.ts"))
    path = folder / "a.ffconcat"
    path.write_text("ffconcat version 1.0\nfile b.m3u8\n")
    refusal(path, trusted=True)


# names


@pytest.mark.parametrize("name", ["12:30:45.mp4", "Movie: one.mp4", "http:x.mp4", "a%20b?#.mp4"])
def test_names_that_look_like_urls(make_clip: MakeClip, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copy(make_clip("a.mp4", 5, sound=True), path)
    assert read(path)[2] == list(range(5))
    assert has_sound(path)
    with AudioTrack(path, read(path)[0].start) as track:
        assert track.present


def test_names_relative_to_the_working_folder(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(make_clip("a.mp4", 5, sound=True), tmp_path / "http:x.mp4")
    monkeypatch.chdir(tmp_path)
    assert read("http:x.mp4")[2] == list(range(5))
    assert has_sound("http:x.mp4")


def test_file_urls(make_clip: MakeClip) -> None:
    path = make_clip("a b.mp4", 5)
    assert read(path.as_uri())[2] == list(range(5))


def test_a_start_beyond_all_numbers(make_clip: MakeClip) -> None:
    for start in (1e17, 1e300):
        with pytest.raises(VideoError, match="nothing is left after"):
            open_clip(make_clip("a.mp4", 3), Sampling(start=start))


# pipes that have names


@contextlib.contextmanager
def fed(data: bytes) -> Iterator[str]:
    """The path of a pipe that data comes out of, as of the shell's `<(command)`."""
    out, into = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(into, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield f"/dev/fd/{out}"
    finally:
        os.close(out)
        thread.join(10)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="this system has no /dev/fd")
def test_a_pipe_with_a_path(make_clip: MakeClip) -> None:
    data = make_clip("a.mkv", 20).read_bytes()
    with fed(data) as path:
        assert count(path) == 20
    with fed(data[: len(data) // 2]) as path:
        assert "cut short" in refusal(path)
    with fed(b"") as path:
        assert "nothing came" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe(make_clip: MakeClip, tmp_path: Path) -> None:
    data, path = make_clip("a.mkv", 10).read_bytes(), tmp_path / "fifo"
    os.mkfifo(path)
    thread = threading.Thread(target=lambda: path.write_bytes(data))
    thread.start()
    assert count(path) == 10
    thread.join(10)


# web servers


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]]
    asked: ClassVar[list[str]]
    closing: ClassVar[threading.Event]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        with contextlib.suppress(OSError):
            self._answer()

    def _answer(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/silent":
            self.closing.wait(20)
        elif self.path in ("/endless", "/drip"):
            self.send_response(200)
            self.end_headers()
            while not self.closing.wait(0.02 if self.path == "/drip" else 0):
                self.wfile.write(b"\x1a" if self.path == "/drip" else bytes(1 << 16))
        else:
            self._send(self.files.get(self.path.removeprefix("/whole")))

    def _send(self, data: bytes | None) -> None:
        if data is None:
            self.send_error(404)
            return
        span = self.headers.get("Range")
        if span and not self.path.startswith("/whole"):
            start = int(span.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            data = data[start:]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Handler]]]:
    """The address of a server, and its files."""

    class Own(Handler):
        files: ClassVar[dict[str, bytes]] = {}
        asked: ClassVar[list[str]] = []
        closing: ClassVar[threading.Event] = threading.Event()

    handler = Own
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(web, "SILENCE", 0.5)
        monkeypatch.setattr(web, "OPENING", 0.5)
        yield f"http://127.0.0.1:{running.server_port}", handler
        handler.closing.set()
        running.shutdown()
        thread.join(10)


def test_files_of_a_web_server(make_clip: MakeClip, server: tuple[str, type[Handler]]) -> None:
    address, handler = server
    for name in ("a.mkv", "a.mp4", "a.ts"):
        noise = {"pix_fmt": "yuv444p", "codec": "ffv1"} if name == "a.mkv" else {}
        handler.files["/" + name] = make_clip(name, 50, **noise).read_bytes()
        info, _, numbers = read(f"{address}/{name}")
        assert numbers == list(range(50))
        assert info.frames == pytest.approx(50, abs=1)
        assert read(f"{address}/{name}", start=1.0)[2] == list(range(25, 50))
    for name in ("a.mkv", "a.ts"):
        assert read(f"{address}/whole/{name}", start=1.0)[2] == list(range(25, 50))


def test_a_cut_file_of_a_web_server(make_clip: MakeClip, server: tuple[str, type[Handler]]) -> None:
    address, handler = server
    data = make_clip("a.mp4", 30, container_options={"movflags": "faststart"}).read_bytes()
    handler.files["/a.mp4"] = data[:-20]
    assert "cut short" in refusal(f"{address}/a.mp4")
    assert "404" in refusal(f"{address}/b.mp4")


def test_only_the_named_host_is_asked(
    make_clip: MakeClip, server: tuple[str, type[Handler]]
) -> None:
    address, handler = server
    handler.files["/a.mp4"] = make_clip("a.mp4", 5).read_bytes()
    assert count(f"{address}/to//a.mp4") == 5
    handler.asked.clear()
    elsewhere = address.replace("127.0.0.1", "localhost")
    assert "another host" in refusal(f"{address}/to/{elsewhere}/a.mp4")
    assert "not allowed" in refusal(f"{address}/to/file:///etc/passwd")
    handler.files["/a.m3u8"] = playlist(f"{address}/a.ts").encode()
    assert "playlist" in refusal(f"{address}/a.m3u8")
    assert not {"/a.mp4", "/a.ts"} & set(handler.asked)


def test_servers_that_never_get_anywhere(server: tuple[str, type[Handler]]) -> None:
    address, _ = server
    begin = time.monotonic()
    assert "sent nothing" in refusal(f"{address}/silent")
    assert "no frame" in refusal(f"{address}/drip")
    assert "not a video" in refusal(f"{address}/endless")
    assert time.monotonic() - begin < 10


def test_other_schemes_are_refused() -> None:
    for url in ("rtsp://127.0.0.1/a", "udp://127.0.0.1:9", "concat://a", "s3://bucket/a.mp4"):
        assert "expected http:// or https://" in refusal(url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_opening(server: tuple[str, type[Handler]], number: signal.Signals) -> None:
    address, handler = server
    code = (
        "import signal, sys\nfrom wfvae_cli.media.reader import open_clip\n"
        "def leave(*_): sys.exit(9)\n"
        f"signal.signal({int(number)}, leave)\nopen_clip({address + '/silent'!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        for _ in range(500):
            if handler.asked:
                break
            time.sleep(0.02)
        child.send_signal(number)
        assert child.wait(10) == 9
