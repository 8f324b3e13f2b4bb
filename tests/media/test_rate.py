from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wfvae_cli.media.rate import STANDARD_RATES, Clock, constant_rate

MILLISECOND = Fraction(1, 1000)
NTSC = Fraction(30000, 1001)


def rounded(rate: Fraction, base: Fraction, count: int, first: int = 0) -> list[int]:
    pts = [math.floor(i / rate / base + Fraction(1, 2)) for i in range(first, first + count)]
    return [p - pts[0] for p in pts]


def test_matroska_milliseconds_are_constant() -> None:
    pts = rounded(NTSC, MILLISECOND, 300)
    assert pts[:4] == [0, 33, 67, 100]
    assert constant_rate(pts, MILLISECOND) == NTSC
    assert constant_rate(pts, MILLISECOND, Fraction(2997, 100)) == NTSC


def test_a_clip_from_the_middle_is_constant() -> None:
    for first in range(1, 60):
        assert constant_rate(rounded(NTSC, MILLISECOND, 200, first), MILLISECOND, NTSC) == NTSC


def test_exact_units_allow_no_deviation() -> None:
    base = Fraction(1, 30)
    assert constant_rate([0, 1, 2, 3], base, Fraction(30)) == 30
    assert constant_rate([0, 1, 2, 4], base, Fraction(30)) is None
    assert constant_rate([0, 1, 3, 4, 6], base) is None
    assert constant_rate([0, 2, 4], base) == 15


@pytest.mark.parametrize("pts", [[0, 33, 67, 100, 167], [0, 40, 80, 81, 120], [0, 40, 20, 60]])
def test_gaps_and_disorder_are_variable(pts: list[int]) -> None:
    assert constant_rate(pts, MILLISECOND, NTSC) is None


def test_one_frame_has_the_named_rate() -> None:
    assert constant_rate([0], MILLISECOND, Fraction(24)) == 24
    assert constant_rate([], MILLISECOND) is None


def test_a_wrong_name_is_not_believed() -> None:
    assert constant_rate(rounded(Fraction(25), MILLISECOND, 50), MILLISECOND, Fraction(30)) == 25


@settings(deadline=None, max_examples=150)
@given(
    rate=st.one_of(st.sampled_from(STANDARD_RATES), st.fractions(1, 120, max_denominator=1001)),
    base=st.sampled_from([MILLISECOND, Fraction(1, 90000), Fraction(1, 12800), Fraction(1, 600)]),
    count=st.integers(2, 400),
    first=st.integers(0, 100),
    named=st.booleans(),
)
def test_rounded_constant_rates_are_found(
    rate: Fraction, base: Fraction, count: int, first: int, named: bool
) -> None:
    assume(1 / (rate * base) >= 5)  # coarser ones are not called constant
    pts = rounded(rate, base, count, first)
    found = constant_rate(pts, base, rate if named else None)
    assert found is not None
    # Whatever was found says when each frame is shown, to less than one unit.
    rests = [p - i / (found * base) for i, p in enumerate(pts)]
    assert max(rests) - min(rests) < 1
    if named and rate in STANDARD_RATES:
        assert found == rate


@settings(deadline=None, max_examples=100)
@given(
    rate=st.sampled_from(STANDARD_RATES),
    count=st.integers(5, 100),
    at=st.integers(1, 98),
    late=st.integers(3, 500),
)
def test_one_late_frame_makes_it_variable(rate: Fraction, count: int, at: int, late: int) -> None:
    base = Fraction(1, 90000)
    pts = rounded(rate, base, count)
    at = min(at, count - 2)
    assert constant_rate(pts[:at] + [p + late for p in pts[at:]], base, rate) is None


def test_decoding_times_where_presentation_times_go_back() -> None:
    clock = Clock(1, "a", 25)
    pts, dts = [1, 4, 3, 5, 2, 8, 7, 9, 6], range(2, 11)
    times = [clock(p, d) for p, d in zip(pts, dts, strict=True)]
    assert times == sorted(set(times))
    assert times[-1] - times[3] == 5  # one after the other, and none is left out


def test_corrected_times_differ_after_rounding_to_milliseconds() -> None:
    clock = Clock(3600, "a", 90000)
    given = [0, 3600, 3500, 3400, 3610, 7200, 10800]
    times = [clock(t, None) for t in given]
    milliseconds = [round(t / 90) for t in times]
    assert milliseconds == sorted(set(milliseconds))
    assert times[-2:] == given[-2:]


def times(given: list[tuple[int | None, int | None]]) -> list[int]:
    """What becomes of presentation and decoding times in milliseconds, at 25 frames a second."""
    clock = Clock(40, "a", 1000)
    return [clock(pts, dts) for pts, dts in given]


def test_times_that_start_anew_after_less_than_a_second() -> None:
    part: list[tuple[int | None, int | None]] = [
        (0, -40),
        (40, 0),
        (80, 40),
        (None, 80),
        (160, 120),
    ]
    assert times(part * 3) == list(range(0, 15 * 40, 40))
    # The decoder tells the jump of decoding times one frame early.
    early: list[tuple[int | None, int | None]] = [(0, 0), (40, 40), (80, -40), (0, 0), (40, 40)]
    assert times(early) == [0, 40, 80, 120, 160]


def test_one_wrong_time_moves_no_other() -> None:
    assert times([(0, 0), (40, 40), (80, 80), (10, 10), (160, 160), (200, 200)])[-2:] == [160, 200]


def test_times_that_are_missing_at_the_beginning() -> None:
    begin: list[tuple[int | None, int | None]] = [(None, None)] * 3
    assert times([*begin, (0, 0), (40, 40), (80, 80)]) == [0, 40, 80, 120, 160, 200]
