"""Times of frames: one that increases for each, and the constant rate behind rounded ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction

_LOG = logging.getLogger("wfvae")

STANDARD_RATES = tuple(
    Fraction(rate)
    for rate in (
        "24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60",
        "12", "15", "15000/1001", "10", "20", "100", "120000/1001", "120", "240", "1", "5",
    )
)  # fmt: skip
_COARSE = 4
"""Units per frame below which rounding would explain nearly anything: then none is assumed."""


class Clock:
    """Gives frames increasing times, in the stream's time base.

    Good timestamps pass unchanged. Where the first presentation time is missing (AVI), or they go
    back more often than decoding times do, the decoding times stand for them, much as in FFmpeg's
    "best effort" timestamps. A time that is missing or repeats the one before (some files give
    every frame the same) comes one frame after the last; one that
    goes back is set to one millisecond after the last, so that containers that round to
    milliseconds keep the order; and where the time starts anew (joined recordings), all that follow
    are moved on with it: it jumps back by more than a second, or the decoding time jumps back, too.

    Args:
        step: nominal duration of a frame, in units.
        name: of the file, for warnings.
        second: units in one second.
    """

    def __init__(self, step: int, name: str, second: int) -> None:
        self.step = step
        self._name = name
        self._second = second
        self._least = max(1, -(-second // 1000))
        self._last: int | None = None
        self._given: int | None = None
        self._shift = 0
        self._before_shift: int | None = None
        self._dts_restarts = False
        self._timed = False
        self._corrected = False
        self._warned = False
        self._by_dts = False
        self._faults = {"pts": 0, "dts": 0}
        self._before: dict[str, int | None] = {"pts": None, "dts": None}

    def __call__(self, pts: int | None, dts: int | None) -> int:
        """Return the time of the next frame, given its presentation and decoding times."""
        given = self._better(pts, dts)
        corrected = False
        if self._last is None:
            self._last = given or 0
        elif given is None:
            self._last += self.step
        elif given == self._given:
            self._last += self.step
            self._warn()
        else:
            if self._before_shift is not None:
                self._undo_shift(given, self._before_shift)
            time = given + self._shift
            if self._restarts(time):
                self._before_shift = self._shift
                self._shift += self._last + self.step - time
                time = self._last + self.step
                self._warn()
            elif time < self._last + (self._least if self._corrected else 1):
                time = self._last + self._least
                corrected = True
                self._warn()
            self._last = time
        self._timed = self._timed or given is not None
        self._corrected = corrected
        self._given = given
        return self._last

    def _restarts(self, time: int) -> bool:
        """Tell if the time has jumped back, not merely been written wrongly."""
        assert self._last is not None
        back = self._last - time
        if back >= 0 and not self._timed:
            return True  # all times so far were made up
        if back >= self.step and self._dts_restarts:
            self._dts_restarts = False
            return True
        return back > self._second

    def _undo_shift(self, given: int, shift: int) -> None:
        """Go back to the former shift if only one time was wrong, and this one goes on."""
        assert self._last is not None
        if 0 < given + shift - self._last <= self.step:
            self._shift = shift
        self._before_shift = None

    def _better(self, pts: int | None, dts: int | None) -> int | None:
        """The presentation time, unless it went back more often than the decoding time did."""
        if self._last is None:
            self._by_dts = pts is None
        for name, value in (("pts", pts), ("dts", dts)):
            before = self._before[name]
            if value is not None:
                self._faults[name] += before is not None and value <= before
                if name == "dts" and before is not None and value <= before - self.step:
                    self._dts_restarts = True
                self._before[name] = value
        faulty = self._faults["pts"] > self._faults["dts"] and self._before["dts"] is not None
        return dts if self._by_dts or faulty else pts

    def _warn(self) -> None:
        if not self._warned:
            _LOG.warning("%s: its timestamps do not always increase; corrected", self._name)
        self._warned = True


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
