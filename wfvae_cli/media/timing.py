"""How many pictures GIF and WebP files hold, and how long each is shown: known before decoding."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

_DEFAULT_DELAY = Fraction(1, 10)
"""Seconds that a picture without a delay is shown, as in browsers and FFmpeg."""
_SHORTEST_GIF_DELAY = 2
"""In 1/100 s; shorter ones stand for none, as in browsers and FFmpeg."""
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9


@dataclass(frozen=True)
class GifLayout:
    """The pictures of a GIF."""

    delays: tuple[Fraction, ...]
    """Seconds that each picture is shown."""
    whole: bool
    """Whether the file goes on to its trailer."""


def gif_layout(data: bytes) -> GifLayout:
    """Walk the blocks of a GIF (GIF89a specification, appendix B).

    Pictures need no control block: those without one are shown for a tenth of a second.

    Args:
        data: the whole file; it may be damaged.
    """
    at = 13 + _palette_size(data[10]) if len(data) >= 13 else len(data)
    delays: list[Fraction] = []
    delay = 0
    while at < len(data):
        block = data[at]
        if block == _TRAILER:
            return GifLayout(tuple(delays), whole=True)
        if block == _EXTENSION:
            if data[at + 1 : at + 3] == bytes((_GRAPHIC_CONTROL, 4)) and at + 6 <= len(data):
                delay = int.from_bytes(data[at + 4 : at + 6], "little")
            at = _skip_sub_blocks(data, at + 2)
        elif block == _IMAGE:
            if at + 10 >= len(data):
                break
            long_enough = delay >= _SHORTEST_GIF_DELAY
            delays.append(Fraction(delay, 100) if long_enough else _DEFAULT_DELAY)
            delay = 0
            # The image's descriptor, its palette, and the size of its smallest LZW codes.
            at = _skip_sub_blocks(data, at + 10 + _palette_size(data[at + 9]) + 1)
        else:
            at += 1  # a stray byte between blocks, which decoders skip
    return GifLayout(tuple(delays), whole=False)


def _palette_size(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


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
