"""Small copies of clips for a page: a video that any browser steps through exactly, or a PNG.

H.264 in MP4 where PyAV's FFmpeg has libx264, VP9 in WebM otherwise: 8-bit 4:2:0 with at most
`MAX_SIDE` pixels a side. Groups of pictures are short and have no B-frames, so that a seek decodes
a dozen pictures at most and shows the very frame that was asked for. Frames are evenly spaced,
whatever their timestamps were.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from wfvae_cli.atomic import output_error
from wfvae_cli.metrics.views import Picture

MAX_SIDE = 960
"""Pixels of the longer side of a copy of a video."""
MAX_STILL_SIDE = 2048
"""Pixels of the longer side of a copy of a single picture."""
MAX_FRAMES = 900
"""Frames that a copy has at most: the first ones of the clip."""
_GROUP = 12
_DEFAULT_RATE = Fraction(25)
_BT709 = 1
_LIMITED_RANGE = 1
# A fixed number of threads: x264 makes other bytes with another number.
_THREADS = "2"
_ENCODERS = (
    ("libx264", ".mp4", {"crf": "20", "preset": "veryfast", "bf": "0", "g": str(_GROUP)}),
    ("libvpx-vp9", ".webm", {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6"}),
)


@dataclass(frozen=True)
class MediaFile:
    """A copy of a clip, or of what was lost of it."""

    name: str
    """Name of the file, without its folder."""
    width: int
    height: int
    frames: int
    """1 for a picture."""


class MediaWriter:
    """Writes the frames of a clip as a small video, or as a PNG if there is only one."""

    def __init__(self, stem: Path, frame_rate: Fraction | None) -> None:
        """Start a copy; nothing is written before the second frame, or `close`.

        Args:
            stem: path of the file to come, without its suffix.
            frame_rate: frames per second; 25 if None.
        """
        self._stem = stem
        self._rate = (frame_rate or _DEFAULT_RATE).limit_denominator(65535)
        self._first: Picture | None = None
        self._frames = 0
        self._path: Path | None = None
        self._container: Any = None
        self._stream: Any = None

    @property
    def full(self) -> bool:
        """True where further frames would not be written."""
        return self._frames >= MAX_FRAMES

    def add(self, picture: Picture) -> None:
        """Append a frame, HWC RGB; one beyond `MAX_FRAMES` is left out.

        Raises:
            OutputError: the file cannot be written.
        """
        if self.full:
            return
        self._frames += 1
        if self._frames == 1:
            self._first = picture.copy()
            return
        if self._container is None:
            assert self._first is not None
            self._open(*self._first.shape[:2])
            self._encode(self._first)
        self._encode(picture)

    def close(self) -> MediaFile:
        """Finish the file.

        Raises:
            OutputError: it cannot be written.
        """
        assert self._first is not None, "a copy of no frames"
        if self._container is None:
            return self._write_still(self._first)
        assert self._path is not None
        try:
            self._container.mux(self._stream.encode())
            self._container.close()
        except OSError as error:
            raise output_error(self._path, error) from error
        width, height = self._stream.width, self._stream.height
        return MediaFile(self._path.name, width, height, self._frames)

    def abort(self) -> None:
        """Let go of the file; what is there of it stays for the caller to remove."""
        if self._container is not None:
            self._container.close()

    def _open(self, height: int, width: int) -> None:
        encoder, suffix, options = _encoder()
        self._path = self._stem.with_name(self._stem.name + suffix)
        try:
            self._container = av.open(str(self._path), "w")
        except OSError as error:
            raise output_error(self._path, error) from error
        options = {**options, "threads": _THREADS}
        stream = self._container.add_stream(encoder, rate=self._rate, options=options)
        stream.width, stream.height = _even_size(width, height)
        stream.pix_fmt = "yuv420p"
        stream.gop_size = _GROUP
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        self._stream = stream

    def _encode(self, picture: Picture) -> None:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(
            width=self._stream.width,
            height=self._stream.height,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        frame.pts = None
        try:
            self._container.mux(self._stream.encode(frame))
        except OSError as error:
            raise output_error(self._stem, error) from error

    def _write_still(self, picture: Picture) -> MediaFile:
        image = Image.fromarray(picture)
        image.thumbnail((MAX_STILL_SIDE, MAX_STILL_SIDE), Image.Resampling.BOX)
        path = self._stem.with_name(self._stem.name + ".png")
        save_picture(image, path)
        return MediaFile(path.name, image.width, image.height, 1)


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture in the format of its suffix.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        image.save(path, quality=82)  # which PNG ignores
    except OSError as error:
        raise output_error(path, error) from error


def _encoder() -> tuple[str, str, dict[str, str]]:
    for name, suffix, options in _ENCODERS:
        if name in av.codecs_available:
            return name, suffix, options
    raise AssertionError("PyAV's FFmpeg has neither libx264 nor libvpx-vp9")


def _even_size(width: int, height: int) -> tuple[int, int]:
    """The size of a copy: 4:2:0 has even sides."""
    share = min(1.0, MAX_SIDE / max(width, height))
    return max(2, round(width * share / 2) * 2), max(2, round(height * share / 2) * 2)
