"""RGB frames to the pixel formats that encoders take, in NumPy.

Not left to swscale, which reads 16-bit white as 65280 and centres full-range chroma on 127.5:
shifts of up to 3 levels at 10 bits. Here every format, depth and range is rounded once from the
exact value, and the same on every machine and with every version of FFmpeg.
"""

from __future__ import annotations

import re
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Plane = NDArray[np.float32]

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


def convert(
    pixels: Pixels, pix_fmt: str, matrix: str = "bt709", range_: Literal["tv", "pc"] = "tv"
) -> av.VideoFrame:
    """Make the frame that an encoder takes from an RGB picture (ITU-T H.273, section 8.3).

    Args:
        pixels: HWC RGB, uint8 or uint16 over the full range of the dtype.
        pix_fmt: a supported pixel format. Height and width must be multiples of its
            chroma subsampling. Chroma is sited left (between two rows), H.264's default.
        matrix: key of `LUMA_WEIGHTS`; ignored for RGB formats.
        range_: `tv` (limited) or `pc` (full); ignored for RGB formats.

    Returns:
        A frame without timestamps.
    """
    if pix_fmt in _PACKED_8 | _PACKED_16:
        packed = "rgb24" if pix_fmt in _PACKED_8 else "rgb48le"
        samples = rescale(pixels, 8 if packed == "rgb24" else 16)
        frame = av.VideoFrame.from_ndarray(samples, format=packed)
        return frame if packed == pix_fmt else frame.reformat(format=pix_fmt)  # a shuffle, exact
    height, width, _ = pixels.shape
    frame = av.VideoFrame(width, height, pix_fmt)
    bits = depth(pix_fmt)
    if is_rgb(pix_fmt):
        scaled = rescale(pixels, bits)
        planes = [scaled[..., channel] for channel in (1, 2, 0)]
    else:
        planes = _yuv(pixels, bits, matrix, range_, subsampling(pix_fmt))
    for plane, values in zip(frame.planes, planes, strict=False):  # grey takes the luma alone
        stored = np.frombuffer(memoryview(plane), values.dtype).reshape(plane.height, -1)
        stored[:, : plane.width] = values
    return frame


def _yuv(
    pixels: Pixels,
    bits: int,
    matrix: str,
    range_: Literal["tv", "pc"],
    factors: tuple[int, int],
) -> list[Pixels]:
    """Luma and both chroma planes as integers of `bits` bits."""
    kr, kb = LUMA_WEIGHTS[matrix]
    unit = 2 ** (bits - 8)
    peak = 2**bits - 1
    if range_ == "tv":
        luma_span, luma_zero, chroma_span = 219 * unit, 16 * unit, 224 * unit
    else:
        luma_span, luma_zero, chroma_span = peak, 0, peak
    white = float(_peak(pixels))
    # One operation a time: NumPy then rounds alike on every machine, where BLAS would not.
    red, green, blue = (pixels[..., channel].astype(np.float32) for channel in range(3))
    luma = red * np.float32(kr)
    luma += green * np.float32(1 - kr - kb)
    luma += blue * np.float32(kb)
    blue -= luma
    red -= luma
    return [
        _quantise(luma, luma_span / white, luma_zero, bits),
        *(
            _quantise(
                _subsample(chroma, factors),
                chroma_span / (white * 2 * (1 - weight)),
                128 * unit,
                bits,
            )
            for chroma, weight in ((blue, kb), (red, kr))
        ),
    ]


def _subsample(chroma: Plane, factors: tuple[int, int]) -> Plane:
    """Average chroma where its samples lie: on every other column, between two rows."""
    across, down = factors
    if down == 2:
        chroma = (chroma[0::2] + chroma[1::2]) * np.float32(0.5)
    if across == 2:
        left = np.concatenate((chroma[:, :1], chroma[:, 1:-1:2]), axis=1)
        chroma = (left + chroma[:, 1::2]) * np.float32(0.25) + chroma[:, 0::2] * np.float32(0.5)
    return chroma


def _quantise(plane: Plane, scale: float, zero: int, bits: int) -> Pixels:
    plane = plane * np.float32(scale)
    plane += np.float32(zero + 0.5)
    np.clip(plane, 0, 2**bits - 1, out=plane)
    return plane.astype(np.uint8) if bits == 8 else plane.astype(np.uint16)


def _peak(pixels: Pixels) -> int:
    return 255 if pixels.dtype == np.uint8 else 65535
