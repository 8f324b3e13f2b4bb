"""Moments of many channels at once, up to the fourth, that merge without cancellation.

Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), for means and
(co)variances; Pébay, "Formulas for robust, one-pass parallel computation of covariances and
arbitrary-order statistical moments" (SAND2008-6212) for the third and fourth.

The precision says how well a sample of clips knows each channel's mean and standard deviation.
The latents of one clip are not independent, so the clip is the unit of sampling. With clips of
n_i latents, sums s_i and sums of squares q_i, the mean is the ratio sum(s)/sum(n), and by the
ratio estimator of cluster sampling (Cochran, "Sampling Techniques", 3rd edition, 1977)

    u_i = s_i - mean * n_i                           se(mean) = sqrt(k/(k-1) * sum(u_i^2)) / N
    v_i = sum((x - mean)^2 over clip i) - var * n_i  se(var)  = sqrt(k/(k-1) * sum(v_i^2)) / N
    se(std) = se(var) / (2 std)

for k clips and N latents in all. Both sums are quadratic forms in (n_i, s_i, q_i), so the 3x3
matrix of their products is all that has to be kept. It is kept relative to the current mean:
moving the mean by d maps (n, s, q) linearly, which also makes it merge. Half-widths of the 95%
confidence interval use Student's t with k - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MIN_CLIPS = 10
"""Fewer clips than this say too little about how clips differ: the precision is infinite."""


@dataclass(frozen=True)
class Moments:
    """Central moments of `count` values in each of Z channels, all float64 sums, not averages."""

    count: int
    mean: Floats
    """[Z]."""
    comoment: Floats
    """[Z, Z]: sums of products of deviations; the diagonal is count times the variance."""
    third: Floats
    """[Z]: sum of cubed deviations."""
    fourth: Floats
    """[Z]: sum of fourth powers of deviations."""
    minimum: Floats
    maximum: Floats

    @classmethod
    def of(cls, values: Floats) -> Moments:
        """Compute the moments of `values`, [Z, n] with n >= 1 and all finite."""
        mean = values.mean(axis=1)
        deviation = values - mean[:, None]
        # The rounded mean leaves a residue; moving it into the mean keeps the deviations central
        # even where the mean is many times the standard deviation.
        residue = deviation.mean(axis=1)
        mean = mean + residue
        deviation -= residue[:, None]
        square = deviation * deviation
        return cls(
            count=values.shape[1],
            mean=mean,
            comoment=deviation @ deviation.T,
            third=np.einsum("zn,zn->z", square, deviation),
            fourth=np.einsum("zn,zn->z", square, square),
            minimum=values.min(axis=1),
            maximum=values.max(axis=1),
        )

    @property
    def square(self) -> Floats:
        """[Z]: sum of squared deviations."""
        return np.diagonal(self.comoment)

    def merged(self, other: Moments) -> Moments:
        """Merge with the moments of other values."""
        a, b = self.count, other.count
        n = a + b
        delta = other.mean - self.mean
        a2, b2 = self.square, other.square
        third = (
            self.third
            + other.third
            + delta**3 * (a * b * (a - b) / n**2)
            + 3 * delta * (a * b2 - b * a2) / n
        )
        fourth = (
            self.fourth
            + other.fourth
            + delta**4 * (a * b * (a * a - a * b + b * b) / n**3)
            + 6 * delta**2 * (a * a * b2 + b * b * a2) / n**2
            + 4 * delta * (a * other.third - b * self.third) / n
        )
        return Moments(
            count=n,
            mean=self.mean + delta * (b / n),
            comoment=self.comoment + other.comoment + np.outer(delta, delta) * (a * b / n),
            third=third,
            fourth=fourth,
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
        )

    def to_state(self) -> dict[str, Any]:
        """Give all fields as JSON values."""
        return {
            "count": self.count,
            "mean": self.mean.tolist(),
            "comoment": self.comoment.tolist(),
            "third": self.third.tolist(),
            "fourth": self.fourth.tolist(),
            "minimum": self.minimum.tolist(),
            "maximum": self.maximum.tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Moments:
        """Undo `to_state`."""
        arrays = {
            name: np.asarray(state[name], dtype=np.float64)
            for name in ("mean", "comoment", "third", "fourth", "minimum", "maximum")
        }
        return cls(count=int(state["count"]), **arrays)


@dataclass(frozen=True)
class Precision:
    """Half-widths of 95% confidence intervals, each relative to the channel's own std."""

    clips: int
    mean: tuple[float, ...]
    """Half-width for each channel's mean; infinite while fewer than `MIN_CLIPS` clips were seen."""
    std: tuple[float, ...]
    """Half-width for each channel's standard deviation, likewise."""

    @property
    def worst(self) -> float:
        """The largest of all, which a target such as 0.005 (0.5%) is compared with."""
        return max((*self.mean, *self.std), default=math.inf)


@dataclass(frozen=True)
class ClipSpread:
    """Sums over clips of the products of (n, s, q), s and q being about `mean`."""

    clips: int
    mean: Floats
    """[Z]: the point that deviations are taken from."""
    products: Floats
    """[Z, 3, 3]."""

    @classmethod
    def of_clip(cls, moments: Moments) -> ClipSpread:
        """Start with a single clip."""
        square = moments.square
        row = np.stack((np.full_like(square, moments.count), np.zeros_like(square), square), axis=1)
        return cls(1, moments.mean, row[:, :, None] * row[:, None, :])

    def about(self, mean: Floats) -> Floats:
        """[Z, 3, 3]: `products` with deviations taken from `mean` instead."""
        d = self.mean - mean
        move = np.zeros_like(self.products)
        move[:, 0, 0] = move[:, 1, 1] = move[:, 2, 2] = 1
        move[:, 1, 0] = d
        move[:, 2, 0] = d * d
        move[:, 2, 1] = 2 * d
        moved: Floats = move @ self.products @ move.transpose(0, 2, 1)
        return moved

    def merged(self, other: ClipSpread, mean: Floats) -> ClipSpread:
        """Merge with the spread of other clips; `mean` is [Z], that of all their latents."""
        return ClipSpread(self.clips + other.clips, mean, self.about(mean) + other.about(mean))

    def precision(self, moments: Moments) -> Precision:
        """Compute the confidence half-widths; `moments` are those of the same clips."""
        channels = len(self.mean)
        variance = moments.square / moments.count
        if self.clips < MIN_CLIPS:
            unknown = (math.inf,) * channels
            return Precision(self.clips, unknown, unknown)
        g = self.about(moments.mean)
        u = np.maximum(g[:, 1, 1], 0)
        v = np.maximum(g[:, 2, 2] - 2 * variance * g[:, 0, 2] + variance**2 * g[:, 0, 0], 0)
        factor = student_t95(self.clips - 1) / moments.count
        factor *= math.sqrt(self.clips / (self.clips - 1))
        std = np.sqrt(variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_width = np.where(std > 0, factor * np.sqrt(u) / std, math.inf)
            std_width = np.where(std > 0, factor * np.sqrt(v) / (2 * variance), math.inf)
        return Precision(self.clips, tuple(mean_width.tolist()), tuple(std_width.tolist()))

    def to_state(self) -> dict[str, Any]:
        """Give all fields as JSON values."""
        return {
            "clips": self.clips,
            "mean": self.mean.tolist(),
            "products": self.products.tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ClipSpread:
        """Undo `to_state`."""
        return cls(
            int(state["clips"]),
            np.asarray(state["mean"], dtype=np.float64),
            np.asarray(state["products"], dtype=np.float64),
        )


def student_t95(freedom: int) -> float:
    """Compute the 97.5% quantile of Student's t, to 1e-4 for `freedom` >= 9.

    Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5.
    """
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))
