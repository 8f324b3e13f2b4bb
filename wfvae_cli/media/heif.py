"""HEIF files (ISO/IEC 23008-12), of which AVIF is one: their brands, items and image sequences.

Pillow decodes AVIF, to 8 bits a sample. What it leaves unsaid is read here: how deep the samples
are, what their colours mean, how a sequence is timed, and where the coded pictures lie.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

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
_MAX_ITEMS = 4096
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
    """Of the grid."""
    size: tuple[int, int]
    """Width and height in pixels of the whole picture."""


@dataclass(frozen=True)
class Still:
    """The primary picture of a file."""

    picture: Item
    alpha: Item | None
    premultiplied: bool
    """Whether its colours have been multiplied by alpha already."""
    bits: int
    """Bits of a sample."""
    nclx: Nclx | None


@dataclass(frozen=True)
class Sequence:
    """An image sequence: a track of pictures."""

    bits: int
    """Bits of a sample."""
    nclx: Nclx | None
    delays: tuple[Fraction, ...]
    """Seconds that each picture is shown."""


@dataclass
class _Meta:
    """Boxes of a `meta` box, by item."""

    types: dict[int, bytes] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    properties: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    references: list[tuple[bytes, int, tuple[int, ...]]] = field(default_factory=list)
    primary: int = 0


def read_still(data: bytes) -> Still:
    """Find the primary picture of an AVIF file.

    Args:
        data: the whole file.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    for kind, begin, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            return _still(data, _read_meta(data, begin + 4, end))
    raise ValueError("it has no meta box")


def read_sequence(data: bytes) -> Sequence | None:
    """Find the image sequence of an AVIF file, that of colours where alpha has one of its own."""
    for kind, begin, end in _boxes(data, 0, len(data)):
        if kind == b"moov":
            for track, first, last in _boxes(data, begin, end):
                if track == b"trak" and (found := _read_track(data, first, last)) is not None:
                    return found
    return None


def _boxes(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box in a stretch of `data`, and where its body begins and ends."""
    while begin + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if length == 1 and begin + 16 <= end:
            length, head = struct.unpack_from(">Q", data, begin + 8)[0], 16
        elif length == 0:
            length = end - begin
        if length < head:
            return
        yield kind, begin + head, min(begin + length, end)
        begin += length


def _read_track(data: bytes, begin: int, end: int) -> Sequence | None:
    """A track's timing and depth; None for a track of anything but pictures."""
    handler, timescale, bits, nclx = b"", 0, 8, None
    runs: list[tuple[int, int]] = []
    pending = [(begin, end)]
    while pending:
        for kind, first, last in _boxes(data, *pending.pop()):
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
    return Sequence(bits, nclx, tuple(delays))


def _av1_bits(config: bytes) -> int:
    """Bits of a sample, by an AV1 codec configuration record (AV1 in ISO BMFF, 2.3)."""
    if len(config) < 3 or not config[2] & 0x40:
        return 8
    return 12 if config[2] & 0x20 else 10


def _nclx(body: bytes) -> Nclx | None:
    """What a `colr` box says; None for one that holds an ICC profile."""
    if body[:4] != b"nclx" or len(body) < 11:
        return None
    primaries, transfer, matrix = struct.unpack_from(">HHH", body, 4)
    return Nclx(primaries, transfer, matrix, bool(body[10] & 0x80))


def _read_meta(data: bytes, begin: int, end: int) -> _Meta:
    meta, idat = _Meta(), 0
    inner = list(_boxes(data, begin, end))
    for kind, first, _ in inner:
        if kind == b"idat":
            idat = first
    for kind, first, last in inner:
        if kind == b"pitm":
            meta.primary = int.from_bytes(data[first + 4 : first + (8 if data[first] else 6)])
        elif kind == b"iinf":
            _read_item_types(data, first, last, meta)
        elif kind == b"iloc":
            _read_locations(data, first, idat, meta)
        elif kind == b"iprp":
            _read_properties(data, first, last, meta)
        elif kind == b"iref":
            _read_references(data, first, last, meta)
    return meta


def _read_item_types(data: bytes, begin: int, end: int, meta: _Meta) -> None:
    for kind, first, _ in _boxes(data, begin + (8 if data[begin] else 6), end):
        if kind == b"infe" and data[first] >= 2:
            wide = 4 if data[first] >= 3 else 2
            number = int.from_bytes(data[first + 4 : first + 4 + wide])
            meta.types[number] = data[first + 6 + wide : first + 10 + wide]


def _read_locations(data: bytes, begin: int, idat: int, meta: _Meta) -> None:
    """Where the items' bytes lie: `iloc`, ISO/IEC 14496-12, 8.11.3."""
    version, at = data[begin], begin + 4
    offset_size, length_size = data[at] >> 4, data[at] & 15
    base_size, index_size = data[at + 1] >> 4, data[at + 1] & 15 if version else 0
    at += 2

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise ValueError("its item locations are cut short")
        return int.from_bytes(data[at - size : at])

    wide = 4 if version == 2 else 2
    for _ in range(min(number(wide), _MAX_ITEMS)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)  # which file it lies in: this one
        base = number(base_size) + (idat if method == 1 else 0)
        extents = []
        for _ in range(min(number(2), _MAX_ITEMS)):
            number(index_size)
            offset = number(offset_size)
            extents.append((base + offset, number(length_size)))
        meta.extents[item] = extents


def _read_properties(data: bytes, begin: int, end: int, meta: _Meta) -> None:
    known: list[tuple[bytes, bytes]] = []
    for kind, first, last in _boxes(data, begin, end):
        if kind == b"ipco":
            known = [(name, data[a:b]) for name, a, b in _boxes(data, first, last)]
        elif kind == b"ipma":
            version, wide = data[first], data[first + 3] & 1
            (count,) = struct.unpack_from(">I", data, first + 4)
            at = first + 8
            for _ in range(min(count, _MAX_ITEMS)):
                size = 4 if version else 2
                item = int.from_bytes(data[at : at + size])
                associations, at = data[at + size], at + size + 1
                found = meta.properties.setdefault(item, [])
                for _ in range(associations):
                    index = int.from_bytes(data[at : at + 1 + wide]) & (0x7FFF if wide else 0x7F)
                    at += 1 + wide
                    if 1 <= index <= len(known):
                        found.append(known[index - 1])


def _read_references(data: bytes, begin: int, end: int, meta: _Meta) -> None:
    wide = 4 if data[begin] else 2
    for kind, first, _ in _boxes(data, begin + 4, end):
        (count,) = struct.unpack_from(">H", data, first + wide)
        to = first + wide + 2
        numbers = tuple(
            int.from_bytes(data[at : at + wide]) for at in range(to, to + wide * count, wide)
        )
        meta.references.append((kind, int.from_bytes(data[first : first + wide]), numbers))


def _still(data: bytes, meta: _Meta) -> Still:
    picture = _item(data, meta, meta.primary)
    alpha = next(
        (
            item
            for kind, item, targets in meta.references
            if kind == b"auxl"
            and meta.primary in targets
            and _property(meta, item, b"auxC")[4:].startswith(_ALPHA)
        ),
        None,
    )
    premultiplied = any(
        kind == b"prem" and item == meta.primary for kind, item, _ in meta.references
    )
    nclx: Nclx | None = None
    for name, body in meta.properties.get(meta.primary, []):
        if name == b"colr":
            nclx = _nclx(body) or nclx
    configured = meta.primary
    if meta.types.get(meta.primary) == b"grid":
        configured = _tiles(meta, meta.primary)[0]
    return Still(
        picture,
        None if alpha is None else _item(data, meta, alpha),
        premultiplied,
        _av1_bits(_property(meta, configured, b"av1C")),
        nclx,
    )


def _item(data: bytes, meta: _Meta, item: int) -> Item:
    kind = meta.types.get(item)
    if kind == b"grid":
        grid = _bytes_of(data, meta, item)
        rows, columns = grid[2] + 1, grid[3] + 1
        width, height = struct.unpack_from(">II" if grid[1] & 1 else ">HH", grid, 4)
        tiles = _tiles(meta, item)
        if len(tiles) != rows * columns:
            raise ValueError(f"its grid has {rows * columns} tiles, and {len(tiles)} are there")
        coded = tuple(_bytes_of(data, meta, tile) for tile in tiles)
        return Item(coded, columns, (width, height))
    if kind != b"av01":
        raise ValueError(f"its picture is of the kind {kind!r}, not AV1")
    width, height = struct.unpack_from(">II", _property(meta, item, b"ispe"), 4)
    return Item((_bytes_of(data, meta, item),), 1, (width, height))


def _tiles(meta: _Meta, grid: int) -> tuple[int, ...]:
    tiles = (to for kind, item, to in meta.references if kind == b"dimg" and item == grid)
    found = next(tiles, ())
    if not found:
        raise ValueError("its grid has no tiles")
    return found


def _property(meta: _Meta, item: int, name: bytes) -> bytes:
    return next((body for kind, body in meta.properties.get(item, []) if kind == name), b"")


def _bytes_of(data: bytes, meta: _Meta, item: int) -> bytes:
    extents = meta.extents.get(item, [])
    end = len(data)
    parts = [data[a : a + length] if length else data[a:] for a, length in extents]
    missing = sum(max(0, a + length - end) for a, length in extents)
    if missing or not any(parts):
        raise ValueError("it ends before its picture does")
    return b"".join(parts)
