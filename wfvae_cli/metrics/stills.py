"""The worst frames of a clip as pictures, with their errors."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from wfvae_cli.atomic import atomic_file
from wfvae_cli.errors import OutputError
from wfvae_cli.metrics.pixels import Pixels, matched
from wfvae_cli.metrics.result import ClipResult, FrameScores
from wfvae_cli.metrics.views import (
    ERROR_SCALE,
    Box,
    Picture,
    eight_bit,
    error_colours,
    error_map,
    luminance_error,
    worst_box,
)
from wfvae_cli.metrics.worst import SpacedWorst

_GAP = 8
_MIN_PANEL = 256
"""Width in pixels below which frames are enlarged by a whole factor, so that labels fit."""
_PAPER = (255, 255, 255)
_INK = (34, 34, 34)
_FRAME = (255, 221, 64)
"""Outline of the part that is shown enlarged."""


class WorstFrames:
    """Keeps the `count` frames of lowest PSNR of a clip, apart from each other."""

    def __init__(
        self,
        count: int,
        *,
        name: str = "clip",
        directory: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        """Start with none.

        Args:
            count: frames to keep, at least 1.
            name: the clip's, for labels and file names.
            directory: where `close` writes the stills; None leaves that to `write`.
            overwrite: whether `close` may replace files.
        """
        self._name = name
        self._directory = directory
        self._overwrite = overwrite
        self._worst = SpacedWorst(count, lambda scores, x, y: (x.copy(), y.copy()))

    def observe(self, scores: FrameScores, original: Pixels, reconstruction: Pixels) -> None:
        """Take the clip's next pair of frames and keep a copy if it is among the worst.

        Args:
            scores: of this pair; the lower its PSNR, the worse.
            original: HWC RGB.
            reconstruction: the same size.
        """
        self._worst.observe(scores, original, reconstruction)

    def close(self, result: ClipResult | None) -> None:
        """Write the stills of a clip that ended well, where a directory was given."""
        if result is not None and self._directory is not None:
            self.write(self._directory, overwrite=self._overwrite)

    def write(self, directory: Path, *, overwrite: bool = False) -> list[Path]:
        """Write a PNG for every kept frame: original, reconstruction, error map, and a zoom.

        16-bit frames are shown in 8 bits. Names begin with the PSNR, so that those of many clips
        sort from the worst: `21.3dB-clip-000017.png` is frame 17 of `clip`.

        Args:
            directory: made if it is not there.
            overwrite: replace files that exist.

        Returns:
            The files, worst first.

        Raises:
            OutputError: a file exists or cannot be written.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"expected a directory to write stills into, got {directory}: {error.strerror}"
            ) from error
        stem = re.sub(r"[^\w.-]+", "_", self._name)
        paths = []
        for frame in self._worst.worst_first():
            scores = frame.scores
            path = directory / f"{scores.psnr:04.1f}dB-{stem}-{scores.index:06d}.png"
            still = compose_still(self._name, scores, *frame.kept)
            with atomic_file(path, overwrite=overwrite) as file:
                still.save(file, format="PNG")
            paths.append(path)
        return paths


def compose_still(
    name: str, scores: FrameScores, original: Pixels, reconstruction: Pixels
) -> Image.Image:
    """Original, reconstruction and error map in a row, and below each its worst part enlarged.

    Args:
        name: the clip's.
        scores: of this pair.
        original: HWC RGB, uint8 or uint16.
        reconstruction: the same size.

    Returns:
        An 8-bit RGB picture with a headline, labels and the error map's scale.
    """
    x, y = matched(original, reconstruction)
    error = luminance_error(x, y)
    box = worst_box(error, max(16, min(error.shape) // 4))
    panels = {
        "original": eight_bit(x),
        "reconstruction": eight_bit(y),
        "luminance error": error_map(error),
    }
    zoom = max(1, -(-_MIN_PANEL // x.shape[1]))
    h, w = x.shape[0] * zoom, x.shape[1] * zoom
    size = max(11, min(28, w // 24))
    font = ImageFont.load_default(size=size)
    line = round(size * 1.5)
    # The enlarged part is at most as tall as the frames are wide, or as they are tall if taller.
    crop_height = min(max(w, h), round(w * box.height / box.width))
    crop_width = round(crop_height * box.width / box.height)
    top, below = 2 * line + _GAP, 2 * line + 2 * _GAP + h
    page = Image.new("RGB", (3 * w + 4 * _GAP, below + crop_height + _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    headline = f"{name}   frame {scores.index}   PSNR {scores.psnr:.2f} dB"
    if scores.ssim is not None:
        headline += f"   SSIM {scores.ssim:.4f}"
    draw.text((_GAP, _GAP // 2), headline, fill=_INK, font=font)
    for column, (label, pixels) in enumerate(panels.items()):
        left = _GAP + column * (w + _GAP)
        draw.text((left, line + _GAP // 2), label, fill=_INK, font=font)
        page.paste(_enlarged(pixels, w, h), (left, top))
        draw.rectangle(_outline(box, left, top, zoom), outline=_FRAME)
        page.paste(_enlarged(box.of(pixels), crop_width, crop_height), (left, below))
    _draw_scale(page, font, top=line + _GAP // 2, height=line)
    return page


def _enlarged(pixels: Picture, width: int, height: int) -> Image.Image:
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)


def _outline(box: Box, left: int, top: int, zoom: int) -> tuple[int, int, int, int]:
    x, y = left + box.left * zoom, top + box.top * zoom
    return x, y, x + box.width * zoom - 1, y + box.height * zoom - 1


def _draw_scale(
    page: Image.Image,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    *,
    top: int,
    height: int,
) -> None:
    """Put the error map's colours and their ends, in 8-bit levels, to the right of its label."""
    draw = ImageDraw.Draw(page)
    text = f"{ERROR_SCALE:g}+"
    end, zero = round(draw.textlength(text, font=font)), round(draw.textlength("0 ", font=font))
    right, width = page.width - _GAP, max(24, page.width // 14)
    left = right - end - _GAP // 2 - width
    draw.text((left - zero, top), "0", fill=_INK, font=font)
    colours = Image.fromarray(error_colours(width, max(4, height // 2)))
    page.paste(colours, (left, top + height // 6))
    draw.text((right - end, top), text, fill=_INK, font=font)
