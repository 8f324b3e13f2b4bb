"""Distributions of latents: an exact fixed histogram, and a sketch of quantiles.

The sketch is DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile
sketch with relative-error guarantees", VLDB 2019) from the package `ddsketch`. Of the sketches
that merge, it alone gives the same bytes for any grouping and order of the values: its state is
a count per bucket, where KLL draws random numbers and a t-digest depends on the order. The
package adds values, and walks over buckets, one by one; here NumPy does, with the package's own
mapping (the cubic one: only exact operations, no platform's logarithm) and its own ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from ddsketch import CubicallyInterpolatedMapping
from numpy.typing import NDArray

from wfvae_cli.stats.moments import Floats

Counts = NDArray[np.int64]

ACCURACY = 0.0025
"""A quantile is within this fraction of the value of the latent that has its rank."""
_MAPPING = CubicallyInterpolatedMapping(ACCURACY)
_UPPER = (1 + _MAPPING.gamma) / 2
"""A bucket's upper edge over the value that stands for it."""
_GROW = 512
"""The window of keys grows by multiples of this, so that it seldom has to."""

LOW, HIGH, BINS = -16.0, 16.0, 512
"""The fixed histogram: 512 bins of 1/16 over [-16, 16), in units of raw latents."""
_PER_UNIT = BINS / (HIGH - LOW)


@dataclass
class Histogram:
    """Counts in fixed bins [low, high) of raw latents, per channel; merges exactly."""

    counts: Counts
    """[Z, BINS + 2]: below `LOW`, the bins, at or above `HIGH`."""

    @classmethod
    def empty(cls, channels: int) -> Histogram:
        """No values in any of `channels` channels."""
        return cls(np.zeros((channels, BINS + 2), dtype=np.int64))

    def update(self, values: Floats) -> None:
        """Count `values`, [Z, n], all finite."""
        # Multiplying by a power of two before moving the origin keeps every edge exact.
        bins = np.floor(values * _PER_UNIT)
        bins -= LOW * _PER_UNIT - 1
        _count(self.counts, np.clip(bins, 0, BINS + 1, out=bins).astype(np.int64))

    def merge(self, other: Histogram) -> None:
        """Count what `other` counted too."""
        self.counts += other.counts

    def to_state(self) -> dict[str, Any]:
        """Give all fields as JSON values."""
        return {
            "low": LOW,
            "high": HIGH,
            "bins": BINS,
            "below": self.counts[:, 0].tolist(),
            "counts": self.counts[:, 1:-1].tolist(),
            "above": self.counts[:, -1].tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Histogram:
        """Undo `to_state`.

        Raises:
            ValueError: the bins are not the ones of this version.
        """
        if (state["low"], state["high"], state["bins"]) != (LOW, HIGH, BINS):
            raise ValueError(f"histograms have {BINS} bins over [{LOW:g}, {HIGH:g})")
        parts = (
            np.asarray(state["below"], dtype=np.int64)[:, None],
            np.asarray(state["counts"], dtype=np.int64),
            np.asarray(state["above"], dtype=np.int64)[:, None],
        )
        return cls(np.concatenate(parts, axis=1))


@dataclass
class QuantileSketch:
    """A DDSketch per channel, filled by NumPy; merges exactly, in any order."""

    zeros: Counts
    """[Z]: values too close to zero for any bucket."""
    first: int = 0
    """Key of the first bucket of the window."""
    counts: Counts = field(default_factory=lambda: np.zeros((0, 2, 0), dtype=np.int64))
    """[Z, 2, W]: per channel, the buckets of |x| for negative and for positive x."""

    @classmethod
    def empty(cls, channels: int) -> QuantileSketch:
        """No values in any of `channels` channels."""
        zeros = np.zeros(channels, dtype=np.int64)
        return cls(zeros, 0, np.zeros((channels, 2, 0), dtype=np.int64))

    def update(self, values: Floats) -> None:
        """Count `values`, [Z, n], all finite."""
        size = np.abs(values)
        kept = size > _MAPPING.min_possible
        if kept.all():
            keep = None
        else:
            keep = kept
            self.zeros += np.count_nonzero(~kept, axis=1)
            size[~kept] = 1
        keys = bucket_keys(size)
        self._fit(int(keys.min()), int(keys.max()))
        channels, _, width = self.counts.shape
        keys += (values > 0) * width - self.first
        _count(self.counts.reshape(channels, 2 * width), keys, keep)

    def merge(self, other: QuantileSketch) -> None:
        """Count what `other` counted too."""
        self.zeros += other.zeros
        width = other.counts.shape[2]
        if width:
            self._fit(other.first, other.first + width - 1)
            start = other.first - self.first
            self.counts[:, :, start : start + width] += other.counts

    def quantiles(self, channel: int, ranks: tuple[float, ...]) -> tuple[float, ...]:
        """Values of one channel at `ranks` in [0, 1], within `ACCURACY` of the exact ones.

        The exact one is NumPy's `quantile(..., method="lower")`; there must be a value.
        """
        total = np.cumsum(self._ascending(channel))
        places = np.searchsorted(total, np.array(ranks) * (total[-1] - 1), side="right")
        return tuple(self._value(place) for place in places.tolist())

    def buckets(self, channel: int) -> tuple[Floats, Counts]:
        """One channel's buckets in ascending order: [m + 1] edges and [m] counts.

        The bucket around zero is between the smallest edges of either sign.
        """
        edges = _upper_edges(self.first - 1, self.counts.shape[2] + 1)
        return np.concatenate((-edges[::-1], edges)), self._ascending(channel)

    def below(self, channel: int, limits: Floats) -> tuple[Floats, Floats]:
        """Count how many of one channel's values lie below each of `limits`, and the error at most.

        The values in a limit's own bucket are taken to be spread evenly over it; the error
        cannot exceed their number.
        """
        edges, counts = self.buckets(channel)
        total = np.concatenate(([0], np.cumsum(counts))).astype(np.float64)
        inside = np.clip(np.searchsorted(edges, limits, side="right") - 1, 0, len(counts) - 1)
        known = (limits <= edges[0]) | (limits >= edges[-1])
        return np.interp(limits, edges, total), np.where(known, 0, counts[inside])

    def to_state(self) -> dict[str, Any]:
        """Give all fields as JSON values; rows of counts start at a key each, ends trimmed."""
        rows: list[list[Any]] = []
        for channel in self.counts:
            for row in channel:
                used = np.flatnonzero(row)
                low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
                rows.append([self.first + low, row[low:high].tolist()])
        return {
            "accuracy": ACCURACY,
            "zeros": self.zeros.tolist(),
            "negative": rows[0::2],
            "positive": rows[1::2],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> QuantileSketch:
        """Undo `to_state`.

        Raises:
            ValueError: the buckets are not the ones of this version.
        """
        if state["accuracy"] != ACCURACY:
            raise ValueError(f"sketches have an accuracy of {ACCURACY}")
        sketch = cls.empty(len(state["zeros"]))
        sketch.zeros += np.asarray(state["zeros"], dtype=np.int64)
        for sign, name in enumerate(("negative", "positive")):
            for channel, (first, counts) in enumerate(state[name]):
                if counts:
                    sketch._fit(first, first + len(counts) - 1)
                    start = first - sketch.first
                    sketch.counts[channel, sign, start : start + len(counts)] += counts
        return sketch

    def _ascending(self, channel: int) -> Counts:
        """[2W + 1]: one channel's counts, of negative values, of zeros and of positive ones."""
        negative, positive = self.counts[channel]
        return np.concatenate((negative[::-1], self.zeros[channel : channel + 1], positive))

    def _value(self, place: int) -> float:
        """Give the value that stands for the bucket at a place of `_ascending`."""
        steps = place - self.counts.shape[2]  # from the bucket of zeros
        return math.copysign(_MAPPING.value(self.first + abs(steps) - 1), steps) if steps else 0.0

    def _fit(self, low: int, high: int) -> None:
        """Widen the window to hold the keys from `low` to `high`."""
        width = self.counts.shape[2]
        if width and self.first <= low and high < self.first + width:
            return
        if width:
            low, high = min(low, self.first), max(high, self.first + width - 1)
        first = low // _GROW * _GROW
        end = (high // _GROW + 1) * _GROW
        wider = np.zeros((len(self.zeros), 2, end - first), dtype=np.int64)
        if width:
            wider[:, :, self.first - first : self.first - first + width] = self.counts
        self.first, self.counts = first, wider


@lru_cache(maxsize=4)
def _upper_edges(first: int, count: int) -> Floats:
    """[count]: where the buckets of the keys from `first` end; every channel asks for the same."""
    edges = np.array([_MAPPING.value(key) * _UPPER for key in range(first, first + count)])
    edges.flags.writeable = False
    return edges


def bucket_keys(size: Floats) -> Counts:
    """The package's `CubicallyInterpolatedMapping.key` for an array of positive values."""
    mantissa, exponent = np.frexp(size)
    s = 2 * mantissa - 1
    log2 = _MAPPING.A * s
    for coefficient in (_MAPPING.B, _MAPPING.C):
        log2 += coefficient
        log2 *= s
    log2 += exponent - 1
    log2 *= _MULTIPLIER
    keys: Counts = np.ceil(log2, out=log2).astype(np.int64)
    return keys


_MULTIPLIER = 1 / math.log1p(2 * ACCURACY / (1 - ACCURACY)) / _MAPPING.C
"""Buckets per doubling, as the package computes it."""


def _count(counts: Counts, bins: Counts, keep: NDArray[np.bool_] | None = None) -> None:
    """Add one to `counts` [Z, W], C-contiguous, at each of `bins` [Z, n] where `keep` is true."""
    channels, width = counts.shape
    bins += (np.arange(channels) * width)[:, None]
    flat = bins.ravel() if keep is None else bins[keep]
    if flat.size * 4 < counts.size:
        np.add.at(counts.reshape(-1), flat, 1)
    else:
        counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
