"""The worst frames of a comparison, as pictures that show what was lost."""

from __future__ import annotations

import heapq
import itertools
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wfvae_cli.atomic import atomic_file
from wfvae_cli.errors import OutputError
from wfvae_cli.metrics.pixels import Pixels, matched
from wfvae_cli.metrics.result import FrameScores
from wfvae_cli.metrics.views import DEFAULT_GAIN, difference

_GAP = 8
_MIN_PANEL = 256
"""Width in pixels below which frames are enlarged by a whole factor, so that labels fit."""
_PAPER = (255, 255, 255)
_INK = (34, 34, 34)


@dataclass(frozen=True, order=True)
class _Candidate:
    """A kept frame; the heap's smallest is the one of highest PSNR, which goes first."""

    rank: tuple[float, int]
    name: str = field(compare=False)
    scores: FrameScores = field(compare=False)
    original: Pixels = field(compare=False)
    reconstruction: Pixels = field(compare=False)


class WorstFrames:
    """Keeps the `count` frames of lowest PSNR of all it is shown, and nothing else."""

    def __init__(self, count: int, *, name: str = "clip") -> None:
        """Start with none.

        Args:
            count: frames to keep, at least 1.
            name: the clip's, for labels and file names.
        """
        assert count >= 1
        self._count = count
        self._name = name
        self._heap: list[_Candidate] = []
        self._order = itertools.count()

    def fresh(self, name: str) -> WorstFrames:
        """Make an empty one for as many frames of another clip."""
        return WorstFrames(self._count, name=name)

    def observe(self, scores: FrameScores, original: Pixels, reconstruction: Pixels) -> None:
        """Keep a copy of this pair of frames if it is among the worst so far and not identical.

        Args:
            scores: of this pair; the lower its PSNR, the worse.
            original: HWC RGB.
            reconstruction: the same size.
        """
        if math.isinf(scores.psnr):
            return  # nothing was lost, nothing to show
        if len(self._heap) < self._count or scores.psnr < self._heap[0].scores.psnr:
            # Of equally bad frames the first one stays.
            rank = (-scores.psnr, -next(self._order))
            self._push(_Candidate(rank, self._name, scores, original.copy(), reconstruction.copy()))

    def merge(self, other: WorstFrames) -> None:
        """Take over what another one kept, as far as it is among the worst of both."""
        for candidate in sorted(other._heap, reverse=True):
            rank = (candidate.rank[0], -next(self._order))
            self._push(replace(candidate, rank=rank))

    def _push(self, candidate: _Candidate) -> None:
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, candidate)
        else:
            heapq.heappushpop(self._heap, candidate)

    def write(
        self, directory: Path, *, overwrite: bool = False, gain: float = DEFAULT_GAIN
    ) -> list[Path]:
        """Write a PNG for every kept frame: original, reconstruction, amplified difference.

        16-bit frames are shown in 8 bits. File names sort from the worst:
        `01-21.3dB-clip-000017.png` is frame 17 of `clip`.

        Args:
            directory: made if it is not there.
            overwrite: replace files that exist.
            gain: how much differences are amplified (see `views.difference`).

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
        paths = []
        for place, kept in enumerate(sorted(self._heap, reverse=True), start=1):
            stem = re.sub(r"[^\w.-]+", "_", kept.name)
            path = directory / (
                f"{place:02d}-{kept.scores.psnr:.1f}dB-{stem}-{kept.scores.index:06d}.png"
            )
            still = compose_still(kept, gain=gain)
            with atomic_file(path, overwrite=overwrite) as file:
                still.save(file, format="PNG")
            paths.append(path)
        return paths


def compose_still(kept: _Candidate, *, gain: float) -> Image.Image:
    """Three labelled panels in a row under a headline, 8-bit RGB."""
    x, y = matched(kept.original, kept.reconstruction)
    zoom = max(1, -(-_MIN_PANEL // x.shape[1]))
    h, w = x.shape[0] * zoom, x.shape[1] * zoom
    panels = {
        "original": x,
        "reconstruction": y,
        f"difference x{gain:g} around grey": difference(x, y, gain=gain),
    }
    font = ImageFont.load_default(size=max(11, min(28, w // 24)))
    line = round(font.size * 1.5) if isinstance(font, ImageFont.FreeTypeFont) else 16
    scores = kept.scores
    headline = f"{kept.name}   frame {scores.index}   PSNR {scores.psnr:.2f} dB"
    if scores.ssim is not None:
        headline += f"   SSIM {scores.ssim:.4f}"
    top = 2 * line + _GAP
    page = Image.new("RGB", (3 * w + 4 * _GAP, top + h + _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, _GAP // 2), headline, fill=_INK, font=font)
    for column, (label, pixels) in enumerate(panels.items()):
        left = _GAP + column * (w + _GAP)
        draw.text((left, line + _GAP // 2), label, fill=_INK, font=font)
        panel = Image.fromarray(_shown(pixels)).resize((w, h), Image.Resampling.NEAREST)
        page.paste(panel, (left, top))
    return page


def _shown(pixels: Pixels) -> NDArray[np.uint8]:
    """8-bit pixels for a screen."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8)
    return np.rint(pixels / 257).astype(np.uint8)
