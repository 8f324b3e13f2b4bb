"""The pixel formats that encoders take: what is known of them, and frames of them.

Not left to swscale, which reads 16-bit white as 65280 and centres full-range chroma on 127.5:
shifts of up to 3 levels at 10 bits. Here every format, depth and range is rounded once from the
exact value, and the same on every device, machine and version of FFmpeg.
"""

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
_PACKED_8 = {"rgb24", "bgr24", "rgb0", "bgr0", "0rgb", "0bgr"}
_PACKED_16 = {"rgb48le"}


def is_supported(pix_fmt: str) -> bool:
    """Whether `convert` can make frames of the pixel format `pix_fmt` (FFmpeg's name)."""
    return bool(_PLANAR.fullmatch(pix_fmt)) or pix_fmt in _PACKED_8 | _PACKED_16


def is_rgb(pix_fmt: str) -> bool:
    """Whether a supported pixel format stores RGB rather than YUV or grey."""
    return pix_fmt.startswith("gbr") or pix_fmt in _PACKED_8 | _PACKED_16


def depth(pix_fmt: str) -> int:
    """Bits of each sample of a supported pixel format."""
    return av.VideoFormat(pix_fmt).components[0].bits


def subsampling(pix_fmt: str) -> tuple[int, int]:
    """Pixels per chroma sample, horizontally and vertically, of a supported pixel format."""
    factors = {"420": (2, 2), "422": (2, 1), "440": (1, 2)}
    found = re.match(r"yuv(\d{3})", pix_fmt)
    return factors.get(found[1], (1, 1)) if found else (1, 1)


def rescale(pixels: Pixels, bits: int) -> Pixels:
    """Map full-range samples to full-range samples of another depth, rounded.

    Args:
        pixels: uint8 or uint16 over the full range of the dtype; any shape.
        bits: 8 to 16.

    Returns:
        Values of 0 to `2**bits - 1`, uint8 for 8 bits and uint16 above.
    """
    source = _peak(pixels)
    peak = 2**bits - 1
    if source == peak:
        return pixels
    scaled = pixels.astype(np.uint32)  # 65535 * 65535 just fits
    scaled *= np.uint32(peak)
    scaled += np.uint32(source // 2)
    scaled //= np.uint32(source)
    return scaled.astype(np.uint8) if bits == 8 else scaled.astype(np.uint16)


@dataclass(frozen=True)
class PictureFormat:
    """How an encoder takes pictures."""

    pix_fmt: str
    """A supported pixel format."""
    matrix: str = "bt709"
    """Key of `LUMA_WEIGHTS`, or `gbr` for RGB formats, which ignore the range, too."""
    range: Literal["tv", "pc"] = "tv"
    """`tv` (limited) or `pc` (full)."""
    chroma: Chroma = "left"


def convert(pixels: Pixels, stored: PictureFormat) -> av.VideoFrame:
    """Make the frame that an encoder takes from an RGB picture.

    Args:
        pixels: HWC RGB, uint8 or uint16 over the full range of the dtype.
        stored: the format. Height and width must be multiples of its chroma subsampling.

    Returns:
        A frame without timestamps.
    """
    pix_fmt, (height, width, _) = stored.pix_fmt, pixels.shape
    if pix_fmt in _PACKED_8 | _PACKED_16:
        packed = "rgb24" if pix_fmt in _PACKED_8 else "rgb48le"
        samples = rescale(pixels, 8 if packed == "rgb24" else 16)
        frame = av.VideoFrame.from_ndarray(samples, format=packed)
        return frame if packed == pix_fmt else frame.reformat(format=pix_fmt)  # a shuffle, exact
    if is_rgb(pix_fmt):
        planes = rescale(pixels, depth(pix_fmt))[..., [1, 2, 0]].transpose(2, 0, 1)
        data = np.ascontiguousarray(planes).view(np.uint8).reshape(-1)
    else:
        # Here, because torch takes seconds to import, and much of this package does without it.
        from wfvae_cli.media.to_planes import to_planes_on_host

        data = to_planes_on_host(pixels, stored)
    return frame_of(data, width, height, pix_fmt)


def frame_of(planes: NDArray[np.uint8], width: int, height: int, pix_fmt: str) -> av.VideoFrame:
    """Make a frame, without timestamps, of the bytes of all its planes, one after the other.

    Args:
        planes: as `to_planes.to_planes` gives them.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        pix_fmt: a supported planar pixel format.
    """
    frame = av.VideoFrame(width, height, pix_fmt)
    sample = 1 if depth(pix_fmt) == 8 else 2
    begin = 0
    for plane in frame.planes:
        stored = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
        end = begin + plane.height * plane.width * sample
        stored[:, : plane.width * sample] = planes[begin:end].reshape(plane.height, -1)
        begin = end
    return frame


def planes_of(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The bytes of all planes of a planar frame or NV12, one after the other; a copy of them."""
    sample = (frame.format.components[0].bits + 7) // 8
    planes = []
    for index, plane in enumerate(frame.planes):
        interleaved = 2 if frame.format.name == "nv12" and index else 1
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
        planes.append(rows[:, : plane.width * sample * interleaved].reshape(-1))
    return np.concatenate(planes)


def _peak(pixels: Pixels) -> int:
    return 255 if pixels.dtype == np.uint8 else 65535
