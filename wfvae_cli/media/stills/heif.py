"""HEIF files (ISO/IEC 23008-12), of which AVIF is one: their brands, items and image sequences.

Pillow decodes AVIF to 8 bits a sample. This reads what Pillow does not report: the samples' depth
and colour description, the timing of a sequence, and the positions of the coded pictures.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

from wfvae_cli.media.stills.heif_boxes import Meta, boxes, read_meta

AVIF_BRANDS = frozenset((b"avif", b"avis"))
HEIF_BRANDS = AVIF_BRANDS | frozenset(
    (
        *(b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"),
        *(b"mif1", b"mif2", b"mif3", b"msf1", b"miaf", b"1pic"),
        *(b"jpeg", b"jpgs", b"j2ki", b"j2is", b"avci", b"avcs", b"vvic", b"vvis", b"unif"),
    )
)
"""Brands of the standards that build on HEIF, with AVIF's."""

_MAX_BRANDS = 64
_MAX_PICTURES = 1 << 20
_ALPHA = (
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0",
    b"urn:mpeg:hevc:2015:auxid:1\0",
)


def brands(head: bytes) -> tuple[bytes, ...]:
    """The brands that a file's `ftyp` box names, the major one first; none if it has no such box.

    Args:
        head: how the file begins; brands beyond its end are left out.
    """
    if len(head) < 16 or head[4:8] != b"ftyp":
        return ()
    end = min(int.from_bytes(head[:4], "big"), len(head), 16 + 4 * _MAX_BRANDS)
    return (head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4)))


@dataclass(frozen=True)
class Nclx:
    """Colours as numbered by ITU-T H.273."""

    primaries: int
    transfer: int
    matrix: int
    full_range: bool


@dataclass(frozen=True)
class Item:
    """A coded picture, or a grid of them."""

    coded: tuple[bytes, ...]
    """AV1 of its tiles, row by row; one for a picture without a grid."""
    columns: int
    """Number of tiles in a row of the grid."""
    size: tuple[int, int]
    """Width and height in pixels of the whole picture."""


@dataclass(frozen=True)
class Samples:
    """Depth and colour description of a picture's samples."""

    bits: int = 8
    nclx: Nclx | None = None


@dataclass(frozen=True)
class Still:
    """The primary picture of a file."""

    picture: Item
    alpha: Item | None
    premultiplied: bool
    """True where its colours are premultiplied by alpha."""
    samples: Samples


@dataclass(frozen=True)
class Sequence:
    """An image sequence: a track of pictures."""

    samples: Samples
    delays: tuple[Fraction, ...]
    """Seconds that each picture is shown."""


def read_samples(data: bytes) -> Samples:
    """Find out what the samples of an AVIF file's picture are.

    Args:
        data: the whole file; it may have no picture but those of a sequence.
    """
    meta = _find_meta(data)
    if meta is not None:
        return _samples(meta)
    sequence = read_sequence(data)
    return Samples() if sequence is None else sequence.samples


def read_still(data: bytes) -> Still:
    """Find the primary picture of an AVIF file.

    Args:
        data: the whole file.

    Raises:
        NotImplementedError: there is none, or it is neither AV1 nor a grid of AV1.
        ValueError: it is damaged.
    """
    meta = _find_meta(data)
    if meta is None:
        raise NotImplementedError("deep AVIF without a still picture")
    return _still(data, meta)


def _find_meta(data: bytes) -> Meta | None:
    for kind, begin, end in boxes(data, 0, len(data)):
        if kind == b"meta":
            return read_meta(data, begin + 4, end)
    return None


def read_sequence(data: bytes) -> Sequence | None:
    """Find the image sequence of an AVIF file, that of colours where alpha has one of its own."""
    for kind, begin, end in boxes(data, 0, len(data)):
        if kind == b"moov":
            for track, first, last in boxes(data, begin, end):
                if track == b"trak" and (found := _read_track(data, first, last)) is not None:
                    return found
    return None


def _read_track(data: bytes, begin: int, end: int) -> Sequence | None:
    """A track's timing and depth; None for a track of anything but pictures."""
    handler, timescale, bits, nclx = b"", 0, 8, None
    runs: list[tuple[int, int]] = []
    pending = [(begin, end)]
    while pending:
        for kind, first, last in boxes(data, *pending.pop()):
            if kind in (b"mdia", b"minf", b"stbl"):
                pending.append((first, last))
            elif kind == b"hdlr":
                handler = data[first + 8 : first + 12]
            elif kind == b"mdhd":
                timescale = struct.unpack_from(">I", data, first + (20 if data[first] else 12))[0]
            elif kind == b"stts":
                (count,) = struct.unpack_from(">I", data, first + 4)
                count = min(count, (last - first - 8) // 8)
                runs = [struct.unpack_from(">II", data, first + 8 + 8 * i) for i in range(count)]
            elif kind == b"stsd":
                at = data.find(b"av1C", first, last)
                bits = _av1_bits(data[at + 4 : last]) if at >= 0 else bits
                at = data.find(b"colrnclx", first, last)
                nclx = _nclx(data[at + 4 : last]) if at >= 0 else nclx
    if handler != b"pict" or not timescale or not runs:
        return None
    if sum(count for count, _ in runs) > _MAX_PICTURES:
        raise ValueError(f"its sequence announces more than {_MAX_PICTURES} pictures")
    delays: list[Fraction] = []
    for count, delta in runs:
        delays += [Fraction(delta, timescale)] * count
    return Sequence(Samples(bits, nclx), tuple(delays))


def _av1_bits(config: bytes) -> int:
    """Bits of a sample, by an AV1 codec configuration record (AV1 in ISO BMFF, 2.3)."""
    if len(config) < 3 or not config[2] & 0x40:
        return 8
    return 12 if config[2] & 0x20 else 10


def _nclx(body: bytes) -> Nclx | None:
    """Parse a `colr` box; None for one that holds an ICC profile."""
    if body[:4] != b"nclx" or len(body) < 11:
        return None
    primaries, transfer, matrix = struct.unpack_from(">HHH", body, 4)
    return Nclx(primaries, transfer, matrix, bool(body[10] & 0x80))


def _still(data: bytes, meta: Meta) -> Still:
    picture = _item(data, meta, meta.primary)
    alpha = next(
        (
            item
            for kind, item, targets in meta.references
            if kind == b"auxl"
            and meta.primary in targets
            and meta.get_property(item, b"auxC")[4:].startswith(_ALPHA)
        ),
        None,
    )
    premultiplied = any(
        kind == b"prem" and item == meta.primary for kind, item, _ in meta.references
    )
    opacity = None if alpha is None else _item(data, meta, alpha)
    if opacity is not None and opacity.size != picture.size:
        raise ValueError("its alpha channel has another size than its colours")
    return Still(picture, opacity, premultiplied, _samples(meta))


def _samples(meta: Meta) -> Samples:
    nclx: Nclx | None = None
    for name, body in meta.properties.get(meta.primary, []):
        if name == b"colr":
            nclx = _nclx(body) or nclx
    configured = meta.primary
    if meta.types.get(meta.primary) == b"grid":
        configured = meta.get_tiles(meta.primary)[0]
    return Samples(_av1_bits(meta.get_property(configured, b"av1C")), nclx)


def _item(data: bytes, meta: Meta, item: int) -> Item:
    kind = meta.types.get(item)
    if kind == b"grid":
        grid = meta.get_bytes(data, item)
        rows, columns = grid[2] + 1, grid[3] + 1
        width, height = struct.unpack_from(">II" if grid[1] & 1 else ">HH", grid, 4)
        tiles = meta.get_tiles(item)
        if len(tiles) != rows * columns:
            raise ValueError(f"its grid has {rows * columns} tiles, and {len(tiles)} are there")
        coded = tuple(meta.get_bytes(data, tile) for tile in tiles)
        return Item(coded, columns, (width, height))
    if kind != b"av01":
        raise NotImplementedError(f"a picture of the kind {kind!r}, not AV1")
    width, height = struct.unpack_from(">II", meta.get_property(item, b"ispe"), 4)
    return Item((meta.get_bytes(data, item),), 1, (width, height))
