"""Image files as upright RGB frames of the depth they have."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from wfvae_cli.errors import VideoError
from wfvae_cli.media.clip import Colour
from wfvae_cli.media.colour import SRGB, PixelFormat
from wfvae_cli.media.memory import check_memory, check_size
from wfvae_cli.media.stills import deep, headers, heif, png, tiff
from wfvae_cli.media.stills.pillow_image import (
    MODE_BYTES,
    blank_frame,
    damage_reported,
    opened,
    orientation_of,
    rgb_frame,
)

HEAD = 128
"""Bytes that `identify` wants to see: HEIF names its brands there."""

_MAGIC = {
    png.SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"8BPS": "PSD",
    b"qoif": "QOI",
    b"DDS ": "DDS",
}
"""Magic bytes of formats -> Pillow's names of them."""
_PIXEL_FORMATS = {"1": "monow", "L": "gray", "P": "pal8", "LA": "ya8", "RGBA": "rgba"}

# Bytes that a decoder takes for a pixel beside the image that it decodes to: measured, rounded up.
_DECODER_BYTES = {
    "AVIF": 16,
    "JPEG": 6,  # coefficients of a progressive one
    "JPEG2000": 16,
    "WEBP": 18,
}
_ANIMATION_BYTES = 40
"""Bytes that an animation takes for a pixel beside that: the picture before, and its parts."""
_DEEP_BYTES = 40
"""Bytes that decoding a picture of over 8 bits takes for a pixel."""

_ONE_PICTURE = frozenset(("MPO", "JPEG", "PSD", "ICO"))
"""Formats whose further pictures are previews, layers or sizes of the first."""


@dataclass(frozen=True)
class Picture:
    """One image, and what it was."""

    frame: VideoFrame
    """Upright, `rgb24` or `rgb48le`."""
    bits: int
    """Bits of a sample in the file: 8, or 9 to 16."""
    pixel_format: str
    """FFmpeg's name of it, such as `rgba`."""
    container: str
    """`png`, `jpeg`, …"""
    colour: Colour = SRGB
    notices: tuple[str, ...] = ()

    @property
    def format(self) -> PixelFormat:
        """The format of the frame, with the depth of the file."""
        return PixelFormat(self.frame.format.name, "rgb", self.bits, False)


def is_image(head: bytes) -> bool:
    """Tell if a file that begins with `head` (`HEAD` bytes) is a still or animated image."""
    return identify(head) is not None


def identify(head: bytes) -> str | None:
    """The format of an image that begins with `head` (`HEAD` bytes), by Pillow's name.

    HEIF images that are not AVIF are "HEIF", which Pillow does not read.
    """
    for magic, fmt in _MAGIC.items():
        if head.startswith(magic):
            return fmt
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    # An icon has at least one picture, whose entry has a byte that is 0. Video elementary streams
    # can begin with the same four bytes.
    if head[:4] == b"\0\0\1\0" and head[4:6] != b"\0\0" and head[9:10] == b"\0" and head[10] < 2:
        return "ICO"
    brands = heif.brands(head)
    # A video can have an HEIF brand beside its own; only the major one makes it an image.
    if not brands or brands[0] not in heif.HEIF_BRANDS:
        return None
    return "AVIF" if heif.AVIF_BRANDS & set(brands) else "HEIF"


def read_bytes(file: Path | io.BytesIO, name: str, memory: int | None) -> bytes:
    """Read an image file whole.

    Raises:
        VideoError: it cannot be read, or is too large.
    """
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    try:
        check_memory(name, "reading it", file.stat().st_size, memory)
        return file.read_bytes()
    except VideoError:
        raise
    except OSError as error:
        raise VideoError(f"{name}: cannot be read: {error.strerror or error}") from error


def load(file: Path | io.BytesIO, name: str | None = None, memory: int | None = None) -> Picture:
    """Read an image, upright, as RGB of the depth it has.

    Args:
        file: the image.
        name: its name in messages; the path by default.
        memory: bytes that decoding may take; None is half of what is free.

    Raises:
        VideoError: it is damaged, too large, or its samples are of unknown range.
    """
    name = name or str(file)
    return decode(read_bytes(file, name, memory), name, memory)


def decode(data: bytes, name: str, memory: int | None = None) -> Picture:
    """Decode an image; see `load`.

    Args:
        data: the whole file.
        name: its name in messages.
        memory: bytes that decoding may take; None is half of what is free.
    """
    fmt = identify(data[:HEAD])
    if fmt is None:
        raise VideoError(f"{name}: not an image that can be read: convert it to PNG")
    if fmt == "HEIF":
        brand = data[8:12].decode("ascii", "replace")
        raise VideoError(
            f"{name}: an HEIF image (brand {brand}), of which only AVIF can be read: "
            "convert it to PNG"
        )
    with damage_reported(name):
        if fmt == "PNG":
            data = png.without_metadata(data)
        if fmt == "TIFF":
            page = tiff.read_page(data)
            tiff.check_samples(page, name)
            check_size(name, page.size)
            tiff.check_layout(page, data)
            if tiff.is_beyond_pillow(page):
                return _decode_tiff(data, page, name, memory)
        if fmt == "PSD":
            headers.check_psd(data)
        check_header(data, fmt, name, memory)
        with opened(data, fmt) as image:
            return _decode_opened(image, data, fmt, name, memory)


def check_header(data: bytes, fmt: str, name: str, memory: int | None) -> None:
    """Refuse an image whose decoder would take memory before it tells the size.

    Args:
        data: the whole file.
        fmt: its format.
        name: its name in messages.
        memory: bytes that decoding may take; None is half of what is free.

    Raises:
        VideoError: it is too large.
        ValueError: it is damaged.
    """
    sizes = {"GIF": lambda: headers.gif_layout(data).size}
    sizes |= {"WEBP": lambda: headers.webp_size(data), "ICO": lambda: headers.icon_size(data)}
    if fmt in sizes:
        size = sizes[fmt]()
        check_size(name, size)
        check_memory(name, decoding_of(size), needed_memory(size, "RGBA", fmt, len(data)), memory)


def _decode_opened(
    image: Image.Image, data: bytes, fmt: str, name: str, memory: int | None
) -> Picture:
    """Decode an image that Pillow has opened."""
    check_size(name, image.size)
    bits, colour = 8, SRGB
    if fmt == "PNG":
        header = png.read_header(data)
        bits, colour = header.bits, header.colour
    elif fmt == "AVIF":
        samples = heif.read_samples(data)
        bits, colour = samples.bits, deep.avif_colour(samples.nclx)
    elif fmt == "JPEG2000":
        bits = deep.jpeg2000_bits(data)
    needed = needed_memory(image.size, image.mode, fmt, len(data), bits)
    check_memory(name, decoding_of(image.size), needed, memory)
    count = getattr(image, "n_frames", 1)
    single = image.format in _ONE_PICTURE or count < 2
    notices = [] if single else [f"only the first of its {count} pictures is read"]
    if bits > 8:
        frame, pixel_format, transparent, more = _decode_deep(image, data, fmt, bits)
        notices += more
    else:
        image.load()
        pixel_format = pixel_format_of(image)
        if image.mode.startswith("I;16"):
            frame, bits, transparent = _grey_frame(image), 12, False
            pixel_format = "gray12le"
        elif image.mode in ("I", "F"):
            raise VideoError(
                f"{name}: samples of 32 bits, of unknown range: convert the image to 16 bits"
            )
        else:
            frame, transparent = rgb_frame(image, orientation_of(image))
    if transparent:
        notices.append("its alpha channel is composited onto black")
    container = (image.format or fmt).lower()
    return Picture(frame, max(8, bits), pixel_format, container, colour, tuple(notices))


def pixel_format_of(image: Image.Image) -> str:
    """FFmpeg's name of an image's pixel format, by Pillow's mode."""
    alpha = image.has_transparency_data
    return _PIXEL_FORMATS.get(image.mode, "rgba" if alpha else "rgb24")


def decoding_of(size: tuple[int, int]) -> str:
    """Describe decoding a picture of this width and height, for messages about memory."""
    return f"decoding its {size[0]}x{size[1]} pixels"


def needed_memory(
    size: tuple[int, int],
    mode: str,
    fmt: str,
    stored: int,
    bits: int = 8,
    *,
    animated: bool = False,
) -> int:
    """Bytes that decoding an image takes at most.

    Args:
        size: its width and height in pixels.
        mode: Pillow's mode of it.
        fmt: its format.
        stored: bytes of the file.
        bits: of a sample.
        animated: whether each picture is composed of those before it.
    """
    if bits > 8:
        each = _DEEP_BYTES
    else:
        # The image itself, its RGB frame, and another that it is scaled or copied to.
        each = MODE_BYTES.get(mode, 4) + _DECODER_BYTES.get(fmt, 4) + 6
        each += _ANIMATION_BYTES if animated else 0
    return size[0] * size[1] * each + 2 * stored


def _decode_tiff(data: bytes, page: tiff.Page, name: str, memory: int | None) -> Picture:
    width, height = page.size
    needed = width * height * (6 * page.samples + 12) + 3 * len(data)
    check_memory(name, decoding_of(page.size), needed, memory)
    frame, pixel_format, transparent = tiff.decode(data, page)
    notices = []
    if page.count > 1:
        notices.append(f"only the first of its {page.count} pictures is read")
    if transparent:
        notices.append("its alpha channel is composited onto black")
    return Picture(frame, page.bits, pixel_format, "tiff", SRGB, tuple(notices))


def _decode_deep(
    image: Image.Image, data: bytes, fmt: str, bits: int
) -> tuple[VideoFrame, str, bool, list[str]]:
    """An upright frame, FFmpeg's name of what it was, whether it had alpha, and notices."""
    notices: list[str] = []
    if fmt == "AVIF":
        still = heif.read_still(data)
        if still.picture.size != image.size:
            raise ValueError("the size of its picture is ambiguous")
        pixels, coded, notices = deep.decode_avif(still, orientation_of(image))
        alpha = still.alpha is not None
    else:
        # Pillow judges whether the file is whole: FFmpeg conceals what is missing.
        image.load()
        orientation = orientation_of(image)
        image.close()
        if fmt == "PNG":
            pixels, coded = deep.decode_png(data, image.size, orientation)
        else:
            pixels, coded = deep.decode_jpeg2000(data, image.size, bits, orientation)
        alpha = PixelFormat.of(coded.format).alpha
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels, np.uint16), format="rgb48le")
    return frame, coded.format.name, alpha, notices


def _grey_frame(image: Image.Image) -> VideoFrame:
    """A frame of Pillow's deep grey, which only 12-bit TIFF is read as."""
    frame, target = blank_frame(*image.size, 16, orientation_of(image))
    grey = np.asarray(image)
    grey = (grey.astype(np.uint32) * 65535 + 2047) // 4095
    target[...] = grey[..., None]
    return frame
