"""A generated clip to measure with, where the user names none: motion, edges and grain."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.writer import open_writer

_RATE = Fraction(24)


def write_moving_picture(path: Path, frames: int, width: int, height: int) -> Path:
    """Write a clip of moving waves, a square and grain; every call gives the same pictures.

    Raises:
        OutputError: it cannot be written.
    """
    info = ClipInfo(width, height, frame_rate=_RATE, time_base=1 / _RATE, frames=frames)
    with open_writer(path, info, VideoOptions(), overwrite=False) as writer:
        for index, pixels in enumerate(moving_picture(frames, width, height)):
            writer.write(Frame(pixels, index))
    return path


def moving_picture(frames: int, width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    """Yield uint8 HWC RGB frames."""
    grain = np.random.Generator(np.random.PCG64(0))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    phases = np.array([0.0, 2.1, 4.2], np.float32)
    for index in range(frames):
        waves = np.sin(x / 9 + index / 4)[..., None] + np.cos(y[..., None] / 13 - phases)
        pixels = 128 + 40 * waves + 4 * grain.standard_normal((height, width, 3), np.float32)
        left = (7 * index) % width
        pixels[height // 3 : height // 2, left : left + width // 5] = (220, 60, 30)
        yield np.clip(pixels, 0, 255).astype(np.uint8)
