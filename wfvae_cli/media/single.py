"""Judges whether a lone picture is whole that FFmpeg decodes, which fills up what is missing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import cast

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

_EXR_MAGIC = b"\x76\x2f\x31\x01"
_EXR_TILED, _EXR_PARTS = 0x200, 0x1800
_EXR_MOST_CHUNKS = 1 << 20
_BEYOND = b"\xa5" * 4096
"""What is put behind a picture, of which no decoder of a whole one takes notice."""
_READ_FROM_THE_END = {("pcx", "pal8")}
"""Codecs and formats that keep something, such as a palette, at the file's end."""


def is_cut(stream: VideoStream, data: bytes, frame: VideoFrame) -> bool:
    """Tell if a decoder went beyond the end of the only picture of a file.

    Args:
        stream: the stream that it was decoded from.
        data: the coded picture.
        frame: what was made of it.
    """
    if data.startswith(_EXR_MAGIC):
        return _is_cut_exr(data)
    codec = stream.codec_context.name
    if (codec, frame.format.name) in _READ_FROM_THE_END:
        return False
    context = cast(VideoCodecContext, av.CodecContext.create(codec, "r"))
    context.thread_count = 1
    try:
        frames = context.decode(Packet(data + _BEYOND)) or context.decode(None)
    except av.error.FFmpegError:
        return False  # it minds bytes behind a picture, so it has found the end
    if not frames or (frames[0].format.name, frames[0].width) != (frame.format.name, frame.width):
        return False
    planes = zip(_planes(frame), _planes(frames[0]), strict=True)
    return any(not np.array_equal(one, other) for one, other in planes)


def _planes(frame: VideoFrame) -> Iterator[NDArray[np.uint8]]:
    """The bytes of each plane's pixels, without those that pad its rows."""
    bits = frame.format.padded_bits_per_pixel
    if len(frame.planes) > 1:
        bits = 8 * -(-frame.format.components[0].bits // 8)
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
        yield rows[:, : -(-plane.width * bits // 8)]


def _is_cut_exr(data: bytes) -> bool:
    """Tell if a chunk of an OpenEXR file of one part lies beyond its end.

    Behind the header is a table of where each chunk begins, in 64 bits; a chunk has the number of
    its row, or four of its tile, and its length ("OpenEXR File Layout").
    """
    flags = int.from_bytes(data[4:8], "little")
    if flags & _EXR_PARTS:
        return False
    try:
        at = 8
        while data[at]:  # attributes: a name, a type, a length and that many bytes
            at = data.index(0, data.index(0, at) + 1) + 1
            at += 4 + int.from_bytes(data[at : at + 4], "little")
        at, table = at + 1, at + 1
        first = last = 0
        while not first or at < first:
            (chunk,) = struct.unpack_from("<Q", data, at)
            first, last = min(first or chunk, chunk), max(last, chunk)
            at += 8
            if at - table > 8 * _EXR_MOST_CHUNKS:
                return False
        behind = last + (20 if flags & _EXR_TILED else 8)
        (length,) = struct.unpack_from("<i", data, behind - 4)
    except (ValueError, IndexError, OverflowError, struct.error):
        return True
    return bool(behind + length > len(data))
