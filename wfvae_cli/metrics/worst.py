"""The worst frames of a clip, apart from each other, in memory that does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from wfvae_cli.metrics.pixels import Pixels
from wfvae_cli.metrics.result import FrameScores

T = TypeVar("T")

_WIDEST = 16
"""Frames between the worst frames of a long clip: neighbours look alike and fail alike."""


@dataclass(frozen=True)
class WorstFrame(Generic[T]):
    """A frame that was kept."""

    scores: FrameScores
    kept: T


class SpacedWorst(Generic[T]):
    """Keeps something of up to `count` frames, those of lowest PSNR that are a few frames apart.

    How far apart follows from the frames seen so far: neighbours count in a clip of fewer than
    `2 * count` frames, and the distance doubles with the length up to 16. Identical frames, of
    which nothing was lost, are not kept; of equally bad ones the first is.
    """

    def __init__(self, count: int, keep: Callable[[FrameScores, Pixels, Pixels], T]) -> None:
        """Start with none.

        Args:
            count: frames to keep, at least 1.
            keep: makes what is kept of a frame's scores, original and reconstruction; called
                only for those that are among the worst so far.
        """
        assert count >= 1
        self._count = count
        self._keep = keep
        self._spacing = 1
        self._frames: list[WorstFrame[T]] = []

    def observe(self, scores: FrameScores, original: Pixels, reconstruction: Pixels) -> None:
        """Take the clip's next pair of frames, HWC RGB, and its scores."""
        while self._spacing < _WIDEST and scores.index >= 2 * self._count * self._spacing:
            self._spacing *= 2
            self._frames = self._apart(self._frames)
        if math.isinf(scores.psnr):
            return
        near = [frame for frame in self._frames if self._is_near(frame, scores)]
        if any(frame.scores.psnr <= scores.psnr for frame in near):
            return
        others = [frame for frame in self._frames if not self._is_near(frame, scores)]
        full = len(others) == self._count
        if full and others[-1].scores.psnr <= scores.psnr:
            return
        others = others[: self._count - 1] if full else others
        kept = WorstFrame(scores, self._keep(scores, original, reconstruction))
        self._frames = sorted([*others, kept], key=_badness)

    def worst_first(self) -> tuple[WorstFrame[T], ...]:
        """Return the frames that were kept, from the lowest PSNR to the highest."""
        return tuple(self._frames)

    def _is_near(self, frame: WorstFrame[T], scores: FrameScores) -> bool:
        return abs(frame.scores.index - scores.index) < self._spacing

    def _apart(self, frames: list[WorstFrame[T]]) -> list[WorstFrame[T]]:
        """Leave out those that are too near a worse one."""
        chosen: list[WorstFrame[T]] = []
        for frame in frames:
            if not any(self._is_near(other, frame.scores) for other in chosen):
                chosen.append(frame)
        return chosen


def _badness(frame: WorstFrame[T]) -> tuple[float, int]:
    return frame.scores.psnr, frame.scores.index
