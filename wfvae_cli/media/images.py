"""Image files and numbered sequences of them, as clips of RGB frames."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from wfvae_cli.errors import VideoError
from wfvae_cli.media.clip import Colour, Sampling
from wfvae_cli.media.colour import PixelFormat
from wfvae_cli.media.filters import Converter, Pixels, over_black
from wfvae_cli.media.sampling import Orientation, Timed, plan_geometry

MAX_PIXELS = 1 << 28
"""Pixels of the largest picture accepted, as in FFmpeg: headers can ask for any memory."""
PATTERN = re.compile(r"%(?:0(\d+))?d")
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


class ImageSource:
    """One image, or the images that a pattern names, as a source of frames."""

    orientation = Orientation()  # applied while loading, since each file has its own
    sample_aspect = Fraction(1)
    colour = Colour("gbr", "pc", "bt709", "iec61966-2-1")

    def __init__(self, names: list[Path] | Picture, name: str, frame_rate: Fraction | None) -> None:
        """Load the first image.

        Args:
            names: the files in order, or a single picture that is loaded already.
            name: what messages call the source.
            frame_rate: of a sequence; None for a single image.

        Raises:
            VideoError: the first image cannot be read.
        """
        self.name = name
        self.frame_rate = frame_rate
        self.time_base = 1 / frame_rate if frame_rate else Fraction(1)
        self._names: list[Path] = [] if isinstance(names, Picture) else names
        self._picture = names if isinstance(names, Picture) else load(names[0])
        self._index = 0
        self.height, self.width = self._picture.pixels.shape[:2]
        self.format = PixelFormat(
            "rgb24" if self._depth == 8 else "rgb48le", "rgb", self._depth, False
        )
        self.pixel_format = self._picture.pixel_format
        self.container = self.codec = self._picture.format
        self.notices = list(self._picture.notices)
        self.is_image = frame_rate is None
        self.origin = 0

    @property
    def _depth(self) -> int:
        return self._picture.pixels.dtype.itemsize * 8

    @property
    def promised(self) -> tuple[int | None, Fraction | None]:
        """How many images there are, and how long they last."""
        count = max(1, len(self._names))
        return count, None if self.frame_rate is None else count * self.time_base

    @property
    def first(self) -> Timed[VideoFrame]:
        """The frame that iteration begins with."""
        return self._timed(self._picture)

    def seek(self, start: Fraction) -> None:
        """Skip the images shown before `start` seconds.

        Raises:
            VideoError: none is left.
        """
        skip = (start / self.time_base - Fraction(1, 2)).__ceil__()
        if skip >= max(1, len(self._names)):
            count, length = self.promised
            long = f"{count} images are {float(length):.3f} s long" if length else "it is one image"
            raise VideoError(
                f"{self.name}: nothing is left after {float(start):g} s, {long}: "
                "choose an earlier start"
            )
        if skip > 0:
            self._index = skip
            self._picture = self._load(self._names[skip])

    def __iter__(self) -> Iterator[Timed[VideoFrame]]:
        """The frames from the point reached on; once."""
        yield self.first
        for name in self._names[self._index + 1 :]:
            self._index += 1
            yield self._timed(self._load(name))

    def close(self) -> None:
        """Nothing is kept open."""

    def _timed(self, picture: Picture) -> Timed[VideoFrame]:
        frame = VideoFrame.from_ndarray(picture.pixels, format=self.format.name)
        return Timed(frame, self._index, 1)

    def _load(self, name: Path) -> Picture:
        """Load one more image, of the same size and depth as the first."""
        picture = load(name)
        height, width = picture.pixels.shape[:2]
        if (width, height) != (self.width, self.height):
            raise VideoError(
                f"{name}: the resolution changes from {self.width}x{self.height} to "
                f"{width}x{height}: scale the images to one size"
            )
        if picture.pixels.dtype == np.uint8 and self.format.bits == 16:
            return Picture(picture.pixels.astype(np.uint16) * 257, "", "")
        if picture.pixels.dtype == np.uint16 and self.format.bits == 8:
            raise VideoError(
                f"{name}: 16 bits a sample after images of 8: convert them to one depth"
            )
        return picture


def is_image(head: bytes) -> bool:
    """Whether a file that begins with `head` (32 bytes) is a still or animated image."""
    riff = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    bitmap = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    heif = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    return head.startswith(_MAGIC) or riff or bitmap or heif


def sequence(pattern: Path) -> list[Path]:
    """The files of a pattern such as `frames/%05d.png`, in order.

    The lowest number found starts the sequence and the first gap ends it.

    Raises:
        VideoError: no file matches.
    """
    match = PATTERN.search(pattern.name)
    assert match is not None
    width = int(match[1] or 1)
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    found: dict[int, Path] = {}
    entries = pattern.parent.iterdir() if pattern.parent.is_dir() else iter(())
    for path in entries:
        digits = path.name[len(before) : len(path.name) - len(after)]
        if (
            path.name == before + digits + after
            and digits.isascii()
            and digits.isdigit()
            and digits == f"{int(digits):0{width}d}"
        ):
            found[int(digits)] = path
    if not found:
        raise VideoError(
            f"{pattern}: no file matches, such as {before}{0:0{width}d}{after}: check the folder "
            "and the number of digits"
        )
    return [found[i] for i in itertools.takewhile(found.__contains__, itertools.count(min(found)))]


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
