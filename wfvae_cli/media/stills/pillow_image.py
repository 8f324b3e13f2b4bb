"""Open images of 8 bits with Pillow, and return their pixels as RGB frames."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from wfvae_cli.errors import VideoError, WfvaeError
from wfvae_cli.media.clip import Bits
from wfvae_cli.media.filters import Pixels, over_black
from wfvae_cli.media.sampling import Orientation

_BAND_PIXELS = 1 << 22
"""Pixels that are converted at a time: copies of a large image's rows, not of all of it."""
_ORIENTATION_TAG = 274
_ORIENTATIONS = {  # values of EXIF's and TIFF's tag 274
    2: Orientation(hflip=True),
    3: Orientation(hflip=True, vflip=True),
    4: Orientation(vflip=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, hflip=True),
    7: Orientation(transpose=True, hflip=True, vflip=True),
    8: Orientation(transpose=True, vflip=True),
}
_STRUCTURAL = (struct.error, LookupError, TypeError, AttributeError, ArithmeticError)
"""Exceptions of decoders whose messages speak of the decoder, not of the file."""
_UNSUPPORTED = re.compile("(?i)unsupported|not supported|unknown pixel mode|cannot handle")
"""Found in messages of decoders about whole files that are not for them."""
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Bytes of a pixel in Pillow's memory; 4 in every other mode."""


class _Unlimited:
    """Lifts Pillow's limit of 179 million pixels, which `memory.check_size` replaces.

    The limit is a global variable of Pillow's, so it is lifted only while something is decoded,
    in any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                Image.MAX_IMAGE_PIXELS = self._limit


_UNLIMITED = _Unlimited()


@contextmanager
def damage_reported(name: str) -> Iterator[None]:
    """Report whatever goes wrong while an image is decoded as damage of that image.

    Decoders fail on damaged files with all kinds of exceptions, from `struct.error` to
    `ZeroDivisionError`: none is a bug of ours.

    Raises:
        VideoError: anything was raised that is not a `WfvaeError`.
    """
    try:
        with _UNLIMITED, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow says of odd tags and large images
            yield
    except WfvaeError:
        raise
    except NotImplementedError as error:
        raise VideoError(f"{name}: {_not_decodable(str(error))}") from error
    except Exception as error:
        why = "its structure is broken"
        if not isinstance(error, _STRUCTURAL):
            why = str(error) or type(error).__name__
        if _UNSUPPORTED.search(str(error)):
            raise VideoError(f"{name}: {_not_decodable(str(error))}") from error
        raise VideoError(
            f"{name}: the image is damaged or cut short ({why}): copy or download it again"
        ) from error


def _not_decodable(why: str) -> str:
    return f"an image of a kind that cannot be decoded ({why}): convert it to PNG"


@contextmanager
def opened(data: bytes, fmt: str) -> Iterator[Image.Image]:
    """Open an image without decoding it.

    Not with `Image.open`, which would try every format on damaged files.

    Args:
        data: the whole file.
        fmt: Pillow's name of its format.

    Raises:
        Exception: of any kind, where the image is damaged; see `damage_reported`.
    """
    Image.preinit()
    if fmt not in Image.OPEN:
        Image.init()
    if fmt not in Image.OPEN:
        raise NotImplementedError(f"this Pillow reads no {fmt}")
    factory, accept = Image.OPEN[fmt]
    accepted = True if accept is None else accept(data[:16])
    if accepted is not True:
        raise NotImplementedError(accepted or f"it does not begin as {fmt} should")
    with io.BytesIO(data) as file, factory(file, "") as image:
        key = image.info.get("transparency")
        if fmt == "PNG" and image.mode == "L" and isinstance(key, int):
            # Pillow stretches grey of 2 and 4 bits to 8, but not the grey that is transparent.
            image.info["transparency"] = key * 255 // ((1 << min(data[24], 8)) - 1)
        yield image


def orientation_of(image: Image.Image) -> Orientation:
    """Return the orientation of a decoded image, by its EXIF data or its container."""
    return orientation_of_tag(image.getexif().get(_ORIENTATION_TAG))


def orientation_of_tag(value: object) -> Orientation:
    """Return the orientation for a value of EXIF's or TIFF's tag 274."""
    return _ORIENTATIONS.get(value, Orientation()) if isinstance(value, int) else Orientation()


def rgb_frame(image: Image.Image, orientation: Orientation) -> tuple[VideoFrame, bool]:
    """Convert a decoded image to an upright frame of 8-bit RGB.

    Args:
        image: in any mode of up to 8 bits a sample.
        orientation: the turn or flip to apply.

    Returns:
        The frame (`rgb24`), and whether any of it was transparent: that is composited onto black.
    """
    width, height = image.size
    frame, target = blank_frame(width, height, 8, orientation)
    alpha = image.has_transparency_data
    mode = "RGBA" if alpha else "RGB"
    transparent = False
    for top, part in bands(image):
        pixels = np.asarray(part if part.mode == mode else part.convert(mode))
        if alpha:
            transparent = transparent or bool(pixels[..., 3].min() < 255)
            pixels = cast("np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", over_black(pixels))
        target[top : top + part.height] = pixels
    return frame, transparent


def bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Bands of rows of a decoded image, each with the number of its first row."""
    width, height = image.size
    rows = max(1, _BAND_PIXELS // width)
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def blank_frame(
    width: int, height: int, bits: Bits, orientation: Orientation
) -> tuple[VideoFrame, Pixels]:
    """Make an upright frame, and the view of it that takes the pixels of an image as stored.

    Args:
        width: of the image as stored, in pixels.
        height: the same.
        bits: of a sample.
        orientation: the turn or flip to apply.

    Returns:
        A frame (`rgb24` or `rgb48le`), and HWC RGB to write into: uint8 or uint16.
    """
    upright = (height, width) if orientation.transpose else (width, height)
    frame = VideoFrame(*upright, "rgb24" if bits == 8 else "rgb48le")
    plane = frame.planes[0]
    samples = np.frombuffer(memoryview(plane), np.uint8 if bits == 8 else np.dtype("<u2"))
    rows = samples.reshape(upright[1], -1)[:, : 3 * upright[0]]
    view = rows.reshape(upright[1], upright[0], 3)
    if orientation.vflip:
        view = view[::-1]
    if orientation.hflip:
        view = view[:, ::-1]
    stored = view.swapaxes(0, 1) if orientation.transpose else view
    return frame, cast(Pixels, stored)
