"""Recognises files that end too early from the structure of their containers.

Demuxers end quietly where the bytes end, so a half-downloaded file would pass for a short one.
What a container announces is compared with what is there; whether anything that belongs to the
video is missing is for `decoding` to judge.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import BinaryIO

_BOXES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"moof", b"uuid")
)
_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_DESCENDED = frozenset((_SEGMENT, _CLUSTER))
_KNOWN = _DESCENDED | {
    *(_EBML, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367),
    *(0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0xAF, 0x5854, 0xEC, 0xBF),
}
"""IDs of the parts of a Segment and of a Cluster (RFC 9559)."""
_NUT_INDEX = b"NX\xddg/#\xe6N"
_LARGEST_INDEX = 1 << 32
TAIL = 4096
"""Bytes of a file's end that are looked at."""
_FLV_TAGS = frozenset((8, 9, 18))
_MXF_KEY = b"\x06\x0e\x2b\x34"
_LAST_PAGE = 4
_LONGEST_HEAD = 32
"""Bytes that tell the length of a part of any container but Ogg."""
_OGG_TAIL = 1 << 17
"""Bytes that are sure to hold a whole page: pages have at most 65,307."""


class Structure:
    """Hops from part to part of an MP4, Matroska, Ogg, FLV, IVF or MXF file.

    Attributes:
        position: where the next part begins, in bytes.
        known: whether the container is one of these.
        last: name of the MP4 box before `position`.
        sound: whether every part so far was one that the format knows.
        has_index: whether an MP4's `moov` box was among them.
        has_items: whether a `meta` box was, as in HEIF images, which need no `moov`.
        fragmented: whether an MP4's `moof` box was.
        ended: whether the last page of an Ogg stream was the part before.
    """

    HEAD = 282
    """Bytes of a part that `advance` wants to see."""

    def __init__(self, head: bytes) -> None:
        """Recognise a container by the first bytes of a file, 12 or more."""
        self.position = 0
        self.last = b""
        self.has_index = self.has_items = self.fragmented = self.ended = False
        self.is_mp4 = head[4:8] in _BOXES
        self.is_matroska = head[:4] == _EBML.to_bytes(4, "big")
        self.is_ogg = head[:4] == b"OggS"
        self._length = _LENGTHS.get(head[:4]) or _LENGTHS.get(head[:3])
        if self.is_mp4:
            self._length = self._box
        elif self.is_ogg:
            self._length = self._page
        self.known = self.sound = self._length is not None

    def advance(self, head: bytes) -> None:
        """Hop over the part that begins with `head`; `sound` turns False where it is none."""
        length = None if self._length is None else self._length(head)
        self.sound = length is not None
        self.position += length or 0

    def _box(self, head: bytes) -> int | None:
        """Length of a box of ISO/IEC 14496-12: 32 bits, a name, and 64 bits if that is 1."""
        if len(head) < 8:
            return None
        length, name = struct.unpack(">I4s", head[:8])
        if length == 1:
            length = int.from_bytes(head[8:16], "big") if len(head) >= 16 else 16
        if length < 8:  # 0: to the end of the file; others: padding after the last box
            return None
        self.last = name
        self.has_index = self.has_index or name == b"moov"
        self.has_items = self.has_items or name == b"meta"
        self.fragmented = self.fragmented or name == b"moof"
        return int(length)

    def _page(self, head: bytes) -> int | None:
        """Length of an Ogg page (RFC 3533): a header, a table of lengths, and what they sum to."""
        if len(head) < 27 or head[:5] != b"OggS\0" or len(head) < 27 + head[26]:
            return None
        self.ended = bool(head[5] & _LAST_PAGE)
        return 27 + head[26] + sum(head[27 : 27 + head[26]])


def _element(head: bytes) -> int | None:
    """Bytes from one EBML element (RFC 8794) to the next, which is in it for a Segment or Cluster.

    None if it is no element that may stand there.
    """
    if not head or not head[0]:
        return None
    width = 9 - head[0].bit_length()
    name, sized = int.from_bytes(head[:width], "big"), head[width : width + 8]
    if name not in _KNOWN or not sized or not sized[0]:
        return None
    digits = 9 - sized[0].bit_length()
    if name in _DESCENDED:
        return width + digits
    length = int.from_bytes(sized[:digits], "big") & ((1 << 7 * digits) - 1)
    return None if length == (1 << 7 * digits) - 1 else width + digits + length


def _tag(head: bytes) -> int | None:
    """Length of an FLV file's header, or of a tag with the length of the one before it."""
    if head[:3] == b"FLV" and len(head) >= 9:
        return int.from_bytes(head[5:9], "big")
    if not head[4:].strip(b"\0"):  # behind the last tag: the end, or padding
        return min(4, len(head))
    if head[4] & 0xDF not in _FLV_TAGS:  # one bit tells that it is encrypted
        return None
    return 15 + int.from_bytes(head[5:8], "big")


def _ivf_frame(head: bytes) -> int | None:
    """Length of an IVF file's header, or of a frame with its size and time."""
    if head[:4] == b"DKIF":
        return int.from_bytes(head[6:8], "little") or None
    length = int.from_bytes(head[:4], "little")
    return 12 + length if length else None


def _klv(head: bytes) -> int | None:
    """Length of a part of an MXF file (SMPTE 377-1, 6.3): a key, a length, and that many bytes."""
    if head[:4] != _MXF_KEY or len(head) < 17:
        return None
    digits = head[16] & 0x7F if head[16] & 0x80 else 0
    if digits > 8:
        return None
    length = int.from_bytes(head[17 : 17 + digits], "big") if digits else head[16]
    return 17 + digits + length


_LENGTHS: Mapping[bytes, Callable[[bytes], int | None]] = {
    _EBML.to_bytes(4, "big"): _element,
    b"FLV": _tag,
    b"DKIF": _ivf_frame,
    _MXF_KEY: _klv,
}
"""How files of a kind begin, and what measures their parts."""


def structure_of(file: BinaryIO) -> Structure:
    """Walk all the parts of a file, or the last page of an Ogg file.

    Args:
        file: one that can be sought in; of any other container nothing is known.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    found = Structure(file.read(12))
    if found.is_ogg:
        return _last_pages(file, size)
    while found.known and found.sound and found.position < size:
        file.seek(found.position)
        found.advance(file.read(_LONGEST_HEAD))
    return found


def _last_pages(file: BinaryIO, size: int) -> Structure:
    """Find the last page of an Ogg file by looking at its end only."""
    begin = max(0, size - _OGG_TAIL)
    file.seek(begin)
    tail = file.read()
    at = len(tail)
    while (at := tail.rfind(b"OggS\0", 0, at)) >= 0:
        found = Structure(b"OggS")
        found.position = begin + at
        found.advance(tail[at : at + Structure.HEAD])
        # Payloads hold the magic number by chance; a page is followed by one, or by the end.
        following = tail[found.position - begin :]
        if found.sound and (not following or following[:4] == b"OggS"[: len(following)]):
            return found
        if found.sound and found.position > size:
            return found
    return Structure(b"OggS")


def size_in_header(file: BinaryIO) -> int | None:
    """Return the bytes that a Matroska, WebM, AVI or WAV file's header announces, if it does.

    Args:
        file: at its beginning, of which 1024 bytes are enough.
    """
    head = file.read(8)
    if head[:4] == _EBML.to_bytes(4, "big"):
        return _matroska_size(file)
    if head[:4] == b"RIFF" and len(head) == 8:
        length: int = struct.unpack("<I", head[4:])[0]
        # 0 and all ones stand for a writer that could not go back to fill it in.
        return None if length in (0, 0xFFFFFFFF) else 8 + length // 2 * 2
    return None


def announced_end(tags: Mapping[str, str]) -> Fraction | None:
    """Seconds at which a Matroska track ends, as its statistics tags say; None without them.

    A demuxer finds its way past a damaged stretch of Matroska without a word, so that a file
    whose end is damaged would pass for a short one. Only Matroska writers keep the tag true:
    elsewhere it was copied from the source.

    Args:
        tags: the stream's metadata.
    """
    match = _DURATION.fullmatch(tags.get("DURATION", ""))
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)


def gif_pictures(data: bytes) -> tuple[int, bool]:
    """Count the pictures of a GIF, and tell whether it reaches its trailer.

    Args:
        data: the whole file (GIF89a specification, appendix A).
    """
    count = 0
    try:
        at = 13 + _palette(data[10])
        while True:
            kind = data[at]
            if kind == 0x3B:
                return count, True
            if kind == 0x21:
                at += 2
            elif kind == 0x2C:
                at += 11 + _palette(data[at + 9])
                count += 1
            else:  # junk, which decoders skip
                at += 1
                continue
            while data[at]:
                at += data[at] + 1
            at += 1
    except IndexError:
        return count, False


def incomplete_packet(head: bytes, size: int) -> int | None:
    """Return the bytes of a transport stream's packets if its last one is cut; None if it is not.

    Args:
        head: 1024 bytes of its beginning; packets (ISO/IEC 13818-1) begin with 0x47, in some
            files after a time of 4 bytes.
        size: bytes of the whole.
    """
    for unit, first in ((188, 0), (192, 4), (204, 0)):
        if all(head[first + i * unit : first + i * unit + 1] == b"G" for i in range(3)):
            return unit if size % unit else None
    return None


def has_nut_index(tail: bytes, size: int) -> bool:
    """Tell if a NUT file ends with an index, as its writers leave it, also on a pipe.

    Args:
        tail: its last bytes. The index begins with a code, and ends with 8 bytes of its length and
            4 of a checksum.
        size: bytes of the whole.
    """
    length = int.from_bytes(tail[-12:-4], "big")
    return _NUT_INDEX in tail or (len(tail) >= 12 and 0 < length <= min(size, _LARGEST_INDEX))


def is_mxf(head: bytes) -> bool:
    """Tell by its beginning whether a file is MXF, with its header at once."""
    return head.startswith(_MXF_KEY)


def mxf_footer(head: bytes) -> int:
    """Return where an MXF file's header says that its footer begins; 0 where it does not say.

    Args:
        head: the beginning: a key of 16 bytes, a length, and the partition pack (SMPTE 377-1, 7).
    """
    length = 1 + (head[16] & 0x7F if len(head) > 16 and head[16] & 0x80 else 0)
    return int.from_bytes(head[16 + length + 24 : 16 + length + 32], "big")


def _palette(flags: int) -> int:
    """Bytes of the colour table that the flags of a screen or picture announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _matroska_size(file: BinaryIO) -> int | None:
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


def announced_size(head: bytes) -> int | None:
    """Return what `size_in_header` finds in the first bytes of a file."""
    return size_in_header(io.BytesIO(head))
