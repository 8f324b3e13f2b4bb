"""Where a clip's bytes come from, and letting go of them."""

from __future__ import annotations

import io
import shutil
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wfvae_cli.media.reader import open_clip

from .conftest import MakeClip, read


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the bytes of a file standard input, as a pipe without seeking."""

    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._data = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            return self._data.readinto(buffer)

    def feed(data: bytes) -> None:
        wrapper = io.TextIOWrapper(io.BufferedReader(Pipe(data)))
        monkeypatch.setattr(sys, "stdin", wrapper)

    return feed


def test_stdin(make_clip: MakeClip, stdin: Any) -> None:
    stdin(make_clip("a.mkv", 20).read_bytes())
    info, pts, numbers = read("-", start=0.2, frames=5)
    assert numbers == [5, 6, 7, 8, 9]
    assert info.frames is None
    assert info.container == "matroska"
    assert info.start == Fraction(1, 5)
    assert pts[0] == 0


def test_stdin_from_a_moment_within_the_first_frame(make_clip: MakeClip, stdin: Any) -> None:
    stdin(make_clip("a.nut", 5, codec="mjpeg", pix_fmt="yuvj420p").read_bytes())
    assert read("-", start=0.0000001)[2] == [0, 1, 2, 3, 4]


def test_fragmented_mp4_on_stdin(make_clip: MakeClip, stdin: Any) -> None:
    flags = {"movflags": "frag_keyframe+empty_moov"}
    stdin(make_clip("a.mp4", 20, container_options=flags).read_bytes())
    assert read("-")[2] == list(range(20))


def test_names_that_ffmpeg_would_misread(make_clip: MakeClip, tmp_path: Path) -> None:
    for name in ("concat:a.mp4", "100%d.mp4", "a b?#.mp4"):
        path = tmp_path / name
        shutil.copy(make_clip("a.mp4", 3), path)
        assert read(path)[2] == [0, 1, 2]


def test_iterating_in_a_thread_and_closing_from_another(make_clip: MakeClip) -> None:
    reader = open_clip(make_clip("a.mp4", 50))
    got: list[NDArray[Any]] = []
    started = threading.Event()

    def work() -> None:
        for frame in reader:
            got.append(frame.pixels)
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(10)
    reader.close()
    reader.close()
    thread.join(10)
    assert not thread.is_alive()
    assert 1 <= len(got) <= 50
    assert list(reader) == []


def test_closing_does_not_wait_for_a_blocked_read(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 256, 512, 3), np.uint8)
    path = make_clip("a.mkv", list(noise), codec="ffv1", pix_fmt="yuv444p")
    content = path.read_bytes()
    opened, gate = threading.Event(), threading.Event()

    class Slow(io.RawIOBase):
        sent = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if opened.is_set():
                gate.wait(20)
            part = content[self.sent : self.sent + len(buffer)]
            buffer[: len(part)] = part
            self.sent += len(part)
            return len(part)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Slow())))
    reader = open_clip("-", threads=1)
    opened.set()
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(f.pts for f in reader))
    thread.start()
    thread.join(0.5)
    reader.close()  # returns at once, although the thread holds the reader
    assert thread.is_alive()
    gate.set()
    thread.join(10)
    assert not thread.is_alive()
    assert len(taken) < 24
