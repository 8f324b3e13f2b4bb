"""Tests of latents for being raw, normalised or scaled, by their mean and deviation alone.

A model's shift and scale say what raw latents are like: mean `shift`, standard deviation
`1 / scale`, per channel. Each hypothesis is something that may have been done to them, and
foretells both; the one that foretells what was measured best is likely, as far as the others are
further away. One dataset differs from the one that the model's figures were measured on: small
differences mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.models.wan_statistics import WAN_21_MEAN, WAN_21_STD, WAN_22_MEAN, WAN_22_STD

_MARGIN = 1.5
"""Least ratio of the next hypothesis's distance to the nearest's, for a verdict."""
_FARTHEST = 1.0
"""A distance beyond which no hypothesis holds: a factor of e in every channel."""
STABLE_DIFFUSION = 0.18215
"""Factor of the first latent diffusion models, which scripts use with others."""

HYPOTHESES = {
    "raw": "as the model gives them",
    "normalised": "(z - shift) * scale",
    "normalised twice": "shift and scale were applied a second time",
    "undone twice": "shift and scale were undone on raw latents",
    "divided by scale": "(z - shift) / scale: divided where it should be multiplied",
    "scaled by 0.18215": "Stable Diffusion's factor, in place of the model's own",
}
"""Description of each hypothesis, by its name; another factor is named by its value."""


@dataclass(frozen=True)
class ScaleVerdict:
    """The hypothesis that holds, and the distance of each."""

    verdict: str
    """A key of `HYPOTHESES`, `scaled by X`, `undecided`, or `unknown` without a model's figures."""
    distances: Mapping[str, float]
    """For each hypothesis, 0 where it foretells exactly what was measured; about 0.1 to 0.5 is
    usual, since datasets differ."""

    @property
    def evidence(self) -> str:
        """Say what the verdict rests on; empty where nothing was compared."""
        if not self.distances:
            return ""
        (best, near), (second, far) = [p for p in self.distances.items() if p[0] in HYPOTHESES][:2]
        if self.verdict in HYPOTHESES:
            return f"{near:.2f} away from {best} latents; the next, {second}, is {far:.2f} away"
        if self.verdict != "undecided":
            return (
                f"{self.distances[self.verdict]:.2f} away from raw latents times that factor; "
                f"without it the nearest, {best}, is {near:.2f} away"
            )
        if near > _FARTHEST:
            return (
                f"the nearest, {best}, is {near:.2f} away, and nothing beyond {_FARTHEST:g} is "
                "believed: few clips, another model, or another mistake"
            )
        return f"{best} and {second} fit about as well: {near:.2f} and {far:.2f} away"


def known_normalization(family: str | None) -> Normalization | None:
    """Give the published figures of families whose checkpoints hold none."""
    figures = {
        "wan": (WAN_21_MEAN, WAN_21_STD),
        "qwenimage": (WAN_21_MEAN, WAN_21_STD),
        "wan22": (WAN_22_MEAN, WAN_22_STD),
    }.get(family or "")
    if figures is None:
        return None
    mean, std = figures
    return Normalization(mean, tuple(1 / each for each in std))


def judge_scale(
    mean: Sequence[float], std: Sequence[float], normalization: Normalization | None
) -> ScaleVerdict:
    """Compare what was measured with what each hypothesis foretells.

    Args:
        mean: of each channel of the cache.
        std: of each channel of the cache.
        normalization: of the model that made it.
    """
    if normalization is None or len(normalization.shift) != len(mean):
        return ScaleVerdict("unknown", {})
    shift, scale = normalization.shift, normalization.scale
    pairs = list(zip(shift, scale, strict=True))
    foretold = {
        "raw": [(b, 1 / a) for b, a in pairs],
        "normalised": [(0.0, 1.0)] * len(pairs),
        "normalised twice": [(-b * a, abs(a)) for b, a in pairs],
        "undone twice": [(b / a + b, 1 / a**2) for b, a in pairs],
        "divided by scale": [(0.0, 1 / a**2) for b, a in pairs],
        "scaled by 0.18215": [(b * STABLE_DIFFUSION, STABLE_DIFFUSION / abs(a)) for b, a in pairs],
    }
    factor = _factor(std, scale)
    foretold[f"scaled by {factor:.3g}"] = [(b * factor, factor / abs(a)) for b, a in pairs]
    distances = {name: _distance(mean, std, each) for name, each in foretold.items()}
    return ScaleVerdict(_decide(distances, factor), dict(sorted(distances.items(), key=_value)))


def _decide(distances: Mapping[str, float], factor: float) -> str:
    fitted = f"scaled by {factor:.3g}"
    fixed = {name: distance for name, distance in distances.items() if name != fitted}
    best, second = sorted(fixed, key=lambda name: fixed[name])[:2]
    # A factor that is free fits best always: it counts where no fixed one comes near.
    if fixed[best] > _FARTHEST and distances[fitted] * 2 < fixed[best]:
        return fitted if distances[fitted] < _FARTHEST else "undecided"
    if fixed[best] > _FARTHEST or fixed[second] < _MARGIN * fixed[best]:
        return "undecided"
    return best


def _distance(
    mean: Sequence[float], std: Sequence[float], foretold: Sequence[tuple[float, float]]
) -> float:
    """Root mean square over channels of the means' distance in deviations and the log ratio."""
    total = 0.0
    for found_mean, found_std, (expected, deviation) in zip(mean, std, foretold, strict=True):
        spread = max(abs(deviation), 1e-9)
        total += ((found_mean - expected) / max(spread, found_std)) ** 2
        total += math.log(max(found_std, 1e-9) / spread) ** 2
    return math.sqrt(total / len(mean))


def _factor(std: Sequence[float], scale: Sequence[float]) -> float:
    """The one factor that brings raw deviations nearest to what was measured."""
    logs = [math.log(max(s, 1e-9) * abs(a)) for s, a in zip(std, scale, strict=True)]
    return math.exp(sum(logs) / len(logs))


def _value(pair: tuple[str, float]) -> float:
    return pair[1]
