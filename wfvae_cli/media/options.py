"""Media options: the frames to take, their size, and the encoding of videos to write."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal, get_args

from wfvae_cli.errors import UsageError
from wfvae_cli.option import Option

Fit = Literal["crop", "pad", "stretch"]

_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", re.ASCII)
_FRAMES, _OUTPUT = "Which frames, and their size", "Output"


def parse_seconds(text: str) -> float:
    """Seconds from `10.5`, or from `[HH:]MM:SS[.s]` as FFmpeg has it."""
    *larger, last = text.split(":")
    try:
        if len(larger) > 2 or not all(part.isdecimal() for part in larger):
            raise ValueError
        seconds = float(last)
        for part, unit in zip(reversed(larger), (60, 3600), strict=False):
            seconds += unit * int(part)
    except ValueError:
        raise ValueError(f"expected seconds such as 10.5, or 00:01:10, got {text!r}") from None
    return seconds


def parse_rate(text: str) -> Fraction:
    """Frames per second from `24`, `29.97` or `30000/1001`."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"expected frames per second such as 24, 29.97 or 30000/1001, got {text!r}"
        ) from None


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from `512x288`."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise ValueError(f"expected WIDTHxHEIGHT such as 512x288, got {text!r}")
    return int(width), int(height)


@dataclass(frozen=True)
class Sampling:
    """Selection and size of a source's frames. The default takes all as they are.

    `start` and `duration` are seconds on the source's own timeline (its first frame is 0);
    `fps` resamples in time by dropping or repeating frames; `frames` cuts after that many
    frames, counted after `fps`. At most one of `size` and `short_side` may be given.
    """

    start: Annotated[
        float,
        Option("Skip the beginning.", _FRAMES, metavar="SECONDS", parse=parse_seconds),
    ] = 0.0
    duration: Annotated[
        float | None,
        Option("Take this much of it.", _FRAMES, metavar="SECONDS", parse=parse_seconds),
    ] = None
    frames: Annotated[
        int | None, Option("Take at most this many frames.", _FRAMES, metavar="N", common=True)
    ] = None
    fps: Annotated[
        Fraction | None,
        Option(
            "Resample in time, by dropping and repeating frames.",
            _FRAMES,
            metavar="RATE",
            parse=parse_rate,
            common=True,
        ),
    ] = None
    size: Annotated[
        tuple[int, int] | None,
        Option(
            "Scale to exactly this size, as --fit says.",
            _FRAMES,
            metavar="WxH",
            parse=parse_size,
            common=True,
        ),
    ] = None
    """Target (width, height) in pixels, reached as `fit` says."""
    fit: Annotated[
        Fit,
        Option(
            "How --size treats another aspect: cut the edges off, add black bars, or distort.",
            _FRAMES,
        ),
    ] = "crop"
    short_side: Annotated[
        int | None,
        Option(
            "Scale the shorter side to this, keeping the aspect.",
            _FRAMES,
            metavar="PIXELS",
            common=True,
        ),
    ] = None
    """Scale so that the shorter side has this many pixels, aspect kept."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start >= 0):
            raise UsageError(f"start must be at least 0 seconds, got {self.start}")
        if self.duration is not None and not (math.isfinite(self.duration) and self.duration > 0):
            raise UsageError(f"duration must be more than 0 seconds, got {self.duration}")
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"frames must be at least 1, got {self.frames}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UsageError(f"fps must be more than 0 and at most 1000, got {self.fps}")
        if self.fit not in get_args(Fit):
            raise UsageError(f"fit must be one of {', '.join(get_args(Fit))}, got {self.fit!r}")
        if self.size is not None and self.short_side is not None:
            raise UsageError("--size and --short-side are mutually exclusive")
        for side in self.size or (self.short_side,):
            if side is not None and not 1 <= side <= 16384:
                raise UsageError(f"a side must have 1 to 16384 pixels, got {side}")


@dataclass(frozen=True)
class VideoOptions:
    """Encoding of a video. None leaves the choice to the target and the clip."""

    codec: Annotated[
        str | None,
        Option(
            "Video encoder: h264 (default), hevc, av1, vp9, ffv1 (lossless), or FFmpeg's name.",
            _OUTPUT,
            complete=lambda: ("h264", "hevc", "av1", "vp9", "prores", "ffv1"),
        ),
    ] = None
    """A key of `ENCODERS` or an FFmpeg encoder, such as `ffv1` (lossless RGB, bit for bit).
    Default: H.264 where the container takes it, else the container's own."""
    crf: Annotated[
        float | None, Option("Quality of the video encoder; lower is better.", _OUTPUT)
    ] = None
    """Constant rate factor: lower is better and larger. Default: see `settings.CRF`."""
    pix_fmt: Annotated[
        str | None, Option("FFmpeg's pixel format, such as yuv444p10le.", _OUTPUT)
    ] = None
    """FFmpeg's pixel format. Default: 4:2:0 at the source's depth, 4:4:4 for odd sizes."""
    container: Annotated[
        str | None,
        Option(
            "FFmpeg's muxer; by default what the suffix says, and matroska for stdout.", _OUTPUT
        ),
    ] = None
    """FFmpeg's muxer, such as `matroska`. Default: by file suffix; `matroska` on stdout."""


DATASET_IMAGE_MEMORY = 4 << 30
"""Bytes that decoding one image of a dataset may take. A fixed number, so that which files are
refused does not depend on what else runs."""


def parse_bytes(text: str) -> int:
    """Bytes from `4G`, `512MiB`, `1.5 GB` or a plain number; units are powers of 1024."""
    match = _BYTES.fullmatch(text.strip())
    if (
        match is None
        or (count := int(float(match[1]) * 1024 ** " KMGT".index(match[2] or " "))) < 1
    ):
        raise ValueError(f"expected bytes such as 4G or 512M, got {text!r}")
    return count


ImageMemory = Annotated[
    int | None,
    Option(
        "Refuse image files whose decoding takes more memory than this, such as 8G. Default: half "
        "of what is free; for a dataset 4G.",
        _FRAMES,
        flags=("--max-image-memory",),
        metavar="SIZE",
        parse=parse_bytes,
    ),
]
Hwaccel = Annotated[
    str,
    Option(
        "Decode videos in hardware: none, auto, or a kind of device such as cuda, vaapi or "
        "videotoolbox. Where it cannot be had, software decodes, and a note says so.",
        _FRAMES,
        metavar="NAME",
    ),
]
