"""Scores of a clip, one pair of frames at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from wfvae_cli.errors import InputError
from wfvae_cli.media.clip import Bits
from wfvae_cli.metrics.image import decibels, mean_square, planes, structure
from wfvae_cli.metrics.pixels import Pixels, bits_of
from wfvae_cli.metrics.result import FRAME_METRICS, ClipResult, FrameScores, finite_mean


class PairMetric(Protocol):
    """A learned score of one pair of frames, such as `learned.Lpips`."""

    def __call__(self, original: Pixels, reconstruction: Pixels) -> float | None:
        """Score two HWC RGB pictures of one size; None where the score is not defined."""


class PairObserver(Protocol):
    """Takes every pair of frames of a clip: `stills.WorstFrames`, `FrechetDistance`."""

    def observe(self, scores: FrameScores, original: Pixels, reconstruction: Pixels) -> None:
        """Take the clip's next pair of frames, HWC RGB, and its scores."""


class ClipObserver(PairObserver, Protocol):
    """A `PairObserver` of one clip that is told how the clip ended."""

    def close(self, result: ClipResult | None) -> None:
        """Take the clip's scores after its last pair; None where it could not be compared."""


class ClipMetrics:
    """Accumulates the scores of a clip; keeps one frame and a few numbers for every frame.

    Example:
        >>> import numpy as np
        >>> metrics = ClipMetrics()
        >>> grey = np.full((16, 16, 3), 128, np.uint8)
        >>> metrics.update(grey, grey + 1).psnr
        48.130803608679106
        >>> metrics.result().frames
        1
    """

    def __init__(
        self,
        *,
        ms_ssim: bool = True,
        lpips: PairMetric | None = None,
        observers: Sequence[PairObserver] = (),
    ) -> None:
        """Start a clip.

        Args:
            ms_ssim: compute MS-SSIM too, at about a third more time.
            lpips: score every frame with this as well.
            observers: shown every pair of frames and its scores.
        """
        self._multiscale = ms_ssim
        self._lpips = lpips
        self._observers = tuple(observers)
        self._scores: list[FrameScores] = []
        self._mse_sum = 0.0
        self._previous: Tensor | None = None
        self._bits: Bits = 8

    def update(self, original: Pixels, reconstruction: Pixels) -> FrameScores:
        """Take the clip's next pair of frames.

        Args:
            original: HWC RGB, uint8 or uint16 over the full range of its dtype.
            reconstruction: the same size; where the depths differ, the deeper one counts.

        Returns:
            The scores of this pair.

        Raises:
            InputError: the sizes differ from each other or from the clip's earlier frames.
        """
        with torch.inference_mode():
            pair = planes(original, reconstruction)
            if self._previous is not None and self._previous.shape != pair.difference.shape:
                (h, w), (now_h, now_w) = self._previous.shape[1:], pair.difference.shape[1:]
                raise InputError(
                    f"frame {len(self._scores)} is {now_w}x{now_h}, those before it {w}x{h}; "
                    "the frames of a clip must have one size"
                )
            mse = mean_square(pair.difference)
            # (x_t - x_(t-1)) - (y_t - y_(t-1)) is the change of x - y: one kept frame is enough.
            flicker = (
                None
                if self._previous is None
                else decibels(mean_square(pair.difference - self._previous))
            )
            ssim, ms_ssim = structure(pair, multiscale=self._multiscale)
        lpips = self._lpips(original, reconstruction) if self._lpips else None
        scores = FrameScores(len(self._scores), decibels(mse), ssim, ms_ssim, flicker, lpips)
        self._scores.append(scores)
        self._mse_sum += mse
        self._previous = pair.difference
        self._bits = max(self._bits, bits_of(original), bits_of(reconstruction))
        for observer in self._observers:
            observer.observe(scores, original, reconstruction)
        return scores

    def result(self) -> ClipResult:
        """The scores of the frames so far.

        Raises:
            InputError: there were none.
        """
        if self._previous is None:
            raise InputError("nothing to measure: the clip has no frames")
        frames = len(self._scores)
        height, width = self._previous.shape[1:]
        means = {
            name: finite_mean(getattr(scores, name) for scores in self._scores)
            for name in FRAME_METRICS
        }
        psnr = means.pop("psnr")
        assert psnr is not None
        return ClipResult(
            frames=frames,
            width=width,
            height=height,
            bits=self._bits,
            psnr=psnr,
            psnr_mse=decibels(self._mse_sum / frames),
            **means,
            identical_frames=sum(scores.psnr == float("inf") for scores in self._scores),
            worst_frame=min(self._scores, key=lambda scores: scores.psnr),
            per_frame=tuple(self._scores),
        )
