"""Headers of GIF, WebP and icon files: size, number and times of their pictures.

They are read before any decoder is called, which would allocate what a damaged header claims.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from fractions import Fraction

from PIL.PsdImagePlugin import MODES as PSD_MODES

from wfvae_cli.media.stills.png import SIGNATURE

_DEFAULT_DELAY = Fraction(1, 10)
"""Seconds that a picture without a delay is shown, as in browsers and FFmpeg."""
_SHORTEST_GIF_DELAY = 2
"""In 1/100 s; shorter ones stand for none, as in browsers and FFmpeg."""
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9
_PNG_END = b"IEND\xae\x42\x60\x82"
_JPEG_END, _JPEG_BEGIN = b"\xff\xd9", b"\xff\xd8\xff"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Codes of the markers that begin a frame and tell its size (SOF0 to SOF15)."""
_NEXT_BLOCK = re.compile(rb"[!,;]")


@dataclass(frozen=True)
class GifPicture:
    """One picture of a GIF, and what its control block says."""

    begin: int
    """Position of its descriptor in the file."""
    end: int
    """Position behind its pixels."""
    left: int
    top: int
    disposal: int = 0
    key: int | None = None
    """Index of the colour that is transparent."""


@dataclass(frozen=True)
class GifLayout:
    """The pictures of a GIF."""

    delays: tuple[Fraction, ...]
    """Seconds that each picture is shown."""
    size: tuple[int, int]
    """Width and height of the screen and of all pictures on it."""
    whole: bool
    """True where the file is complete, up to its trailer."""
    pictures: tuple[GifPicture, ...] = ()
    stray: int | None = None
    """Position of the first byte that belongs to no block, zeros apart."""


def gif_layout(data: bytes) -> GifLayout:
    """Walk the blocks of a GIF (GIF89a specification, appendix B).

    Pictures need no control block: those without one are shown for a tenth of a second.

    Args:
        data: the whole file; it may be damaged.
    """
    if len(data) < 13:
        raise ValueError("it ends amid its header")
    width, height = struct.unpack_from("<HH", data, 6)
    at = 13 + _palette_size(data[10])
    delays: list[Fraction] = []
    pictures: list[GifPicture] = []
    delay, flags, key, whole = 0, 0, 0, False
    stray: int | None = None
    while at < len(data):
        block = data[at]
        if block == _TRAILER:
            whole = True
            break
        if block == _EXTENSION:
            if data[at + 1 : at + 3] == bytes((_GRAPHIC_CONTROL, 4)) and at + 6 <= len(data):
                flags, delay, key = struct.unpack_from("<BHB", data.ljust(at + 7), at + 3)
            at = _skip_sub_blocks(data, at + 2)
        elif block == _IMAGE:
            if at + 10 >= len(data):
                break
            long_enough = delay >= _SHORTEST_GIF_DELAY
            delays.append(Fraction(delay, 100) if long_enough else _DEFAULT_DELAY)
            delay = 0
            left, top, across, down = struct.unpack_from("<4H", data, at + 1)
            width, height = max(width, left + across), max(height, top + down)
            begin = at
            # The image's descriptor, its palette, and the size of its smallest LZW codes.
            at = _skip_sub_blocks(data, at + 10 + _palette_size(data[at + 9]) + 1)
            transparent = key if flags & 1 else None
            pictures.append(GifPicture(begin, at, left, top, flags >> 2 & 7, transparent))
            flags = 0
        else:  # stray bytes between blocks, which decoders skip
            found = _NEXT_BLOCK.search(data, at)
            end = found.start() if found else len(data)
            if stray is None and data[at:end].strip(b"\0"):
                stray = at
            at = end
    return GifLayout(tuple(delays), (width, height), whole, tuple(pictures), stray)


def _palette_size(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def is_series(data: bytes) -> bool:
    """Tell if whole PNG, JPEG or BMP files of one size follow each other, as a pipe of frames.

    Args:
        data: what begins as such a file; it may be damaged.
    """
    if data.startswith(SIGNATURE):
        end = data.find(_PNG_END + SIGNATURE)
        second = end + len(_PNG_END)
        return end >= 0 and data[second + 16 : second + 24] == data[16:24]
    if data[:2] == b"BM":
        second = int.from_bytes(data[2:6], "little")
        return (
            second > 26
            and data[second : second + 2] == b"BM"
            and (data[second + 18 : second + 26] == data[18:26])
        )
    if not data.startswith(_JPEG_BEGIN) or _JPEG_END + _JPEG_BEGIN not in data:
        return False
    second, size = _jpeg_end(data, 0)
    # Files of several views, or with a map of gains, name their pictures in a segment "MPF".
    if not size or not data.startswith(_JPEG_BEGIN, second) or b"MPF\0" in data[:second]:
        return False
    return _jpeg_end(data, second)[1] == size


def _jpeg_end(data: bytes, begin: int) -> tuple[int, bytes]:
    """Where the JPEG ends that begins somewhere (0: not found), and its size as coded."""
    at, size = begin + 2, b""
    while (marker := _JPEG_MARKER.search(data, at)) is not None:
        code, at = data[marker.start() + 1], marker.end()
        if code == _JPEG_END[1]:
            return at, size
        if code in _JPEG_FRAMES:
            size = data[at + 3 : at + 7]
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return 0, size


def webp_delays(data: bytes) -> tuple[Fraction, ...]:
    """The seconds that each picture of an animated WebP is shown (RFC 9649, 2.7.1.1).

    Args:
        data: the whole file; it may be damaged.
    """
    at = 12
    delays: list[Fraction] = []
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF" and length >= 16:
            milliseconds = int.from_bytes(data[at + 20 : at + 23], "little")
            delays.append(Fraction(milliseconds, 1000) if milliseconds else _DEFAULT_DELAY)
        at += 8 + length + length % 2
    return tuple(delays)


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP, by its first chunk (RFC 9649, 2.5 to 2.7).

    Args:
        data: the file, or how it begins.

    Raises:
        ValueError: it is damaged.
    """
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and data[20:21] == b"\x2f":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(data) >= 30:
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    raise ValueError("its first chunk is broken")


def icon_size(data: bytes) -> tuple[int, int]:
    """Width and height of the largest picture of an icon (ICO), by the pictures' own headers.

    Its directory holds sides of up to 256 pixels, and does not bind a decoder.

    Args:
        data: the whole file.

    Raises:
        ValueError: it is damaged.
    """
    (count,) = struct.unpack_from("<H", data, 4)
    sizes = []
    for entry in range(6, 6 + 16 * count, 16):
        (at,) = struct.unpack_from("<I", data, entry + 12)
        if data[at : at + 4] == b"\x89PNG":
            sizes.append(struct.unpack_from(">II", data, at + 16))
        else:  # a bitmap, twice as high: its mask lies below it
            width, height = struct.unpack_from("<ii", data, at + 4)
            sizes.append((abs(width), abs(height) // 2))
    if not sizes:
        raise ValueError("it has no picture")
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def check_psd(data: bytes) -> None:
    """Refuse a Photoshop document whose depth or colour mode Pillow does not know.

    Raises:
        NotImplementedError: it has one of these.
    """
    bits, mode = struct.unpack_from(">HH", data, 22)
    if (mode, bits) not in PSD_MODES:
        raise NotImplementedError(f"a PSD of {bits} bits a sample and colour mode {mode}")
