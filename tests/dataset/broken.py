"""Files that a dataset should not contain, and always does."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from PIL import Image

from tests.dataset.clips import write_clip, write_image


def make_broken(folder: Path) -> list[str]:
    """One file of every kind below `folder`; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in KINDS.items():
        make(folder / name)
    return sorted(KINDS)


def _empty(path: Path) -> None:
    path.touch()


def _text(path: Path) -> None:
    path.write_text("I am not a video.\n" * 50)


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(5000))


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"frames": list(range(1000))}))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as box:
        box.writestr("clip.mp4", b"\0" * 2000)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere.mp4")


def _link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def _without_moov(path: Path) -> None:
    write_clip(path, 20)
    path.write_bytes(path.read_bytes()[:1500])


def _truncated(path: Path) -> None:
    """The index in front, half of the packets gone."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as box:
        stream = box.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for i in range(40):
            pixels = np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)
            box.mux(stream.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        box.mux(stream.encode(None))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w") as box:
        stream = box.add_stream("aac", rate=48000, layout="mono")
        for i in range(8):
            frame = AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.rate, frame.pts = 48000, i * 1024
            frame.time_base = Fraction(1, 48000)
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))


def _changing_size(path: Path) -> None:
    """Motion JPEG whose pictures grow."""
    with path.open("wb") as file:
        for size in ((32, 24), (32, 24), (48, 40)):
            Image.new("RGB", size, (90, 30, 10)).save(file, "jpeg")


def _cut(path: Path) -> None:
    """An image without its second half."""
    write_image(path, 200, 150, seed=3)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _huge_png(path: Path) -> None:
    """100,000 pixels a side, in a header that is valid."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    body = struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _huge_video(path: Path) -> None:
    path.write_bytes(b"YUV4MPEG2 W100000 H100000 F25:1 Ip A1:1 C420\nFRAME\n" + b"\x80" * 5000)


def _no_frames(path: Path) -> None:
    path.write_bytes(b"YUV4MPEG2 W32 H24 F25:1 Ip A1:1 C420\n")


def _corrupt(path: Path) -> None:
    """Its packets overwritten with noise."""
    write_clip(path, 30)
    data = bytearray(path.read_bytes())
    begin = data.find(b"mdat") + 4
    end = data.rfind(b"moov") - 4
    data[begin:end] = np.random.default_rng(2).bytes(end - begin)
    path.write_bytes(data)


KINDS: dict[str, Callable[[Path], None]] = {
    "audio-only.mp4": _audio_only,
    "changing-size.mjpeg": _changing_size,
    "corrupt.mp4": _corrupt,
    "cut.gif": _cut,
    "cut.jpg": _cut,
    "cut.png": _cut,
    "cut.webp": _cut,
    "dangling.mp4": _dangling,
    "empty.mp4": _empty,
    "fifo.mp4": _fifo,
    "huge.png": _huge_png,
    "huge.y4m": _huge_video,
    "link-loop.mp4": _link_loop,
    "no-frames.y4m": _no_frames,
    "noise.mkv": _noise,
    "pickle.webm": _pickle,
    "text.mp4": _text,
    "truncated.mp4": _truncated,
    "without-moov.mp4": _without_moov,
    "zip.mov": _zip,
}
"""Every one must fail, and none may stop a run."""


def lying_frames(path: Path) -> Path:
    """A whole clip whose header promises 2**31 - 1 frames."""
    write_clip(path, 5)
    data = bytearray(path.read_bytes())
    at = data.find(b"stts") + 12  # the first run's number of samples
    data[at : at + 4] = struct.pack(">I", 2**31 - 1)
    path.write_bytes(data)
    return path


def without_rate(path: Path) -> Path:
    """A whole clip at 0 frames per second."""
    frames = (b"FRAME\n" + bytes([40 * i]) * (32 * 24 * 3 // 2) for i in range(5))
    path.write_bytes(b"YUV4MPEG2 W32 H24 F0:1 Ip A1:1 C420\n" + b"".join(frames))
    return path
