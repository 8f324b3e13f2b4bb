"""Moments of many channels at once, up to the fourth, that merge without cancellation.

Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), for means and
(co)variances; Pébay, "Formulas for robust, one-pass parallel computation of covariances and
arbitrary-order statistical moments" (SAND2008-6212) for the third and fourth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
        """The moments of `values`, [Z, n] with n >= 1 and all finite."""
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
        """The moments of both sets of values together."""
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
        """Everything, as JSON values."""
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
