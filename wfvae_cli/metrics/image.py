"""PSNR, SSIM and MS-SSIM of two pictures, fast enough to follow a video on a CPU.

Everything is computed from two planar pictures, `total = x + y - 1` and `difference = x - y`
with `x` and `y` in [0, 1]: the variances and the covariance that SSIM needs follow from those of
sum and difference, with one map less to filter than from `x` and `y`, and without the
cancellation in flat bright areas that float32 would suffer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wfvae_cli.metrics.pixels import Pixels, bits_of, data_range, matched

WINDOW = 11
"""Side in pixels of the Gaussian window; smaller frames have no SSIM."""
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang et al. 2003)."""
MS_SSIM_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
"""Smallest side in pixels whose coarsest scale still holds a window: 176."""

# Filtering needs some 50 float32 maps of its input: bands bound that, and stay near the cache.
_BAND_PIXELS = 1 << 17


@dataclass(frozen=True)
class Planes:
    """Two pictures as sum and difference, float32 CHW RGB in units of the data range."""

    total: Tensor
    """`x + y - 1`, in [-1, 1]."""
    difference: Tensor
    """`x - y`, in [-1, 1]; exactly 0 where the pictures agree."""


def planes(original: Pixels, reconstruction: Pixels) -> Planes:
    """Bring two pictures into the form that every metric of this module starts from.

    Raises:
        InputError: the pictures cannot be compared.
    """
    original, reconstruction = matched(original, reconstruction)
    x, y = _planar(original), _planar(reconstruction)
    unit = 1 / data_range(bits_of(original))
    return Planes(total=(x + y).mul_(unit).sub_(1), difference=x.sub_(y).mul_(unit))


def _planar(pixels: Pixels) -> Tensor:
    # torch warns of arrays that it could not write to, such as views of a decoder's buffers
    writable = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    return writable.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)


def mean_square(difference: Tensor) -> float:
    """Mean of the squares of a float32 tensor, summed in float64."""
    return float(difference.square().sum(dtype=torch.float64)) / difference.numel()


def decibels(mse: float) -> float:
    """PSNR in dB of a mean squared error in units of the squared data range; 0 gives inf."""
    return math.inf if mse == 0 else -10 * math.log10(mse)


def structure(pair: Planes, *, multiscale: bool) -> tuple[float | None, float | None]:
    """SSIM (Wang et al. 2004) and, if asked, MS-SSIM (Wang et al. 2003) of two pictures.

    Both are computed per channel over whole windows only and averaged over the channels. Scales
    are halved by averaging 2x2 pixels (an odd last row or column is left out).

    Args:
        pair: as `planes` makes them.
        multiscale: whether to compute MS-SSIM too, at about a third more time.

    Returns:
        SSIM, None if a side is below 11 pixels; MS-SSIM, None if a side is below 176 pixels
        or it was not asked for.
    """
    total, difference = pair.total, pair.difference
    side = min(total.shape[1:])
    if side < WINDOW:
        return None, None
    whole, contrast = _ssim_terms(total, difference)
    ssim = float(whole.mean())
    if not multiscale or side < MS_SSIM_SIDE:
        return ssim, None
    product = torch.ones_like(contrast)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            total, difference = functional.avg_pool2d(torch.stack((total, difference)), 2)
            whole, contrast = _ssim_terms(total, difference)
        factor = contrast if scale < len(SCALE_WEIGHTS) - 1 else whole
        # A negative mean has no real power; such pictures are as dissimilar as it gets.
        product *= factor.clamp(min=0) ** weight
    return ssim, float(product.mean())


def _ssim_terms(total: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
    """Means per channel, float64, of SSIM and of its contrast-structure part."""
    c, h, w = total.shape
    windows_h, windows_w = h - WINDOW + 1, w - WINDOW + 1
    kernel = _window().expand(4 * c, 1, WINDOW, WINDOW)
    rows = max(1, _BAND_PIXELS // w)
    sums = torch.zeros(2, c, dtype=torch.float64)
    for top in range(0, windows_h, rows):
        band = slice(top, min(top + rows, windows_h) + WINDOW - 1)
        s, d = total[:, band], difference[:, band]
        maps = torch.cat((s, d, s.square(), d.square())).unsqueeze(0)
        # One depthwise 11x11 pass is faster here than two separable ones: those are bound by
        # memory, and oneDNN has no fast path for one-row kernels.
        filtered = functional.conv2d(maps, kernel, groups=4 * c).view(4, c, -1, windows_w)
        mean_s2, mean_d2 = filtered[0].square(), filtered[1].square()
        variance_s, variance_d = filtered[2] - mean_s2, filtered[3] - mean_d2
        # var(x) + var(y) = (var(s) + var(d)) / 2 and 2 cov(x, y) = (var(s) - var(d)) / 2;
        # likewise for the means, where s is shifted back by the 1 that was taken off.
        contrast = (variance_s - variance_d + 2 * C2) / (variance_s + variance_d + 2 * C2)
        mean_s2 = (filtered[0] + 1).square()
        luminance = (mean_s2 - mean_d2 + 2 * C1) / (mean_s2 + mean_d2 + 2 * C1)
        sums[0] += (contrast * luminance).sum(dim=(1, 2), dtype=torch.float64)
        sums[1] += contrast.sum(dim=(1, 2), dtype=torch.float64)
    whole, contrast_mean = sums / (windows_h * windows_w)
    return whole, contrast_mean


def _window() -> Tensor:
    """The Gaussian window, float32 [11, 11], summing to 1."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    taps = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return torch.outer(taps, taps).div(taps.sum() ** 2).float()
