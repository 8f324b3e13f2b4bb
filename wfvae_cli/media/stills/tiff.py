"""TIFF files (TIFF 6.0, and BigTIFF) that Pillow reduces, rounds twice or refuses: all of 16 bits.

libtiff, in Pillow, still unpacks their strips and tiles: it is given the same bytes as an image
of grey 8-bit samples, and they are interpreted here. So every layout and compression that
Pillow reads at 8 bits is read at 16.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL.TiffImagePlugin import COMPRESSION_INFO

from wfvae_cli.errors import VideoError
from wfvae_cli.media.clip import Bits
from wfvae_cli.media.sampling import Orientation
from wfvae_cli.media.stills.pillow_image import bands, blank_frame, opened, orientation_of_tag

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES = 266, 273, 274, 277
_STRIP_ROWS, _STRIP_SIZES, _PLANAR, _PREDICTOR = 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 332, 338, 339

_USED = frozenset(
    (
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_OFFSETS),
        *(_ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_SIZES, _PLANAR, _PREDICTOR, _TILE_WIDTH),
        *(_TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, _INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT),
    )
)
_MAX_VALUES = 1 << 22
"""Maximum number of a tag's values: strips or tiles; more means damage."""
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of tags' values that are unsigned integers -> their `struct` format."""
_SAMPLE_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floating-point numbers"}
_COMPRESSIONS = frozenset((1, 5, 8, 32773, 32946, 34925, 50000))
"""None, LZW, Deflate (old and new), PackBits, LZMA and Zstandard: all that 16-bit samples take."""
_WEBP = 50001
"""A compression that Pillow knows, and its libtiff does not."""
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}
"""PhotometricInterpretation -> samples of a colour: grey (white or black is 0), RGB, CMYK."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
_SMALL_TILE = 1 << 24
"""Pixels that a tile may have, however small the image is."""
_MAX_PAGES = 1 << 16

Samples = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Page:
    """The first image of a TIFF file."""

    tags: dict[int, tuple[int, ...]]
    """Tags that are used here, with unsigned integers as values."""
    big_endian: bool
    count: int
    """Images in the file."""

    def get(self, tag: int, default: int) -> int:
        """A tag's first value."""
        return self.tags.get(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as stored."""
        return self.get(_WIDTH, 0), self.get(_HEIGHT, 0)

    @property
    def bits(self) -> int:
        """Bits of the deepest sample."""
        return max(self.tags.get(_BITS, (1,)))

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return self.get(_SAMPLES, len(self.tags.get(_BITS, (1,))))

    @property
    def orientation(self) -> Orientation:
        """Orientation of the image."""
        return orientation_of_tag(self.get(_ORIENTATION, 1))


def read_page(data: bytes) -> Page:
    """Read the tags of a TIFF's first image, and count its images.

    Args:
        data: the whole file.

    Raises:
        ValueError: it is damaged.
    """
    big_endian = data[:2] == b"MM"
    order = ">" if big_endian else "<"
    big = 43 in data[2:4]
    tags: dict[int, tuple[int, ...]] | None = None
    seen: set[int] = set()
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    while at and at not in seen and len(seen) < _MAX_PAGES:
        seen.add(at)
        found, at = _read_directory(data, at, order, big, only_next=tags is not None)
        tags = found if tags is None else tags
    if tags is None:
        raise ValueError("it has no image")
    return Page(tags, big_endian, len(seen))


def _read_directory(
    data: bytes, at: int, order: str, big: bool, *, only_next: bool
) -> tuple[dict[int, tuple[int, ...]], int]:
    """Read the tags of one directory, and where the next directory is (0: there is none)."""
    entry, size = (order + "HHQ", 20) if big else (order + "HHI", 12)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at += 8 if big else 2
    inline = size - struct.calcsize(entry)
    if at + count * size + inline > len(data):
        raise ValueError("a directory of its tags is cut short")
    tags = {}
    for first in range(at, at if only_next else at + count * size, size):
        tag, kind, length = struct.unpack_from(entry, data, first)
        if tag not in _USED or kind not in _INTEGERS or not length:
            continue
        if length > _MAX_VALUES:
            raise ValueError(f"its tag {tag} has {length} values")
        where = first + size - inline
        needed = length * struct.calcsize(_INTEGERS[kind])
        if needed > inline:
            (where,) = struct.unpack_from(order + ("Q" if big else "I"), data, where)
        if where + needed > len(data):
            raise ValueError(f"its tag {tag} lies beyond its end")
        tags[tag] = struct.unpack_from(f"{order}{length}{_INTEGERS[kind]}", data, where)
    (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, at + count * size)
    return tags, following


def check_samples(page: Page, name: str) -> None:
    """Refuse samples whose range is not known, such as floating-point ones.

    Raises:
        VideoError: their meaning is unknown.
        NotImplementedError: Pillow cannot unpack them.
    """
    compression = page.get(_COMPRESSION, 1)
    if compression not in COMPRESSION_INFO or compression == _WEBP:
        raise NotImplementedError(f"TIFF's compression {compression}")
    kinds = set(page.tags.get(_SAMPLE_FORMAT, (1,)))
    if page.bits > 16 or kinds - {1, 4}:
        kind = " and ".join(_SAMPLE_FORMATS.get(kind, "another kind") for kind in sorted(kinds))
        raise VideoError(
            f"{name}: samples of {page.bits} bits ({kind}), of unknown range: convert the image "
            "to unsigned integers of 16 bits"
        )


def check_layout(page: Page, data: bytes) -> None:
    """Check that there are as many strips or tiles as the image needs, and that they lie in it.

    Raises:
        ValueError: there are not, and what is missing would come out black.
    """
    width, height = page.size
    tiled = _TILE_OFFSETS in page.tags
    offsets = page.tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    if tiled:
        area = page.get(_TILE_WIDTH, 0) * page.get(_TILE_HEIGHT, 0)
        if not 0 < area <= max(_SMALL_TILE, 4 * width * height):
            raise ValueError(f"its tiles are of {area} pixels")
        across = -(-width // max(1, page.get(_TILE_WIDTH, 0)))
        down = -(-height // max(1, page.get(_TILE_HEIGHT, 0)))
    else:
        across, down = 1, -(-height // max(1, min(page.get(_STRIP_ROWS, height), height)))
    planes = page.samples if page.get(_PLANAR, 1) == 2 else 1
    if len(offsets) < across * down * planes:
        parts = "tiles" if tiled else "strips"
        raise ValueError(f"{len(offsets)} of {across * down * planes} {parts} are there")
    if not all(0 < offset < len(data) for offset in offsets[: across * down * planes]):
        raise ValueError("a part of it lies beyond its end")


def is_beyond_pillow(page: Page) -> bool:
    """Tell if Pillow would reduce an image, round it twice, or refuse it for where its alpha is."""
    if page.bits != 8 or page.get(_COMPRESSION, 1) not in _COMPRESSIONS:
        return page.bits == 16
    photometric = page.get(_PHOTOMETRIC, 1)
    colours = _COLOURS.get(photometric, 0)
    alpha = _alpha(page, photometric, colours) if colours else None
    return alpha is not None and (photometric == 5 or alpha != (colours, False))


def decode(data: bytes, page: Page) -> tuple[VideoFrame, str, bool]:
    """Decode an image of unsigned samples of 8 or 16 bits.

    Args:
        data: the whole file.
        page: its first image, whose samples and layout have been checked.

    Returns:
        An upright frame (`rgb24` or `rgb48le`), FFmpeg's name for what it was, and whether any of
        it was transparent: that is composited onto black.

    Raises:
        NotImplementedError: its colours or compression are unknown.
        Exception: of any kind, where it is damaged.
    """
    photometric = page.get(_PHOTOMETRIC, 2 if page.samples > 2 else 1)
    colours = _COLOURS.get(photometric, 0)
    bits: Bits = 8 if page.bits == 8 else 16
    if not colours or set(page.tags[_BITS]) != {bits} or page.get(_INK_SET, 1) != 1:
        raise NotImplementedError(f"{bits}-bit samples of TIFF's colour space {photometric}")
    if page.samples < colours:
        raise ValueError(f"{page.samples} samples a pixel, for a colour of {colours}")
    extra = _alpha(page, photometric, colours)
    frame, target = blank_frame(*page.size, bits, page.orientation)
    peak = np.iinfo(target.dtype).max
    transparent = False
    for top, pixels in _bands(data, page):
        rgb = _to_rgb(pixels[..., :colours], photometric)
        if extra is not None:
            index, associated = extra
            alpha = pixels[..., index, None]
            transparent = transparent or bool(alpha.min() < peak)
            rgb = rgb if associated else _times(rgb, alpha)
        target[top : top + len(pixels)] = rgb
    return frame, _pixel_format(page, colours, extra is not None), transparent


def _pixel_format(page: Page, colours: int, alpha: bool) -> str:
    """FFmpeg's name of what an image is, or what it would be called there."""
    if page.bits == 8:
        return {1: "ya8", 3: "rgba"}.get(colours, "cmyk")
    name = {1: "gray16", 3: "rgb48", 4: "cmyk64"}[colours]
    if alpha:
        name = {1: "ya16", 3: "rgba64"}.get(colours, name)
    return name + ("be" if page.big_endian else "le")


def _alpha(page: Page, photometric: int, colours: int) -> tuple[int, bool] | None:
    """Find the alpha sample.

    Returns:
        Its index, and True where colours are premultiplied by it; None without alpha.
    """
    kinds = page.tags.get(_EXTRA_SAMPLES)
    if kinds is None and photometric != 5 and page.samples == colours + 1:
        kinds = (_UNASSOCIATED,)  # as Pillow has it at 8 bits
    for index, kind in enumerate((kinds or ())[: page.samples - colours], colours):
        if kind in (_ASSOCIATED, _UNASSOCIATED):
            return index, kind == _ASSOCIATED
    return None


def _to_rgb(colour: Samples, photometric: int) -> Samples:
    """Grey, RGB or CMYK to RGB; grey stays one sample."""
    peak = colour.dtype.type(np.iinfo(colour.dtype).max)
    if photometric == 0:
        return peak - colour
    if photometric == 5:
        return _times(peak - colour[..., :3], peak - colour[..., 3:])
    return colour


def _times(colour: Samples, factor: Samples) -> Samples:
    """The product of samples from 0 to 1, rounded."""
    peak = np.iinfo(colour.dtype).max
    product = colour.astype(np.uint32)  # 65535 * 65535 + 32767 just fits
    product *= factor
    product += np.uint32(peak // 2)
    product //= np.uint32(peak)
    return cast(Samples, product.astype(colour.dtype))


def _bands(data: bytes, page: Page) -> Iterator[tuple[int, Samples]]:
    """Bands of rows, each with the number of its first row: samples `[rows, width, samples]`."""
    planar = page.get(_PLANAR, 1) == 2
    together = 1 if planar else page.samples
    dtype = np.dtype(">u2" if page.big_endian else "<u2") if page.bits == 16 else np.dtype("u1")
    with ExitStack() as stack:
        planes = []
        for plane in range(page.samples if planar else 1):
            image = stack.enter_context(opened(_as_bytes(data, page, plane, together), "TIFF"))
            image.load()
            planes.append(image)
        for parts in zip(*map(bands, planes), strict=True):
            top, first = parts[0]
            shape = (first.height, page.size[0], together)
            samples = [np.asarray(part).reshape(-1).view(dtype).reshape(shape) for _, part in parts]
            whole = samples[0] if len(samples) == 1 else np.concatenate(samples, axis=2)
            yield top, _undo_prediction(whole.astype(f"u{dtype.itemsize}"), page)


def _undo_prediction(samples: Samples, page: Page) -> Samples:
    """Add up differences along the rows of each strip or tile, and wrap around (TIFF 6.0, 14)."""
    if page.get(_PREDICTOR, 1) != 2:
        return samples
    width = page.size[0]
    step = page.get(_TILE_WIDTH, width) if _TILE_OFFSETS in page.tags else width
    for left in range(0, width, step):
        part = samples[:, left : left + step]
        np.cumsum(part, axis=1, dtype=part.dtype, out=part)
    return samples


def _as_bytes(data: bytes, page: Page, plane: int, samples: int) -> bytes:
    """Rewrap the strips or tiles as a TIFF of 8-bit grey: one pixel for each of their bytes.

    Args:
        data: the whole file.
        page: its first image.
        plane: which plane, where samples lie in planes of their own.
        samples: of a pixel that lie together.
    """
    if page.get(_COMPRESSION, 1) not in _COMPRESSIONS:
        raise NotImplementedError(f"16-bit samples of TIFF's compression {page.tags[_COMPRESSION]}")
    (width, height), wide = page.size, page.bits // 8 * samples
    tags: dict[int, tuple[int, ...]] = {_WIDTH: (width * wide,), _HEIGHT: (height,)}
    tags |= {_BITS: (8,), _PHOTOMETRIC: (1,), _SAMPLES: (1,)}
    for tag in (_COMPRESSION, _FILL_ORDER):
        tags[tag] = (page.get(tag, 1),)
    if _TILE_OFFSETS in page.tags:
        offsets, sizes = _TILE_OFFSETS, _TILE_SIZES
        tags[_TILE_WIDTH] = (page.tags[_TILE_WIDTH][0] * wide,)
        tags[_TILE_HEIGHT] = page.tags[_TILE_HEIGHT]
    else:
        offsets, sizes = _STRIP_OFFSETS, _STRIP_SIZES
        tags[_STRIP_ROWS] = (min(page.get(_STRIP_ROWS, height), height),)
    for tag in (offsets, sizes):
        if tag in page.tags:
            each = len(page.tags[tag]) // (page.samples if page.get(_PLANAR, 1) == 2 else 1)
            tags[tag] = page.tags[tag][plane * each : (plane + 1) * each]
    # What is cut off must not be read from the directory that is put behind the data.
    if sizes in tags:
        parts = zip(tags[offsets], tags[sizes], strict=False)
        tags[sizes] = tuple(min(size, len(data) - offset) for offset, size in parts)
    if page.get(_COMPRESSION, 1) == 1 and _end_of_raw(tags, offsets) > len(data):
        raise ValueError("a part of it lies beyond its end")
    return _with_directory(data, tags)


def _end_of_raw(tags: dict[int, tuple[int, ...]], offsets: int) -> int:
    """Where the last strip or tile of 8-bit grey ends that is not compressed."""
    (width,), (height,) = tags[_WIDTH], tags[_HEIGHT]
    if offsets == _TILE_OFFSETS:
        return max(tags[offsets]) + tags[_TILE_WIDTH][0] * tags[_TILE_HEIGHT][0]
    (rows,) = tags[_STRIP_ROWS]
    tops = range(0, height, rows)
    strips = zip(tags[offsets], tops, strict=False)
    return max(offset + min(rows, height - top) * width for offset, top in strips)


def _with_directory(data: bytes, tags: dict[int, tuple[int, ...]]) -> bytes:
    """A file, as a TIFF whose only directory holds `tags`: appended, since offsets stay."""
    padding = bytes(-len(data) % 2)
    at = len(data) + len(padding)
    entries, values = [], b""
    behind = at + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, values = struct.pack("<I", behind + len(values)), values + packed
        entries.append(struct.pack("<HHI", tag, 4, len(numbers)) + packed)
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"".join((b"II*\0", struct.pack("<I", at), data[8:], padding, directory, values))
