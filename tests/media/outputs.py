"""Clips to write, and what a written file holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from wfvae_cli.media.clip import ClipInfo, Colour, Frame
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.writer import open_writer
from wfvae_cli.media.yuv import Pixels

# Otherwise swscale rounds down, and every picture comes back darker by one.
_ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def info_for(
    width: int = 64,
    height: int = 48,
    *,
    deep: bool = False,
    source_bits: int | None = None,
    rate: Fraction | None = Fraction(24),
    time_base: Fraction = Fraction(1, 24),
    start: Fraction = Fraction(0),
    sample_aspect: Fraction = Fraction(1),
    colour: Colour | None = None,
) -> ClipInfo:
    return ClipInfo(
        width=width,
        height=height,
        bits=16 if deep else 8,
        source_bits=source_bits or (10 if deep else 8),
        frame_rate=rate,
        time_base=time_base,
        start=start,
        sample_aspect=sample_aspect,
        colour=colour or Colour(),
    )


def as_pixels(array: NDArray[Any]) -> Pixels:
    assert array.dtype in (np.uint8, np.uint16)
    return array


def pictures(info: ClipInfo, frames: int, *, noise: bool = False) -> list[Pixels]:
    """Moving gradients, or noise that no codec could guess."""
    rng = np.random.default_rng(0)
    shape = (info.height, info.width, 3)
    if noise:
        top = 256 if info.bits == 8 else 65536
        dtype = np.uint8 if info.bits == 8 else np.uint16
        return [as_pixels(rng.integers(0, top, shape, dtype=dtype)) for _ in range(frames)]
    y, x = np.mgrid[: info.height, : info.width] / 64
    made: list[Pixels] = []
    for i in range(frames):
        wave = [np.sin(3 * x + 2 * y + 0.1 * i + 0.5 * c) * 0.3 + 0.5 for c in range(3)]
        picture = np.stack(wave, axis=-1)
        if info.bits == 8:
            made.append((picture * 255).astype(np.uint8))
        else:
            made.append((picture * 65535).astype(np.uint16))
    return made


def write(
    target: str | Path,
    info: ClipInfo,
    pixels: Iterable[Pixels],
    options: VideoOptions | None = None,
    *,
    pts: Iterable[int] | None = None,
    overwrite: bool = False,
    audio_from: Path | None = None,
) -> tuple[str, ...]:
    """Write a clip, and return the writer's notices."""
    with open_writer(target, info, options, overwrite=overwrite, audio_from=audio_from) as writer:
        for frame, time in zip(pixels, pts or range(10**6), strict=False):
            writer.write(Frame(frame, time))
    return writer.notices


@dataclass(frozen=True)
class Video:
    """What FFmpeg finds in a file."""

    codec: str
    pix_fmt: str | None
    times: list[Fraction]
    rate: Fraction | None
    duration: float
    aspect: Fraction | None
    tags: tuple[int, int, int, int]
    """Matrix, range, primaries, transfer, as numbered in ITU-T H.273."""
    frames: list[Pixels]


def probe(file: Path | InputContainer, *, deep: bool = False) -> Video:
    with av.open(str(file)) if isinstance(file, Path) else file as container:
        stream = container.streams.video[0]
        base = stream.time_base
        assert base is not None
        decoded = list(container.decode(stream))
        context = stream.codec_context
        frames = [
            as_pixels(
                frame.to_ndarray(format="rgb48le")
                if deep
                else frame.reformat(format="rgb24", interpolation=_ACCURATE).to_ndarray()
            )
            for frame in decoded
        ]
        duration = container.duration
        return Video(
            codec=context.name,
            pix_fmt=context.pix_fmt,
            times=[Fraction(frame.pts or 0) * base for frame in decoded],
            rate=stream.average_rate,
            duration=(duration or 0) / av.time_base,
            aspect=stream.sample_aspect_ratio,
            tags=(
                context.colorspace,
                context.color_range,
                context.color_primaries,
                context.color_trc,
            ),
            frames=frames,
        )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
