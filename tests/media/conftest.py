"""Clips whose every frame says which it is, made with PyAV."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from wfvae_cli.errors import VideoError
from wfvae_cli.media import svt_av1
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip

MakeClip = Callable[..., Path]


def numbered(index: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """HWC RGB of one grey that tells the number (below 56), darker in its lower right quarter."""
    pixels = np.full((height, width, 3), 30 + 4 * index, np.uint8)
    pixels[height // 2 :, width // 2 :] = 10
    return pixels


def number_of(pixels: NDArray[Any]) -> int:
    """Which frame `numbered` made, whatever its size, depth and loss."""
    top = np.iinfo(pixels.dtype).max
    corner = pixels[: pixels.shape[0] // 3, : pixels.shape[1] // 3].mean() * 255 / top
    return round((float(corner) - 30) / 4)


def write_clip(
    path: Path,
    frames: Sequence[NDArray[Any]] | int = 10,
    *,
    width: int = 64,
    height: int = 48,
    rate: Fraction | int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    format: str | None = None,
    sound: bool = False,
    prepare: Callable[[VideoStream], None] = lambda stream: None,
    touch: Callable[[VideoFrame], None] = lambda frame: None,
) -> Path:
    """Encode `frames`: HWC RGB arrays (uint8 or uint16), or how many numbered ones."""
    if isinstance(frames, int):
        frames = [numbered(i, width, height) for i in range(frames)]
    height, width = frames[0].shape[:2]
    lossless = {"crf": "1", "preset": "ultrafast"} if codec == "libx264" else {}
    options_of_box = container_options or {}
    with svt_av1.tamed(), av.open(str(path), "w", format=format, options=options_of_box) as box:
        stream = box.add_stream(codec, rate=Fraction(rate), options=options or lossless)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.thread_count = 1
        stream.bit_rate = 8_000_000  # for encoders without a quality of their own
        base = time_base or 1 / Fraction(rate)
        stream.codec_context.time_base = base
        prepare(stream)
        audio = box.add_stream("aac", rate=48000, layout="mono") if sound else None
        for i, pixels in enumerate(frames):
            source = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
            frame = VideoFrame.from_ndarray(pixels, format=source).reformat(format=pix_fmt)
            frame.pts, frame.time_base = (pts[i] if pts else i), base
            touch(frame)
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
        if audio is not None:
            for i in range(4):
                silence = AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                silence.rate, silence.pts = 48000, i * 1024
                box.mux(audio.encode(silence))
            box.mux(audio.encode(None))
    return path


def read(path: Path | str, **options: Any) -> tuple[ClipInfo, list[int], list[int]]:
    """Description, timestamps and numbers of all frames."""
    with open_clip(path, Sampling(**options)) as reader:
        frames = list(reader)
        for frame in frames:
            assert frame.pixels.shape == (reader.info.height, reader.info.width, 3)
        return reader.info, [f.pts for f in frames], [number_of(f.pixels) for f in frames]


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """`write_clip` into the test's folder, by file name."""

    def make(name: str = "clip.mp4", *args: Any, **options: Any) -> Path:
        return write_clip(tmp_path / name, *args, **options)

    return make


def refusal(path: Path | str) -> str:
    """The message with which a source is refused, at opening or while reading."""
    with pytest.raises(VideoError) as caught, open_clip(path) as reader:
        list(reader)
    return str(caught.value)


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Have these bytes come through standard input, which cannot be sought in."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(data)))
