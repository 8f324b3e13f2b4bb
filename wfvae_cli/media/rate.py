"""Recognises a constant frame rate in timestamps that were rounded to a time base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

STANDARD_RATES = tuple(
    Fraction(rate)
    for rate in (
        "24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60",
        "12", "15", "15000/1001", "10", "20", "100", "120000/1001", "120", "240", "1", "5",
    )
)  # fmt: skip
_COARSE = 4
"""Units per frame below which rounding would explain nearly anything: then none is assumed."""


def constant_rate(
    pts: Sequence[int], time_base: Fraction, frame_rate: Fraction | None = None
) -> Fraction | None:
    """The constant frame rate that explains every timestamp, if there is one.

    A clip counts as constant if some rate `r` and phase `p` give
    `pts[i] = floor(i / (r * time_base) + p)` for all i. That covers rounding down, to nearest and
    up, and clips cut out of longer ones: 29.97 frames/s in Matroska's milliseconds is constant.

    Args:
        pts: timestamps in display order, in `time_base` units.
        time_base: seconds per unit.
        frame_rate: the rate that the container names, preferred if it explains the timestamps.

    Returns:
        Frames per second, or None for a variable rate. A single frame has its `frame_rate`.
    """
    if len(pts) < 2:
        return frame_rate
    span, steps = pts[-1] - pts[0], len(pts) - 1
    if span < _COARSE * steps:
        regular = span > 0 and all((p - pts[0]) * steps == i * span for i, p in enumerate(pts))
        return steps / (span * time_base) if regular else None
    for rate in _likely(frame_rate):
        if _bound(pts, 1 / (rate * time_base)) is None:
            return rate
    return _search(pts, time_base)


def _likely(named: Fraction | None) -> Iterator[Fraction]:
    """Rates to try first."""
    if named is not None and named > 0:
        if named in STANDARD_RATES:
            yield named
        # Containers name 29.97 as 2997/100 and averages as 23.9759: mean the standard rate.
        yield from (r for r in STANDARD_RATES if abs(r - named) < named / 10_000)
        yield named
    yield from STANDARD_RATES


def _search(pts: Sequence[int], time_base: Fraction) -> Fraction | None:
    """The simplest rate that explains the timestamps, by narrowing the interval it must lie in."""
    low, high = Fraction(0), 1 / time_base
    rate = (len(pts) - 1) / ((pts[-1] - pts[0]) * time_base)
    # Each try excludes itself and all beyond it; a few do for real clips.
    for _ in range(100):
        bound = _bound(pts, 1 / (rate * time_base))
        if bound is None:
            return rate
        step, too_short = bound
        if step < 1:
            return None
        limit = 1 / (step * time_base)
        low, high = (low, min(high, limit)) if too_short else (max(low, limit), high)
        if low >= high:
            return None
        rate = _simplest_between(low, high)
    return None


def _bound(pts: Sequence[int], step: Fraction) -> tuple[Fraction, bool] | None:
    """None if the timestamps lie on a digital line of slope `step`, at least one unit.

    Otherwise the slope that two of them forbid to reach, and whether `step` is too short or too
    long: any two timestamps differ from any line by less than one unit.
    """
    if step < 1:
        return step, True
    # All in units of 1/denominator, so that long clips stay in integer arithmetic.
    num, den = step.numerator, step.denominator
    rests = [(value - pts[0]) * den - i * num for i, value in enumerate(pts)]
    high, low = max(rests), min(rests)
    if high - low < den:
        return None
    above, below = rests.index(high), rests.index(low)
    if above > below:
        return Fraction(pts[above] - pts[below] - 1, above - below), True
    return Fraction(pts[below] - pts[above] + 1, below - above), False


def _simplest_between(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of smallest denominator strictly between two positive ones (Stern-Brocot)."""
    whole = low.numerator // low.denominator
    if whole + 1 < high:
        return Fraction(whole + 1)
    if low == whole:
        # low is an integer and high at most the next: 1/x of the part above it.
        return whole + 1 / Fraction((1 / (high - whole)).__floor__() + 1)
    return whole + 1 / _simplest_between(1 / (high - whole), 1 / (low - whole))
