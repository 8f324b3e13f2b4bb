"""Data classes of clips: description, frames, colours and sampling options."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Bits = Literal[8, 16]
"""Bits of each yielded sample: 8 for 8-bit sources, 16 for every deeper one."""

Fit = Literal["crop", "pad", "stretch"]

Chroma = Literal["left", "centre"]
"""Whether a chroma sample lies on a column of pixels, or between two. It is between two rows."""


@dataclass(frozen=True)
class Colour:
    """How RGB became the file's YUV, in FFmpeg's names, and what the RGB values mean.

    The reader undoes `matrix` and `range`; `primaries` and `transfer` are never converted,
    only carried, so that a writer can tag its output the same.
    """

    matrix: str = "bt709"
    """YUV matrix: `bt709`, `smpte170m`, `bt470bg`, `bt2020nc`, … or `gbr` for RGB sources."""
    range: Literal["tv", "pc"] = "tv"
    """`tv` (limited) or `pc` (full)."""
    primaries: str = "unknown"
    transfer: str = "unknown"
    chroma: Chroma = "left"
    """Where subsampled chroma lies; see `colour.chroma_site`."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a source to take, and at what size. The default takes all as they are.

    `start` and `duration` are seconds on the source's own timeline (its first frame is 0);
    `fps` resamples in time by dropping or repeating frames; `frames` cuts after that many
    frames, counted after `fps`. At most one of `size` and `short_side` may be given.
    """

    start: float = 0.0
    duration: float | None = None
    frames: int | None = None
    fps: Fraction | None = None
    size: tuple[int, int] | None = None
    """Target (width, height) in pixels, reached as `fit` says."""
    fit: Fit = "crop"
    short_side: int | None = None
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
            raise UsageError("give either size or short_side, not both")
        for side in self.size or (self.short_side,):
            if side is not None and not 1 <= side <= 16384:
                raise UsageError(f"a side must have 1 to 16384 pixels, got {side}")


@dataclass(frozen=True)
class ClipInfo:
    """What a reader will yield (after rotation and sampling), or a writer is to write."""

    width: int
    height: int
    bits: Bits = 8
    source_bits: int = 8
    """Bits a sample has in the file (8, 10, 12, 16), which a writer restores if it can."""
    frame_rate: Fraction | None = None
    """Nominal frames per second; None for images and streams without one."""
    time_base: Fraction = Fraction(1, 1)
    """Seconds per unit of `Frame.pts`."""
    start: Fraction = Fraction(0)
    """Seconds on the container's timeline at which the first frame taken is shown: what a
    copied sound track has to be moved back by."""
    frames: int | None = None
    """Frames expected, for progress only: containers lie."""
    sample_aspect: Fraction = Fraction(1, 1)
    """Width of a pixel over its height, after rotation."""
    colour: Colour = field(default_factory=Colour)
    pixel_format: str = ""
    """FFmpeg's name of the source's pixel format, such as `yuv420p10le`."""
    container: str = ""
    """Short name of the source's container: `mp4`, `matroska`, `png`, …"""
    codec: str = ""
    is_image: bool = False
    notices: tuple[str, ...] = ()
    """What a user should know of this source, such as alpha composited onto black."""


class Conversion(Protocol):
    """Conversion of decoded samples to RGB; see `from_planes.PlanarConversion`."""

    @property
    def pixels(self) -> int:
        """Pixels of what it takes, or of what comes out if there are more."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what comes out."""

    def __call__(self, data: Tensor) -> Tensor:
        """`[…, bytes]` to `[…, H, W, 3]` RGB, uint8, on the same device."""

    def on_host(self, planes: NDArray[np.generic]) -> NDArray[np.uint8]:
        """The same in ordinary memory."""


@dataclass(frozen=True)
class Frame:
    """One picture."""

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    """HWC RGB, uint8 or uint16 over the full range of its dtype."""
    pts: int
    """Presentation time in units of the clip's `time_base`; the first frame taken is 0."""
    conversion: Conversion | None = None
    """What makes RGB of `pixels` on any device, where a reader was told to leave that: then
    these are the decoded picture's own samples, one-dimensional."""

    def in_rgb(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """HWC RGB, converted here and now if it has not been."""
        return self.pixels if self.conversion is None else self.conversion.on_host(self.pixels)
