"""The boxes of HEIF files that say where pictures lie and what belongs to them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_MAX_ITEMS = 4096


@dataclass
class Meta:
    """Contents of a `meta` box: the items of a file, by their ids."""

    types: dict[int, bytes] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    properties: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    references: list[tuple[bytes, int, tuple[int, ...]]] = field(default_factory=list)
    primary: int = 0

    def get_property(self, item: int, name: bytes) -> bytes:
        """The body of an item's first property of a kind; empty if it has none."""
        return next((body for kind, body in self.properties.get(item, []) if kind == name), b"")

    def get_tiles(self, grid: int) -> tuple[int, ...]:
        """The items that a grid is made of.

        Raises:
            ValueError: there are none, or one comes twice.
        """
        tiles = (to for kind, item, to in self.references if kind == b"dimg" and item == grid)
        found = next(tiles, ())
        if not found or len(set(found)) != len(found):
            raise ValueError("its grid lacks or repeats tiles")
        return found

    def get_bytes(self, data: bytes, item: int) -> bytes:
        """The coded bytes of an item.

        Raises:
            ValueError: they are not all there.
        """
        extents = self.extents.get(item, [])
        if len(extents) == 1 and not extents[0][1]:  # up to the end of the file
            extents = [(extents[0][0], len(data) - extents[0][0])]
        if not extents or any(length < 1 or at + length > len(data) for at, length in extents):
            raise ValueError("it ends before its picture does")
        if sum(length for _, length in extents) > len(data):
            raise ValueError("parts of its picture overlap")
        return b"".join(data[at : at + length] for at, length in extents)


def boxes(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box in a stretch of `data`, and where its body begins and ends."""
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


def read_meta(data: bytes, begin: int, end: int) -> Meta:
    """Read the boxes in a `meta` box whose body lies from `begin` to `end`.

    Raises:
        ValueError, struct.error, IndexError: they are damaged.
    """
    meta, idat = Meta(), 0
    inner = list(boxes(data, begin, end))
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


def _read_item_types(data: bytes, begin: int, end: int, meta: Meta) -> None:
    for kind, first, _ in boxes(data, begin + (8 if data[begin] else 6), end):
        if kind == b"infe" and data[first] >= 2:
            wide = 4 if data[first] >= 3 else 2
            number = int.from_bytes(data[first + 4 : first + 4 + wide])
            meta.types[number] = data[first + 6 + wide : first + 10 + wide]


def _read_locations(data: bytes, begin: int, idat: int, meta: Meta) -> None:
    """Parse the positions of the items' bytes: `iloc`, ISO/IEC 14496-12, 8.11.3."""
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

    wide, total = 4 if version == 2 else 2, 0
    for _ in range(min(number(wide), _MAX_ITEMS)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)  # which file it lies in: this one
        base = number(base_size) + (idat if method == 1 else 0)
        extents = []
        for _ in range(number(2)):
            number(index_size)
            offset = number(offset_size)
            extents.append((base + offset, number(length_size)))
            total += 1
            if total > _MAX_ITEMS:
                raise ValueError(f"its items lie in more than {_MAX_ITEMS} places")
        meta.extents[item] = extents


def _read_properties(data: bytes, begin: int, end: int, meta: Meta) -> None:
    known: list[tuple[bytes, bytes]] = []
    for kind, first, last in boxes(data, begin, end):
        if kind == b"ipco":
            known = [(name, data[a:b]) for name, a, b in boxes(data, first, last)]
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


def _read_references(data: bytes, begin: int, end: int, meta: Meta) -> None:
    wide = 4 if data[begin] else 2
    for kind, first, _ in boxes(data, begin + 4, end):
        (count,) = struct.unpack_from(">H", data, first + wide)
        to = first + wide + 2
        numbers = tuple(
            int.from_bytes(data[at : at + wide]) for at in range(to, to + wide * count, wide)
        )
        meta.references.append((kind, int.from_bytes(data[first : first + wide]), numbers))
