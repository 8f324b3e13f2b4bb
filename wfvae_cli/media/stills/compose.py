"""Composition of the pictures of GIF and APNG, as browsers and FFmpeg show them.

Pillow restores the wrong background of GIFs, and does not blend half-transparent pixels of APNGs
as the format's specification says. It decodes each part here, and no more.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.media.stills import png
from wfvae_cli.media.stills.headers import GifPicture, gif_layout
from wfvae_cli.media.stills.pillow_image import opened

_BACKGROUND, _PREVIOUS = 2, 3
"""What becomes of a GIF's picture before the next one (GIF89a specification, 23)."""
_APNG_BACKGROUND, _APNG_PREVIOUS = 1, 2
"""The same of an APNG (PNG, third edition, 11.3.6.2)."""
_OVER = 1
_OPAQUE = 1 - 1 / 512
_BAND_PIXELS = 1 << 20
_GREY_RAMP = bytes(level for level in range(256) for _ in range(3))

Composed = tuple[NDArray[np.uint8], bool]
"""HWC RGB on black, to be copied before the next one; and whether the first is transparent."""


def compose_gif(data: bytes, size: tuple[int, int]) -> Iterator[Composed]:
    """Compose the pictures of a GIF.

    Args:
        data: the whole file.
        size: width and height of the screen, in pixels; what sticks out is cut off.

    Raises:
        Exception: of any kind, where it is damaged.
    """
    width, height = size
    canvas = np.zeros((height, width, 3), np.uint8)
    drawn = np.zeros((height, width), bool)
    first = True
    palette = data[13 : 13 + _palette_bytes(data[10])]
    for picture in gif_layout(data).pictures:
        indices, colours = _decode_gif(data, picture, palette)
        rows, columns = indices.shape
        region = (
            slice(picture.top, min(picture.top + rows, height)),
            slice(picture.left, min(picture.left + columns, width)),
        )
        shown, opaque = canvas[region], drawn[region]
        before = (shown.copy(), opaque.copy()) if picture.disposal == _PREVIOUS else None
        indices = indices[: shown.shape[0], : shown.shape[1]]
        solid = np.ones(indices.shape, bool) if picture.key is None else indices != picture.key
        np.copyto(shown, colours[indices], where=solid[..., None])
        opaque |= solid
        yield canvas, first and not drawn.all()
        first = False
        if picture.disposal == _BACKGROUND:
            shown[...], opaque[...] = 0, False
        elif before is not None:
            shown[...], opaque[...] = before


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _decode_gif(
    data: bytes, picture: GifPicture, palette: bytes
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Indices of one picture's colours, `[H, W]`, and the colours, `[256, 3]`."""
    width, height = struct.unpack_from("<HH", data, picture.begin + 5)
    flags, pixels = data[picture.begin + 9], picture.begin + 10
    if flags & 0x80:
        palette = data[pixels : pixels + _palette_bytes(flags)]
        pixels += len(palette)
    palette = palette or _GREY_RAMP
    bits = (len(palette) // 3).bit_length() - 2
    screen = struct.pack("<HHBBB", width, height, 0x80 | bits, 0, 0) + palette
    descriptor = struct.pack("<B4HB", 0x2C, 0, 0, width, height, flags & 0x40)  # interlaced
    alone = b"GIF89a" + screen + descriptor + data[pixels : picture.end] + b";"
    with opened(alone, "GIF") as image:
        image.load()
        indices = np.asarray(image)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette) // 3] = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    return indices, colours


@dataclass
class _Part:
    """One frame of an APNG: its fcTL chunk, and the pieces of its compressed pixels."""

    size: tuple[int, int]
    at: tuple[int, int]
    disposal: int
    blending: int
    pixels: list[bytes]


def compose_apng(data: bytes, size: tuple[int, int]) -> Iterator[Composed]:
    """Compose the frames of an APNG of up to 8 bits.

    Args:
        data: the whole file.
        size: width and height in pixels.

    Raises:
        Exception: of any kind, where it is damaged.
    """
    width, height = size
    header, shared, parts = _read_parts(data)
    canvas = np.zeros((height, width, 4), np.float32)  # colours times alpha, from 0 to 1
    rgb = np.zeros((height, width, 3), np.uint8)
    for index, part in enumerate(parts):
        (x, y), (columns, rows) = part.at, part.size
        if x + columns > width or y + rows > height:
            raise ValueError(f"frame {index} sticks out of its {width}x{height} pixels")
        disposal = part.disposal
        if index == 0 and disposal == _APNG_PREVIOUS:
            disposal = _APNG_BACKGROUND
        region = canvas[y : y + rows, x : x + columns]
        before = region.copy() if disposal == _APNG_PREVIOUS else None
        alone = [(b"IHDR", struct.pack(">II", columns, rows) + header[8:]), *shared]
        alone += [(b"IDAT", b"".join(part.pixels)), (b"IEND", b"")]
        _draw(region, png.SIGNATURE + b"".join(map(_chunk, alone)), part.blending == _OVER)
        shown = rgb[y : y + rows, x : x + columns]
        _round(region, shown)
        yield rgb, index == 0 and bool(canvas[..., 3].min() < _OPAQUE)
        if disposal == _APNG_BACKGROUND:
            region[...], shown[...] = 0, 0
        elif before is not None:
            region[...] = before
            _round(region, shown)


def _read_parts(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], list[_Part]]:
    """The header's content, the palette and transparency that all frames share, and the frames."""
    header, shared = b"", []
    parts: list[_Part] = []
    following = 0
    for kind, begin, end in png.chunks(data):
        if kind not in (b"IHDR", b"PLTE", b"tRNS", b"fcTL", b"IDAT", b"fdAT"):
            continue
        body = data[begin + 8 : end - 4]
        if zlib.crc32(data[begin + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"the checksum of its {kind.decode()} at byte {begin} is wrong")
        if kind == b"IHDR":
            header = body
        elif kind in (b"fcTL", b"fdAT"):
            if int.from_bytes(body[:4], "big") != following:
                raise ValueError(f"chunk {following} of its animation is missing")
            following += 1
        if kind in (b"PLTE", b"tRNS"):
            shared.append((kind, body))
        elif kind == b"fcTL":
            columns, rows, x, y = struct.unpack_from(">4I", body, 4)
            parts.append(_Part((columns, rows), (x, y), body[24], body[25], []))
        elif kind == b"fdAT":
            parts[-1].pixels.append(body[4:])
        elif kind == b"IDAT" and parts:  # before the first fcTL: a picture for other programs
            parts[-1].pixels.append(body)
    return header, shared, parts


def _chunk(named: tuple[bytes, bytes]) -> bytes:
    kind, body = named
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _draw(region: NDArray[np.float32], data: bytes, over: bool) -> None:
    """Draw a PNG onto a region of the canvas, or in its place."""
    with opened(data, "PNG") as image:
        image.load()
        pixels = np.asarray(image.convert("RGBA"))
    for band in _bands(region):
        drawn = pixels[band].astype(np.float32) / np.float32(255)
        drawn[..., :3] *= drawn[..., 3:]
        if over:
            drawn += region[band] * (1 - drawn[..., 3:])
        region[band] = drawn


def _round(region: NDArray[np.float32], rgb: NDArray[np.uint8]) -> None:
    """Round a region to 8 bits; colours times alpha are those on black."""
    for band in _bands(region):
        rgb[band] = region[band][..., :3] * np.float32(255) + np.float32(0.5)


def _bands(canvas: NDArray[np.float32]) -> Iterator[slice]:
    rows = max(1, _BAND_PIXELS // max(1, canvas.shape[1]))
    return (slice(top, top + rows) for top in range(0, canvas.shape[0], rows))
