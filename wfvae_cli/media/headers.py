"""Container headers that FFmpeg does not pass on: the crop and encryption of a video track."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

_MOST = 1 << 20
"""Bytes of the largest part that is read at once."""
_SEGMENT, _TRACKS, _TRACK, _CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0x1F43B675
_SEEK_HEAD, _SEEK, _SEEK_ID, _SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
_TRACK_TYPE, _VIDEO, _ENCODINGS, _ENCODING, _ENCRYPTION = 0x83, 0xE0, 0x6D80, 0x6240, 0x5035
_CROPS = {0x54CC: "left", 0x54BB: "top", 0x54DD: "right", 0x54AA: "bottom"}


@dataclass(frozen=True)
class Crop:
    """Pixels of the decoded picture that are not to be shown, on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


@dataclass(frozen=True)
class VideoTrack:
    """Crop and encryption of one video track, by its container."""

    crop: Crop = Crop()
    encrypted: bool = False


@dataclass(frozen=True)
class _Part:
    """A box or element: its name, and where its content lies."""

    name: bytes | int
    begin: int
    end: int


def video_tracks(file: BinaryIO) -> list[VideoTrack]:
    """Read the headers of an MP4, QuickTime, Matroska or WebM file.

    Args:
        file: at its beginning; a file's first part is enough where the headers are in it.

    Returns:
        Its video tracks in order; none for other containers and damaged headers.
    """
    head = file.read(12)
    try:
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return list(_matroska(file))
        if head[4:8] in (b"ftyp", b"moov", b"wide", b"mdat", b"free", b"skip"):
            return list(_iso(file))
    except (struct.error, IndexError):
        pass
    return []


def _iso(file: BinaryIO) -> Iterator[VideoTrack]:
    """Look into moov/trak/mdia/minf/stbl/stsd (ISO/IEC 14496-12)."""
    for moov in _boxes(file, 0, _length(file), b"moov"):
        for trak in _boxes(file, moov.begin, moov.end, b"trak"):
            for mdia in _boxes(file, trak.begin, trak.end, b"mdia"):
                kinds = [_read(file, part) for part in _boxes(file, mdia.begin, mdia.end, b"hdlr")]
                if [kind[8:12] for kind in kinds] == [b"vide"]:
                    yield _sample_entry(file, mdia)


def _sample_entry(file: BinaryIO, mdia: _Part) -> VideoTrack:
    """Read the first description of a track's samples (8.5.2 and 12.1.3)."""
    part = mdia
    for name in (b"minf", b"stbl", b"stsd"):
        found = next(_boxes(file, part.begin, part.end, name), None)
        if found is None:
            return VideoTrack()
        part = found
    entry = next(_boxes(file, part.begin + 8, part.end), None)
    if entry is None:
        return VideoTrack()
    file.seek(entry.begin + 24)
    width, height = struct.unpack(">HH", file.read(4))
    clap = next(_boxes(file, entry.begin + 78, entry.end, b"clap"), None)
    crop = Crop() if clap is None else _clean_aperture(_read(file, clap), width, height)
    return VideoTrack(crop, encrypted=entry.name in (b"encv", b"drmi"))


def _clean_aperture(data: bytes, width: int, height: int) -> Crop:
    """The rectangle of a `clap` box (12.1.4): its size, and how far its middle is off."""
    numbers = struct.unpack(">8i", data[:32])
    if min(numbers[1::2]) < 1:
        return Crop()
    shown_width, shown_height, right, down = (
        Fraction(numbers[i], numbers[i + 1]) for i in (0, 2, 4, 6)
    )
    columns, rows = int(shown_width), int(shown_height)
    left = int((width - shown_width) / 2 + right)
    top = int((height - shown_height) / 2 + down)
    crop = Crop(left, top, width - columns - left, height - rows - top)
    return crop if columns > 0 and rows > 0 and min(crop.left, crop.top) >= 0 else Crop()


def _boxes(file: BinaryIO, begin: int, end: int, wanted: bytes | None = None) -> Iterator[_Part]:
    """The boxes between two positions, all or those of one name."""
    while begin + 8 <= end:
        file.seek(begin)
        head = file.read(16)
        if len(head) < 8:
            return
        length, name, start = int.from_bytes(head[:4], "big"), head[4:8], begin + 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), begin + 16
        elif length == 0:
            length = end - begin
        if length < start - begin or start > end:
            return
        if wanted is None or name == wanted:
            yield _Part(name, start, min(begin + length, end))
        begin += length


def _matroska(file: BinaryIO) -> Iterator[VideoTrack]:
    """Look into Segment/Tracks/TrackEntry (RFC 9559)."""
    for segment in _elements(file, 0, _length(file), _SEGMENT):
        tracks = _tracks(file, segment)
        if tracks is None:
            continue
        for entry in _elements(file, tracks.begin, tracks.end, _TRACK):
            kinds = list(_elements(file, entry.begin, entry.end, _TRACK_TYPE))
            if [_number(file, kind) for kind in kinds] == [1]:
                yield _track_entry(file, entry)


def _tracks(file: BinaryIO, segment: _Part) -> _Part | None:
    """Find the tracks before the first cluster, or where the seek head says.

    Editors such as mkvpropedit write tracks anew behind the clusters, where the old place has no
    room.
    """
    positions: list[int] = []
    for part in _elements(file, segment.begin, segment.end):
        if part.name == _TRACKS:
            return part
        if part.name == _SEEK_HEAD:
            positions += _sought(file, part)
        if part.name == _CLUSTER:
            break
    for position in positions:
        found = next(_elements(file, segment.begin + position, segment.end), None)
        if found is not None and found.name == _TRACKS:
            return found
    return None


def _sought(file: BinaryIO, seek_head: _Part) -> Iterator[int]:
    """Where tracks lie, counted from the begin of the segment's content."""
    for seek in _elements(file, seek_head.begin, seek_head.end, _SEEK):
        numbers = {part.name: _number(file, part) for part in _elements(file, seek.begin, seek.end)}
        if numbers.get(_SEEK_ID) == _TRACKS and _SEEK_POSITION in numbers:
            yield numbers[_SEEK_POSITION]


def _track_entry(file: BinaryIO, entry: _Part) -> VideoTrack:
    sides = {}
    for video in _elements(file, entry.begin, entry.end, _VIDEO):
        for part in _elements(file, video.begin, video.end):
            if isinstance(part.name, int) and part.name in _CROPS:
                sides[_CROPS[part.name]] = _number(file, part)
    encrypted = any(
        True
        for encodings in _elements(file, entry.begin, entry.end, _ENCODINGS)
        for encoding in _elements(file, encodings.begin, encodings.end, _ENCODING)
        for _ in _elements(file, encoding.begin, encoding.end, _ENCRYPTION)
    )
    return VideoTrack(Crop(**sides), encrypted)


def _elements(file: BinaryIO, begin: int, end: int, wanted: int | None = None) -> Iterator[_Part]:
    """The EBML elements (RFC 8794) between two positions, all or those of one ID."""
    while begin < end:
        file.seek(begin)
        head = file.read(12)
        if not head or not head[0]:
            return
        width = 9 - head[0].bit_length()
        if len(head) <= width or not head[width]:
            return
        digits = 9 - head[width].bit_length()
        name = int.from_bytes(head[:width], "big")
        length = int.from_bytes(head[width : width + digits], "big") & ((1 << 7 * digits) - 1)
        start = begin + width + digits
        if start > end:
            return
        if length == (1 << 7 * digits) - 1:  # unknown
            length = end - start
        if wanted is None or name == wanted:
            yield _Part(name, start, min(start + length, end))
        begin = start + length


def _number(file: BinaryIO, part: _Part) -> int:
    return int.from_bytes(_read(file, part)[:8], "big")


def _read(file: BinaryIO, part: _Part) -> bytes:
    file.seek(part.begin)
    return file.read(min(part.end - part.begin, _MOST))


def _length(file: BinaryIO) -> int:
    return file.seek(0, 2)
