"""Convert RGB pictures to the frames that encoders take, and decoded frames to their bytes.

swscale is not exact enough: it reads 16-bit white as 65280 and centres full-range chroma on 127.5,
which shifts 10-bit samples by up to 3 levels. Here every format, depth and range is rounded once
from the exact value, and gives the same on every device, machine and version of FFmpeg.
"""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from wfvae_cli.media.yuv import PACKED_8, PACKED_16, PictureFormat, Pixels, depth, is_rgb


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


def convert(pixels: Pixels, stored: PictureFormat) -> av.VideoFrame:
    """Make the frame that an encoder takes from an RGB picture.

    Args:
        pixels: HWC RGB, uint8 or uint16 over the full range of the dtype.
        stored: the format. Height and width must be multiples of its chroma subsampling.

    Returns:
        A frame without timestamps.
    """
    pix_fmt, (height, width, _) = stored.pix_fmt, pixels.shape
    if pix_fmt in PACKED_8 | PACKED_16:
        packed = "rgb24" if pix_fmt in PACKED_8 else "rgb48le"
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
    """Copy the bytes of all planes of a planar frame or NV12, one plane after the other."""
    sample = (frame.format.components[0].bits + 7) // 8
    planes = []
    for index, plane in enumerate(frame.planes):
        interleaved = 2 if frame.format.name == "nv12" and index else 1
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
        planes.append(rows[:, : plane.width * sample * interleaved].reshape(-1))
    return np.concatenate(planes)


def _peak(pixels: Pixels) -> int:
    return 255 if pixels.dtype == np.uint8 else 65535
