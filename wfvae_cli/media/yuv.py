"""RGB pictures to the pixel formats that encoders take, in PyTorch: on the device they are on.

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
import torch
from numpy.typing import NDArray
from torch import Tensor

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
        writable = np.require(pixels, requirements=["C", "W"])
        data = to_planes(torch.from_numpy(writable), stored).numpy()
    return frame_of(data, width, height, pix_fmt)


def frame_of(planes: NDArray[np.uint8], width: int, height: int, pix_fmt: str) -> av.VideoFrame:
    """Make a frame, without timestamps, of the bytes of all its planes, one after the other.

    Args:
        planes: as `to_planes` gives them.
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


def to_planes(pixels: Tensor, stored: PictureFormat) -> Tensor:
    """Luma and chroma of RGB pictures (ITU-T H.273, section 8.3), on their own device.

    Args:
        pixels: `[…, H, W, 3]` RGB, uint8 or uint16 over the full range of the dtype.
        stored: a planar YUV format or grey.

    Returns:
        The bytes of all planes, one after the other, `[…, bytes]`: uint8, or uint16 viewed as that.
    """
    kr, kb = LUMA_WEIGHTS[stored.matrix]
    bits = depth(stored.pix_fmt)
    unit, peak = 2 ** (bits - 8), 2**bits - 1
    if stored.range == "tv":
        luma_span, luma_zero, chroma_span = 219 * unit, 16 * unit, 224 * unit
    else:
        luma_span, luma_zero, chroma_span = peak, 0, peak
    white = _peak(pixels)
    # One operation a time, so that every device rounds alike; a matrix product would not.
    red, green, blue = (channel.to(torch.float32) for channel in pixels.unbind(-1))
    luma = red * kr
    luma += green * (1 - kr - kb)
    luma += blue * kb
    planes = [_quantised(luma, luma_span / white, luma_zero, bits)]
    if not stored.pix_fmt.startswith("gray"):
        for colour, weight in ((blue, kb), (red, kr)):
            chroma = _subsampled(colour - luma, subsampling(stored.pix_fmt), stored.chroma)
            scale = chroma_span / (white * 2 * (1 - weight))
            planes.append(_quantised(chroma, scale, 128 * unit, bits))
    return torch.cat([plane.flatten(-2).view(torch.uint8) for plane in planes], dim=-1)


def _subsampled(chroma: Tensor, factors: tuple[int, int], site: Chroma) -> Tensor:
    """Average chroma where its samples lie."""
    across, down = factors
    if down == 2:
        chroma = (chroma[..., 0::2, :] + chroma[..., 1::2, :]) * 0.5
    if across == 2 and site == "centre":
        chroma = (chroma[..., 0::2] + chroma[..., 1::2]) * 0.5
    elif across == 2:
        left = torch.cat((chroma[..., :1], chroma[..., 1:-1:2]), dim=-1)
        chroma = (left + chroma[..., 1::2]) * 0.25 + chroma[..., 0::2] * 0.5
    return chroma


def _quantised(plane: Tensor, scale: float, zero: int, bits: int) -> Tensor:
    plane = (plane * scale).add_(zero + 0.5).clamp_(0, 2**bits - 1)
    return plane.to(torch.uint8 if bits == 8 else torch.uint16)


def _peak(pixels: Pixels | Tensor) -> int:
    return 255 if pixels.dtype in (np.uint8, torch.uint8) else 65535
