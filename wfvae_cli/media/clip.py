"""Data classes of clips: description, frames and colours."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.media.options import Sampling as Sampling  # scripts for 0.1 import it from here

if TYPE_CHECKING:
    from torch import Tensor

Bits = Literal[8, 16]
"""Bits of each yielded sample: 8 for 8-bit sources, 16 for every deeper one."""

Chroma = Literal["left", "centre"]
"""Horizontal chroma siting: on a column of pixels, or between two. Vertically it is between two."""


@dataclass(frozen=True)
class Colour:
    """Colour description of a file, in FFmpeg's names: from RGB to YUV, and the meaning of RGB.

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
    """Horizontal siting of subsampled chroma; see `colour.chroma_site`."""


@dataclass(frozen=True)
class ClipInfo:
    """Properties of the frames of a clip, as a reader yields them (after rotation and sampling)."""

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
    source_size: tuple[int, int] | None = None
    """Width and height of the file's pictures, after rotation and before scaling and cropping."""
    notices: tuple[str, ...] = ()
    """Messages for the user about this source, such as alpha composited onto black."""


class Conversion(Protocol):
    """Conversion of decoded samples to RGB; see `from_planes.PlanarConversion`."""

    @property
    def pixels(self) -> int:
        """Pixels of what it takes, or of what comes out if there are more."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the converted picture."""

    def __call__(self, data: Tensor) -> Tensor:
        """Convert `[…, bytes]` to `[…, H, W, 3]` RGB, uint8, on the same device."""

    def on_host(self, planes: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert like `__call__`, from and to NumPy arrays in host memory."""


@dataclass(frozen=True)
class Frame:
    """One picture."""

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    """HWC RGB, uint8 or uint16 over the full range of its dtype."""
    pts: int
    """Presentation time in units of the clip's `time_base`; the first frame taken is 0."""
    conversion: Conversion | None = None
    """Conversion of `pixels` to RGB on any device, where a reader leaves that to its caller: they
    are then the decoded picture's own samples, one-dimensional."""

    def in_rgb(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """HWC RGB, converted here and now if it has not been."""
        return self.pixels if self.conversion is None else self.conversion.on_host(self.pixels)
