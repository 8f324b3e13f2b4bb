"""PNG and APNG files: header, colours, frame times, and metadata that decoders stumble over."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from wfvae_cli.media.clip import Colour
from wfvae_cli.media.colour import PRIMARIES, SRGB, TRANSFERS

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PICTURE = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"))
_ORIENTING = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keywords of the texts in which Pillow looks for an orientation."""
_MAX_TEXT = 1 << 20
"""Bytes of a text chunk, unpacked, that Pillow accepts (`PngImagePlugin.MAX_TEXT_CHUNK`)."""
_WIDE_PRIMARIES = ("bt2020", "smpte431", "smpte432")
_HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
_DEFAULT_DELAY = Fraction(1, 15)
"""Seconds that a frame with a delay of 0 is shown, as in FFmpeg's demuxer."""


@dataclass(frozen=True)
class PngHeader:
    """Contents of the chunks before and between the picture data."""

    bits: int = 8
    """Bits of a sample: 1, 2, 4, 8 or 16."""
    colour: Colour = SRGB
    delays: tuple[Fraction, ...] = ()
    """Seconds that each frame of an animation is shown; empty for a single picture."""


def read_header(data: bytes) -> PngHeader:
    """Read what a PNG file says of its samples, colours and frames.

    Args:
        data: the whole file; it may be damaged.
    """
    bits, animated = 8, False
    colour = SRGB
    delays = []
    for kind, begin, end in chunks(data):
        body = data[begin + 8 : end - 4]
        if kind == b"IHDR" and len(body) >= 9:
            bits = body[8]
        elif kind == b"acTL":
            animated = True
        elif kind == b"fcTL" and len(body) == 26:
            delays.append(_delay(*struct.unpack_from(">HH", body, 20)))
        elif kind == b"cICP" and len(body) == 4:
            # PNG, third edition, 11.3.2.6: primaries, transfer, matrix (0) and range by H.273.
            colour = Colour(
                "gbr",
                "pc" if body[3] else "tv",
                PRIMARIES.get(body[0], "unknown"),
                TRANSFERS.get(body[1], "unknown"),
            )
    return PngHeader(bits, colour, tuple(delays) if animated and len(delays) > 1 else ())


def _delay(numerator: int, denominator: int) -> Fraction:
    return Fraction(numerator, denominator or 100) if numerator else _DEFAULT_DELAY


def with_colour(data: bytes, colour: Colour) -> bytes:
    """Label a PNG whose colours no program would guess: of wide gamut, or high dynamic range.

    Args:
        data: the whole file.
        colour: colour description of its RGB.

    Returns:
        The file, with a cICP chunk behind its header unless it would pass for sRGB anyway.
    """
    wide = colour.primaries in _WIDE_PRIMARIES or colour.transfer in _HDR_TRANSFERS
    primaries = next((n for n, name in PRIMARIES.items() if name == colour.primaries), None)
    transfer = next((n for n, name in TRANSFERS.items() if name == colour.transfer), None)
    if not wide or primaries is None or transfer is None:
        return data
    body = b"cICP" + bytes((primaries, transfer, 0, 1))
    chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
    _, _, behind = next(chunks(data))
    return data[:behind] + chunk + data[behind:]


def without_metadata(data: bytes) -> bytes:
    """Leave out the chunks that are no part of the picture, whatever state they are in.

    Pillow refuses whole pictures for a text or profile that unpacks to over 1 MiB, or whose CRC
    is wrong. Kept are the chunks that the picture is made of, and sound ones that say what its
    colours mean, or may hold an orientation: Exif and XMP.

    Args:
        data: a PNG file.
    """
    kept = [(0, len(SIGNATURE))]
    complete = True
    for kind, begin, end in chunks(data):
        if kind in _PICTURE or _is_wanted(kind, data[begin:end]):
            if kept[-1][1] == begin:
                kept[-1] = (kept[-1][0], end)
            else:
                kept.append((begin, end))
        else:
            complete = False
    return data if complete else b"".join(data[begin:end] for begin, end in kept)


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, and where it begins and ends; the last one may be cut short."""
    begin = len(SIGNATURE)
    while begin + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, begin)
        end = begin + 12 + length
        yield kind, begin, min(end, len(data))
        if kind == b"IEND":
            return
        begin = end


def _is_wanted(kind: bytes, chunk: bytes) -> bool:
    body = chunk[8:-4]
    if len(body) > _MAX_TEXT or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        return False
    if kind in (b"eXIf", b"cICP"):
        return True
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or not body.startswith(_ORIENTING):
        return False
    keyword, _, rest = body.partition(b"\0")
    packed = None
    if kind == b"zTXt":
        packed = rest[1:]
    elif kind == b"iTXt" and rest[:1] == b"\1":  # language and translated keyword precede the text
        packed = rest[2:].split(b"\0", 2)[-1]
    if packed is None:
        return True
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(packed, _MAX_TEXT - len(keyword))
    except zlib.error:
        return False
    return inflater.eof
