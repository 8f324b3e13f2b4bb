"""Pictures of a roundtrip's losses: both sides beside each other, or their difference.

Luminance errors are of luma, `0.2126 R + 0.7152 G + 0.0722 B` (ITU-R BT.709) of the gamma-coded
values, in 8-bit levels whatever the depth.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wfvae_cli.metrics.pixels import Pixels, bits_of, deepen, matched
from wfvae_cli.metrics.result import FrameScores

DEFAULT_GAIN = 4.0
"""Amplification of a difference: an error of 32 of 255 levels becomes black or white."""
ERROR_SCALE = 32.0
"""Luminance error, in 8-bit levels, that the brightest colour of an error map stands for."""

Picture: TypeAlias = NDArray[np.uint8]
"""HWC RGB for a screen."""

_LUMA = np.array((0.2126, 0.7152, 0.0722), np.float32)
_ANCHORS = (
    (0, 0, 6),
    (74, 16, 108),
    (176, 50, 90),
    (240, 120, 28),
    (250, 196, 62),
    (252, 255, 190),
)
"""Colours of an error map from 0 to the scale, dark to bright, evenly spaced."""


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, pixels: Picture) -> Picture:
        """Cut the box out of `[H, W, C]`."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def side_by_side(
    original: Pixels,
    reconstruction: Pixels,
    *,
    scores: FrameScores | None = None,
    labels: tuple[str, str] = ("original", "reconstruction"),
) -> Pixels:
    """The original on the left, the reconstruction on the right.

    Args:
        original: HWC RGB, uint8 or uint16.
        reconstruction: the same size.
        scores: of this pair; draws `labels`, the frame's number and its PSNR into the picture.
        labels: what to call the two sides, where there are scores.

    Returns:
        `[H, 2 W, 3]`, of the deeper dtype of the two; always even in width.

    Raises:
        InputError: the pictures cannot be put together.
    """
    left, right = matched(original, reconstruction)
    h, w = left.shape[:2]
    both = np.empty((h, 2 * w, 3), left.dtype)
    both[:, :w] = left
    both[:, w:] = right
    if scores is not None:
        psnr = "identical" if math.isinf(scores.psnr) else f"{scores.psnr:.2f} dB"
        _write_caption(both, f"{labels[0]}  frame {scores.index}", left=0, width=w)
        _write_caption(both, f"{labels[1]}  {psnr}", left=w, width=w)
    return both


def difference(original: Pixels, reconstruction: Pixels, *, gain: float = DEFAULT_GAIN) -> Pixels:
    """Draw what the reconstruction adds (brighter than grey) or lacks (darker), by channel.

    Args:
        original: HWC RGB, uint8 or uint16.
        reconstruction: the same size.
        gain: factor on `reconstruction - original` before it is put around mid-grey (128 or
            32768), rounded and clamped.

    Returns:
        HWC RGB, of the deeper dtype of the two.

    Raises:
        InputError: the pictures cannot be compared.
    """
    x, y = matched(original, reconstruction)
    peak = np.iinfo(x.dtype).max
    amplified = np.subtract(y, x, dtype=np.float32)
    amplified *= gain
    amplified += (peak + 1) // 2
    picture: Pixels = np.rint(amplified.clip(0, peak)).astype(x.dtype)
    return picture


def luminance_error(original: Pixels, reconstruction: Pixels) -> NDArray[np.float32]:
    """Absolute difference of luma, `[H, W]`, in 8-bit levels (0 to 255).

    Raises:
        InputError: the pictures cannot be compared.
    """
    x, y = matched(original, reconstruction)
    change = np.subtract(y, x, dtype=np.float32)
    error: NDArray[np.float32] = np.abs(change @ _LUMA)
    return error if x.dtype == np.uint8 else error / np.float32(257)


def error_map(error: NDArray[np.float32], *, scale: float = ERROR_SCALE) -> Picture:
    """Luminance errors as colours, dark to bright.

    Args:
        error: `[H, W]`, as `luminance_error` gives it.
        scale: error of the brightest colour; what is larger has that colour too.
    """
    levels = np.rint(error * np.float32(255 / scale)).clip(0, 255).astype(np.uint8)
    picture: Picture = _COLOURS[levels]
    return picture


def error_colours(width: int, height: int) -> Picture:
    """The colours of an error map from 0 on the left to its scale on the right."""
    ramp = np.rint(np.linspace(0, 255, width)).astype(np.uint8)
    picture: Picture = np.broadcast_to(_COLOURS[ramp], (height, width, 3)).copy()
    return picture


def worst_box(error: NDArray[np.float32], side: int) -> Box:
    """Find the square of the largest mean error.

    Args:
        error: `[H, W]`.
        side: of the square, in pixels; cut to the picture's.
    """
    h, w = error.shape
    height, width = min(side, h), min(side, w)
    # Summed areas: four corners give the sum of any box.
    area = np.zeros((h + 1, w + 1), np.float64)
    np.cumsum(np.cumsum(error, axis=0, dtype=np.float64), axis=1, out=area[1:, 1:])
    sums = area[height:, width:] - area[:-height, width:] - area[height:, :-width]
    sums += area[:-height, :-width]
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return Box(int(top), int(left), height, width)


def eight_bit(pixels: Pixels) -> Picture:
    """Pixels for a screen."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return np.rint(pixels / 257).astype(np.uint8)


def _write_caption(picture: Pixels, text: str, *, left: int, width: int) -> None:
    """Put white text on a dark strip into the top left corner of a half of `picture`."""
    h = picture.shape[0]
    size = max(9, min(28, h // 22, width // 18))
    font = ImageFont.load_default(size=size)
    strip = Image.new("L", (math.ceil(font.getlength(text)) + size, round(1.6 * size)), 24)
    ImageDraw.Draw(strip).text((size // 2, round(0.2 * size)), text, fill=245, font=font)
    pixels = deepen(np.asarray(strip)[:h, :width, None], bits_of(picture))
    picture[: pixels.shape[0], left : left + pixels.shape[1]] = pixels


def _colours() -> Picture:
    """256 colours between the anchors, `[256, 3]`."""
    at = np.linspace(0, 255, len(_ANCHORS))
    channels = [np.interp(np.arange(256), at, column) for column in zip(*_ANCHORS, strict=True)]
    colours: Picture = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return colours


_COLOURS = _colours()
