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
    """Keeps something of `count` frames, those of lowest PSNR that are a few frames apart.

    How far apart follows from the frames seen so far: neighbours count in a clip of fewer than
    `2 * count` frames, and the distance doubles with the length up to 16. Where fewer than `count`
    are apart, the worst of the others join them. Identical frames, of which nothing was lost, are
    not kept; of equally bad ones the first is.
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
        self._apart: list[WorstFrame[T]] = []
        self._worst: list[WorstFrame[T]] = []
        """However near each other."""

    def observe(self, scores: FrameScores, original: Pixels, reconstruction: Pixels) -> None:
        """Take the clip's next pair of frames, HWC RGB, and its scores."""
        while self._spacing < _WIDEST and scores.index >= 2 * self._count * self._spacing:
            self._spacing *= 2
            self._apart = self._thinned(self._apart)
        if math.isinf(scores.psnr):
            return
        beside = self._beside(scores)
        is_among_worst = len(self._worst) < self._count or scores.psnr < self._worst[-1].scores.psnr
        if beside is None and not is_among_worst:
            return
        frame = WorstFrame(scores, self._keep(scores, original, reconstruction))
        if beside is not None:
            self._apart = sorted([*beside, frame], key=_badness)
        if is_among_worst:
            self._worst = sorted([*self._worst, frame], key=_badness)[: self._count]

    def worst_first(self) -> tuple[WorstFrame[T], ...]:
        """Return the frames that were kept, from the lowest PSNR to the highest."""
        found = {frame.scores.index: frame for frame in (*self._apart, *self._worst)}
        return tuple(sorted(list(found.values())[: self._count], key=_badness))

    def _beside(self, scores: FrameScores) -> list[WorstFrame[T]] | None:
        """Choose which of those apart stay if this frame joins them; None where it does not."""
        near = [frame for frame in self._apart if self._is_near(frame, scores)]
        if any(frame.scores.psnr <= scores.psnr for frame in near):
            return None
        others = [frame for frame in self._apart if not self._is_near(frame, scores)]
        if len(others) < self._count:
            return others
        return others[:-1] if scores.psnr < others[-1].scores.psnr else None

    def _is_near(self, frame: WorstFrame[T], scores: FrameScores) -> bool:
        return abs(frame.scores.index - scores.index) < self._spacing

    def _thinned(self, frames: list[WorstFrame[T]]) -> list[WorstFrame[T]]:
        """Leave out those that are too near a worse one."""
        chosen: list[WorstFrame[T]] = []
        for frame in frames:
            if not any(self._is_near(other, frame.scores) for other in chosen):
                chosen.append(frame)
        return chosen


def _badness(frame: WorstFrame[T]) -> tuple[float, int]:
    return frame.scores.psnr, frame.scores.index
