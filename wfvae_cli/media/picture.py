"""Image files as upright RGB arrays of the depth they have."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from wfvae_cli.errors import VideoError
from wfvae_cli.media.clip import Colour
from wfvae_cli.media.colour import PixelFormat
from wfvae_cli.media.filters import Converter, Pixels, over_black
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.sampling import Orientation, plan_geometry

MAX_PIXELS = 1 << 28
"""Pixels of the largest picture accepted, as in FFmpeg: headers can ask for any memory."""
HEAD = 32
"""Bytes that `is_image` wants to see."""

_MAGIC = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"8BPS",
    b"qoif",
    b"DDS ",
)
_ORIENTATIONS = {  # of EXIF's tag 274
    2: Orientation(hflip=True),
    3: Orientation(hflip=True, vflip=True),
    4: Orientation(vflip=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, hflip=True),
    7: Orientation(transpose=True, hflip=True, vflip=True),
    8: Orientation(transpose=True, vflip=True),
}
_FORMATS = {"1": "monow", "L": "gray", "P": "pal8", "LA": "ya8", "RGBA": "rgba"}
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError)


@dataclass(frozen=True)
class Picture:
    """One image: HWC RGB pixels, uint8 or uint16, and what it was."""

    pixels: Pixels
    pixel_format: str
    format: str
    """`png`, `jpeg`, …"""
    notices: tuple[str, ...] = ()


def is_image(head: bytes) -> bool:
    """Whether a file that begins with `head` (32 bytes) is a still or animated image."""
    riff = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    bitmap = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    heif = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    return head.startswith(_MAGIC) or riff or bitmap or heif


def is_animated(file: Path | io.BytesIO) -> bool:
    """Whether an image has several pictures that follow each other in time."""
    with _opened(file, str(file)) as image:
        return image.format in ("GIF", "PNG", "AVIF") and getattr(image, "n_frames", 1) > 1


def load(file: Path | io.BytesIO, name: str | None = None) -> Picture:
    """Read an image, upright, as RGB of the depth it has.

    Args:
        file: the image.
        name: what messages call it; the path by default.

    Raises:
        VideoError: it is damaged, too large, or of samples deeper than 16 bits.
    """
    name = name or str(file)
    with _opened(file, name) as image:
        _check_size(image.size, name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image.load()
                orientation = _ORIENTATIONS.get(image.getexif().get(274, 1), Orientation())
        except _DAMAGED as error:
            raise VideoError(
                f"{name}: the image is damaged or cut short ({error}): copy or download it again"
            ) from error
        notices = []
        count = getattr(image, "n_frames", 1)
        if count > 1 and image.format not in ("MPO", "JPEG"):
            notices.append(f"only the first of its {count} pictures is read")
        if _is_deep(image, file):
            fmt, pixels, alpha = _load_deep(file, image, name)
        else:
            fmt, pixels, alpha = _load_shallow(image, name)
        if alpha:
            notices.append("its alpha channel is composited onto black")
        return Picture(
            _turn(pixels, orientation).copy(),
            fmt,
            (image.format or "image").lower(),
            tuple(notices),
        )


@contextmanager
def _opened(file: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """Open an image without decoding it."""
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warning of large images; we have a limit
            image = Image.open(file)
    except Image.DecompressionBombError as error:
        raise VideoError(
            f"{name}: the image is too large ({error}): scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        raise VideoError(
            f"{name}: not an image that can be read; of HEIF only AVIF is: convert it to PNG"
        ) from error
    except _DAMAGED as error:
        raise VideoError(
            f"{name}: the image is damaged or cut short ({error}): copy or download it again"
        ) from error
    with image:
        yield image


def _check_size(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise VideoError(
            f"{name}: {size[0]}x{size[1]} pixels, more than the {MAX_PIXELS} allowed: "
            "scale it down first"
        )


def _is_deep(image: Image.Image, file: Path | io.BytesIO) -> bool:
    """Whether Pillow would squeeze the samples of a PNG or TIFF from 16 bits to 8."""
    if isinstance(image, TiffImageFile):
        return 16 in image.tag_v2.get(258, ())
    return image.format == "PNG" and _bytes(file, 25)[24:] == b"\x10"


def _bytes(file: Path | io.BytesIO, count: int) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:count]
    with file.open("rb") as opened:
        return opened.read(count)


def _load_shallow(image: Image.Image, name: str) -> tuple[str, Pixels, bool]:
    """Pixel format, HWC RGB, and whether there was alpha, as far as Pillow reads full depth."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)
        return "gray16le", np.repeat(grey[..., None], 3, axis=2), False
    if image.mode in ("I", "F"):
        raise VideoError(
            f"{name}: samples of 32 bits, of unknown range: convert the image to 16 bits"
        )
    alpha = image.has_transparency_data
    fmt = _FORMATS.get(image.mode, "rgba" if alpha else "rgb24")
    if not alpha:
        return fmt, np.asarray(image.convert("RGB")), False
    rgba = np.asarray(image.convert("RGBA"))
    return fmt, over_black(rgba), bool(rgba[..., 3].min() < 255)


def _load_deep(file: Path | io.BytesIO, image: Image.Image, name: str) -> tuple[str, Pixels, bool]:
    """Pixel format, HWC RGB of 16 bits, and whether there was alpha, decoded by FFmpeg."""
    if isinstance(file, io.BytesIO):
        file.seek(0)
    source = io.BytesIO(file.read() if isinstance(file, io.BytesIO) else file.read_bytes())
    try:
        with av.open(
            source, "r", format="png_pipe" if image.format == "PNG" else "tiff_pipe"
        ) as box:
            frame = next(box.decode(video=0))
    except (av.error.FFmpegError, StopIteration) as error:
        raise VideoError(
            f"{name}: the 16-bit image cannot be decoded ({error}): convert it to a 16-bit PNG"
        ) from error
    geometry = plan_geometry(frame.width, frame.height, Fraction(1), Orientation(), Sampling())
    pixels = Converter(16, Colour("gbr", "pc"), geometry)(frame)
    return frame.format.name, pixels, PixelFormat.of(frame.format).alpha


def _turn(pixels: Pixels, orientation: Orientation) -> Pixels:
    if orientation.transpose:
        pixels = pixels.swapaxes(0, 1)
    if orientation.hflip:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation.vflip else pixels
