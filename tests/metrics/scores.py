"""Scores of two pictures, as `ClipMetrics` puts them together."""

from __future__ import annotations

from wfvae_cli.metrics.image import decibels, mean_square, planes, structure
from wfvae_cli.metrics.pixels import Pixels


def psnr(original: Pixels, reconstruction: Pixels) -> float:
    return decibels(mean_square(planes(original, reconstruction).difference))


def ssim(original: Pixels, reconstruction: Pixels) -> float | None:
    return structure(planes(original, reconstruction), multiscale=False)[0]


def ms_ssim(original: Pixels, reconstruction: Pixels) -> float | None:
    return structure(planes(original, reconstruction), multiscale=True)[1]
