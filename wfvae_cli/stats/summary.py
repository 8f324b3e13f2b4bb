"""The figures that follow from a `LatentStats`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from wfvae_cli.errors import InputError
from wfvae_cli.stats.accumulate import LatentStats
from wfvae_cli.stats.moments import Precision
from wfvae_cli.stats.scale import ScaleFactors

RANKS = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
"""The quantiles that are reported."""
COLLAPSED = 0.01
"""Nats: a channel whose KL divergence is below carries next to nothing."""


@dataclass(frozen=True)
class Tail:
    """Share of latents further than so many sigma from their channel's mean.

    Mean and sigma are the final ones of each channel. They are known only after the last clip,
    so the share is counted in the sketch's buckets, values spread evenly within one. The buckets
    are 0.5% of a value wide: `error` grows where a mean is many sigma from zero.
    """

    share: float
    """Share of the values of all channels, in [0, 1]."""
    error: float
    """Largest error that the buckets can hide: the share of values in the buckets at the limits."""
    channels: tuple[float, ...]
    """The share in each channel."""


@dataclass(frozen=True)
class Summary:
    """Every figure of a report. Tuples are per channel; nats are natural units of information."""

    clips: int
    count: int
    """Values in each channel, which is latent positions."""
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    skewness: tuple[float, ...]
    """Fisher's g1, m3 / m2^1.5."""
    kurtosis: tuple[float, ...]
    """Kurtosis in excess of a normal distribution's: m4 / m2^2 - 3."""
    quantiles: tuple[tuple[float, ...], ...]
    """Per channel, one for each of `RANKS`, within 0.25% of the value of that rank."""
    correlation: tuple[tuple[float, ...], ...]
    global_mean: float
    global_std: float
    beyond_3_sigma: Tail
    beyond_5_sigma: Tail
    kl: tuple[float, ...] | None
    """KL divergence from N(0, 1) in nats per latent; None where no clip has a log-variance."""
    kl_count: int
    """Latent positions behind `kl`."""
    precision: Precision
    factors: ScaleFactors

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel."""
        return self.factors.latents_mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, of the population: divided by `count`."""
        return self.factors.latents_std

    @property
    def kl_total(self) -> float | None:
        """Nats per latent position, over all channels."""
        return None if self.kl is None else math.fsum(self.kl)

    @property
    def collapsed(self) -> float | None:
        """Fraction of channels with a KL divergence below 0.01 nat."""
        if self.kl is None:
            return None
        return sum(kl < COLLAPSED for kl in self.kl) / len(self.kl)

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values, those for trainers first."""
        return {
            **self.factors.to_json(),
            "kl": None if self.kl is None else list(self.kl),
            "kl_total": self.kl_total,
            "kl_count": self.kl_count,
            "collapsed": self.collapsed,
            "clips": self.clips,
            "count": self.count,
            "min": list(self.minimum),
            "max": list(self.maximum),
            "skewness": list(self.skewness),
            "kurtosis": list(self.kurtosis),
            "quantiles": {
                f"{rank:g}": [row[k] for row in self.quantiles] for k, rank in enumerate(RANKS)
            },
            "global_mean": self.global_mean,
            "global_std": self.global_std,
            "beyond_3_sigma": _tail_json(self.beyond_3_sigma),
            "beyond_5_sigma": _tail_json(self.beyond_5_sigma),
            "precision": {
                "confidence": 0.95,
                "worst": _finite(self.precision.worst),
                "mean": [_finite(x) for x in self.precision.mean],
                "std": [_finite(x) for x in self.precision.std],
            },
            "correlation": [list(row) for row in self.correlation],
        }


def summarise(stats: LatentStats) -> Summary:
    """Work out every figure.

    Raises:
        InputError: there is no clip, or a channel is constant, so that no scale exists.
    """
    _check(stats)
    moments = stats.moments
    n = moments.count
    variance = moments.square / n
    std = np.sqrt(variance)
    global_mean = float(moments.mean.mean())
    global_variance = float(variance.mean() + np.mean((moments.mean - global_mean) ** 2))
    correlation = moments.comoment / n / np.outer(std, std)
    np.fill_diagonal(correlation, 1)
    channels = range(len(std))
    return Summary(
        clips=stats.clips,
        count=n,
        minimum=tuple(moments.minimum.tolist()),
        maximum=tuple(moments.maximum.tolist()),
        skewness=tuple((moments.third / n / std**3).tolist()),
        kurtosis=tuple((moments.fourth / n / variance**2 - 3).tolist()),
        quantiles=tuple(stats.sketch.quantiles(c, RANKS) for c in channels),
        correlation=tuple(tuple(row) for row in np.clip(correlation, -1, 1).tolist()),
        global_mean=global_mean,
        global_std=math.sqrt(global_variance),
        beyond_3_sigma=_tail(stats, 3),
        beyond_5_sigma=_tail(stats, 5),
        kl=None if stats.kl is None else tuple((stats.kl / stats.kl_count).tolist()),
        kl_count=stats.kl_count,
        precision=stats.precision(),
        factors=ScaleFactors(
            latents_mean=tuple(moments.mean.tolist()),
            latents_std=tuple(std.tolist()),
            shift_factor=global_mean,
            scaling_factor=1 / math.sqrt(global_variance),
        ),
    )


def normalised_density(
    stats: LatentStats, channel: int, edges: tuple[float, ...]
) -> tuple[float, ...]:
    """Histogram density of one channel's normalised latents, to draw beside N(0, 1).

    Args:
        stats: with at least one clip and no constant channel.
        channel: which one.
        edges: ascending bin edges in standard deviations from the mean.

    Returns:
        One density for each bin; values outside of the edges are in none, but in the total.
    """
    moments = stats.moments
    std = math.sqrt(moments.square[channel] / moments.count)
    at = np.asarray(edges)
    below, _ = stats.sketch.below(channel, moments.mean[channel] + at * std)
    return tuple((np.diff(below) / np.diff(at) / moments.count).tolist())


def _check(stats: LatentStats) -> None:
    """Refuse what has no scale, saying what to do."""
    if not stats.clips:
        failed = "".join(f"; {f.name}: {f.reason}" for f in stats.failed[:3])
        raise InputError(
            f"no clip to take statistics of ({len(stats.failed)} failed{failed}): give videos, "
            "images or latent files that can be read"
        )
    moments = stats.moments
    with np.errstate(over="ignore", divide="ignore", under="ignore"):
        usable = np.isfinite(1 / np.sqrt(moments.square / moments.count))
    constant = np.flatnonzero(~usable | (moments.minimum == moments.maximum)).tolist()
    if constant:
        listed = ", ".join(map(str, constant[:8])) + (", …" if len(constant) > 8 else "")
        raise InputError(
            f"channels with more than one value are needed for a scale, but over "
            f"{stats.clips} clips these are constant: {listed}; add clips that differ, or leave "
            "dead channels out of the model"
        )


def _tail(stats: LatentStats, sigmas: int) -> Tail:
    moments = stats.moments
    std = np.sqrt(moments.square / moments.count)
    shares, errors = [], []
    for channel, (mean, sigma) in enumerate(zip(moments.mean, std, strict=True)):
        limits = np.array([mean - sigmas * sigma, mean + sigmas * sigma])
        # Beyond the exact extremes there is nothing, whatever the buckets say.
        seen = np.array(
            [moments.minimum[channel] < limits[0], moments.maximum[channel] > limits[1]]
        )
        below, error = stats.sketch.below(channel, limits)
        outside = np.array([below[0], moments.count - below[1]])
        shares.append(float((outside * seen).sum()) / moments.count)
        errors.append(float((error * seen).sum()) / moments.count)
    return Tail(math.fsum(shares) / len(shares), math.fsum(errors) / len(errors), tuple(shares))


def _tail_json(tail: Tail) -> dict[str, Any]:
    return {"share": tail.share, "error": tail.error, "channels": list(tail.channels)}


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
