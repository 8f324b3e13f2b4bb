"""Recognises files that end too early from what their containers say of their own size.

Demuxers end quietly where the bytes end, so a half-downloaded file would pass for a short one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

_BOXES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"moof", b"uuid")
)
_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


@dataclass(frozen=True)
class Layout:
    """What the top level of a container shows."""

    promised: int | None = None
    """Bytes the file should have at least; None where the container does not say."""
    lacks_index: bool = False
    """An MP4 without its `moov` box: nothing in it can be found."""


def inspect(path: Path) -> Layout:
    """Read the top level of an MP4, QuickTime, Matroska, WebM, AVI or WAV file.

    Args:
        path: an existing regular file.

    Returns:
        What it promises; an empty `Layout` for every other format.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] in _BOXES:
            return _iso_bmff(file, size)
        return Layout(size_in_header(file))


def size_in_header(file: BinaryIO) -> int | None:
    """Bytes that the header of a Matroska, WebM, AVI or WAV file announces, if it does.

    Args:
        file: at its beginning, of which 1024 bytes are enough.
    """
    head = file.read(8)
    if head[:4] == _EBML.to_bytes(4, "big"):
        return _matroska(file)
    if head[:4] == b"RIFF" and len(head) == 8:
        length: int = struct.unpack("<I", head[4:])[0]
        # 0 and all ones stand for a writer that could not go back to fill it in.
        return None if length in (0, 0xFFFFFFFF) else 8 + length // 2 * 2
    return None


def announced_end(tags: Mapping[str, str]) -> Fraction | None:
    """Seconds at which a Matroska track ends, as its statistics tags say; None without them.

    A demuxer finds its way past a damaged stretch of Matroska without a word, so that a file
    whose end is damaged would pass for a short one.

    Args:
        tags: the stream's metadata.
    """
    match = _DURATION.fullmatch(tags.get("DURATION", ""))
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)


def _iso_bmff(file: BinaryIO, size: int) -> Layout:
    """Walk the boxes of ISO/IEC 14496-12: 32-bit size, name, and a 64-bit size if that is 1."""
    pos, has_index = 0, False
    while pos + 8 <= size:
        file.seek(pos)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            wide = file.read(8)
            length = struct.unpack(">Q", wide)[0] if len(wide) == 8 else 16
        elif length == 0:  # to the end of the file, whatever that is
            length = size - pos
        if length < 8:
            break  # not a box: padding after the last one
        has_index = has_index or name == b"moov"
        if pos + length > size and name in (b"mdat", b"moof", b"moov"):
            return Layout(pos + length, lacks_index=not has_index)
        pos += length
    return Layout(lacks_index=not has_index)


def _matroska(file: BinaryIO) -> int | None:
    """Read the EBML header (RFC 8794) and the size of the Segment (RFC 9559) behind it."""
    pos = 0
    for expected in (_EBML, _SEGMENT):
        file.seek(pos)
        head = file.read(12)
        if len(head) < 12 or int.from_bytes(head[:4], "big") != expected or head[4] == 0:
            return None
        width = 9 - head[4].bit_length()
        length = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:  # unknown: written to a pipe
            return None
        pos += 4 + width + length
    return pos
