"""Pixel formats that encoders take, and their properties."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from wfvae_cli.media.clip import Chroma

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

LUMA_WEIGHTS = {
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}
"""Weights of red and blue in luma (ITU-T H.273, table 4), by FFmpeg's name of the matrix."""

_PLANAR = re.compile(r"(yuv(420|422|440|444)p|gbrp|gray)((9|10|12|14|16)le)?")
PACKED_8 = {"rgb24", "bgr24", "rgb0", "bgr0", "0rgb", "0bgr"}
PACKED_16 = {"rgb48le"}
"""Formats that store the samples of a pixel together, of 8 and of 16 bits."""


def is_supported(pix_fmt: str) -> bool:
    """Tell if `frames.convert` can make frames of the pixel format `pix_fmt` (FFmpeg's name)."""
    return bool(_PLANAR.fullmatch(pix_fmt)) or pix_fmt in PACKED_8 | PACKED_16


def is_rgb(pix_fmt: str) -> bool:
    """Tell if a supported pixel format stores RGB rather than YUV or grey."""
    return pix_fmt.startswith("gbr") or pix_fmt in PACKED_8 | PACKED_16


def depth(pix_fmt: str) -> int:
    """Bits of each sample of a supported pixel format."""
    return av.VideoFormat(pix_fmt).components[0].bits


def subsampling(pix_fmt: str) -> tuple[int, int]:
    """Pixels per chroma sample, horizontally and vertically, of a supported pixel format."""
    factors = {"420": (2, 2), "422": (2, 1), "440": (1, 2)}
    found = re.match(r"yuv(\d{3})", pix_fmt)
    return factors.get(found[1], (1, 1)) if found else (1, 1)


@dataclass(frozen=True)
class PictureFormat:
    """Pixel format and colour of the pictures that an encoder takes."""

    pix_fmt: str
    """A supported pixel format."""
    matrix: str = "bt709"
    """Key of `LUMA_WEIGHTS`, or `gbr` for RGB formats, which ignore the range, too."""
    range: Literal["tv", "pc"] = "tv"
    """`tv` (limited) or `pc` (full)."""
    chroma: Chroma = "left"
