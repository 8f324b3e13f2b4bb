from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfvae_cli.errors import UsageError
from wfvae_cli.media import clip
from wfvae_cli.media.options import Fit, Sampling, parse_bytes
from wfvae_cli.media.sampling import Orientation, Timed, plan_geometry, select

YES_NO = (False, True)
ALL_ORIENTATIONS = [Orientation(t, h, v) for t in YES_NO for h in YES_NO for v in YES_NO]


def test_scripts_for_the_first_version_find_it() -> None:
    assert clip.Sampling is Sampling


def timed(pts: Sequence[int], duration: int = 1) -> list[Timed[int]]:
    return [Timed(i, p, duration) for i, p in enumerate(pts)]


def taken(pts: Sequence[int], base: Fraction, sampling: Sampling) -> list[tuple[int, int]]:
    step = pts[1] - pts[0] if len(pts) > 1 else 1
    return [(t.item, t.pts) for t in select(timed(pts, step), base, sampling)]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"start": -1.0}, "start"),
        ({"start": math.nan}, "start"),
        ({"duration": 0.0}, "duration"),
        ({"duration": math.inf}, "duration"),
        ({"frames": 0}, "frames"),
        ({"fps": Fraction(0)}, "fps"),
        ({"fps": Fraction(-25)}, "fps"),
        ({"size": (0, 8)}, "side"),
        ({"short_side": 0}, "side"),
        ({"short_side": 10**6}, "side"),
        ({"size": (8, 8), "short_side": 8}, "mutually exclusive"),
        ({"fit": "squeeze"}, "crop, pad, stretch"),
    ],
)
def test_impossible_sampling_is_a_usage_error(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Sampling(**options)  # type: ignore[arg-type] # wrong on purpose


def test_default_takes_everything_from_zero() -> None:
    assert taken([7, 9, 12], Fraction(1, 10), Sampling()) == [(0, 0), (1, 2), (2, 5)]


def test_frames_cuts() -> None:
    assert taken([0, 1, 2, 3], Fraction(1, 4), Sampling(frames=2)) == [(0, 0), (1, 1)]


def test_frames_does_not_ask_for_one_more() -> None:
    def stream() -> Iterator[Timed[int]]:
        yield from timed([0, 1])
        pytest.fail("asked for more than was taken")

    assert len(list(select(stream(), Fraction(1), Sampling(frames=2)))) == 2


@pytest.mark.parametrize("base", [Fraction(1, 25), Fraction(1, 1000), Fraction(1, 12800)])
def test_duration_is_exclusive_at_any_time_base(base: Fraction) -> None:
    pts = [round(Fraction(i, 25) / base) for i in range(50)]
    assert len(taken(pts, base, Sampling(duration=1.0))) == 25
    assert len(taken(pts, base, Sampling(duration=0.01))) == 1
    assert len(taken(pts, base, Sampling(duration=100))) == 50


def test_halving_the_rate_drops_like_ffmpeg() -> None:
    # FFmpeg's fps filter at 25 on 50 frames/s: 0.5 rounds up, the later frame wins.
    got = taken(list(range(8)), Fraction(1, 50), Sampling(fps=Fraction(25)))
    assert got == [(0, 0), (2, 1), (4, 2), (6, 3)]


def test_doubling_the_rate_repeats() -> None:
    got = taken([0, 1, 2], Fraction(1, 25), Sampling(fps=Fraction(50)))
    assert got == [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5)]


def test_gaps_are_filled() -> None:
    got = taken([0, 1, 5], Fraction(1, 10), Sampling(fps=Fraction(10)))
    assert got == [(0, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 5)]


def test_fps_then_frames() -> None:
    got = taken([0, 1, 2], Fraction(1, 25), Sampling(fps=Fraction(50), frames=3))
    assert got == [(0, 0), (0, 1), (1, 2)]


def test_a_single_short_frame_stays() -> None:
    assert taken([0], Fraction(1, 1000), Sampling(fps=Fraction(1))) == [(0, 0)]


@settings(deadline=None, max_examples=80)
@given(
    gaps=st.lists(st.integers(1, 90), min_size=1, max_size=30),
    fps=st.fractions(Fraction(1, 2), 120),
    duration=st.one_of(st.none(), st.floats(0.01, 3)),
)
def test_resampling_gives_consecutive_frames_that_are_nearest(
    gaps: list[int], fps: Fraction, duration: float | None
) -> None:
    pts = [sum(gaps[:i]) for i in range(len(gaps))]
    base = Fraction(1, 100)
    got = list(select(timed(pts, gaps[-1]), base, Sampling(fps=fps, duration=duration)))
    assert [t.pts for t in got] == list(range(len(got)))
    end = Fraction(str(duration)) / base - Fraction(1, 2) if duration else math.inf
    slots = [math.floor(p * base * fps + Fraction(1, 2)) for p in pts if p < end] or [0]
    for t in got:  # the latest of the items that are due
        assert t.item == max(i for i, slot in enumerate(slots) if slot <= t.pts)
    assert got[-1].pts >= slots[-1] - 1


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), Orientation()),
        ((0, 1, -1, 0), Orientation(transpose=True, hflip=True)),  # a quarter turn clockwise
        ((-1, 0, 0, -1), Orientation(hflip=True, vflip=True)),
        ((0, -1, 1, 0), Orientation(transpose=True, vflip=True)),
        ((-1, 0, 0, 1), Orientation(hflip=True)),
        ((1, 0, 0, -1), Orientation(vflip=True)),
        ((0, 1, 1, 0), Orientation(transpose=True)),
        ((1, 1, -1, 1), None),  # 45 degrees
    ],
)
def test_display_matrix(matrix: tuple[int, int, int, int], expected: Orientation | None) -> None:
    a, b, c, d = (value * 65536 for value in matrix)
    assert Orientation.from_matrix(a, b, c, d) == expected


def size(
    width: int, height: int, sampling: Sampling, aspect: str = "1", turned: bool = False
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    plan = plan_geometry(width, height, Fraction(aspect), Orientation(turned), sampling)
    return plan.scaled, plan.size, plan.offset


def test_nothing_asked_nothing_done() -> None:
    plan = plan_geometry(101, 63, Fraction(16, 15), Orientation(), Sampling())
    assert (plan.scaled, plan.size, plan.sample_aspect) == ((101, 63), (101, 63), Fraction(16, 15))


def test_a_quarter_turn_swaps_sides_and_pixel_aspect() -> None:
    plan = plan_geometry(720, 576, Fraction(16, 15), Orientation(True), Sampling())
    assert (plan.size, plan.sample_aspect) == ((576, 720), Fraction(15, 16))


def test_crop_covers() -> None:
    assert size(1920, 1080, Sampling(size=(256, 256))) == ((455, 256), (256, 256), (99, 0))


def test_pad_fits_inside() -> None:
    expected = ((256, 144), (256, 256), (0, -56))
    assert size(1920, 1080, Sampling(size=(256, 256), fit="pad")) == expected


def test_stretch_fills() -> None:
    assert size(1920, 1080, Sampling(size=(64, 64), fit="stretch"))[0] == (64, 64)


def test_wide_pixels_are_made_square() -> None:
    # PAL at 16:9: 720x576 pixels of 64:45 are shown as 1024x576.
    plan = plan_geometry(720, 576, Fraction(64, 45), Orientation(), Sampling(short_side=288))
    assert (plan.size, plan.sample_aspect) == ((512, 288), Fraction(1))
    assert size(720, 576, Sampling(size=(512, 288)), "64/45")[0] == (512, 288)


def test_short_side_follows_the_displayed_picture() -> None:
    assert size(1920, 1080, Sampling(short_side=256))[1] == (456, 256)
    assert size(1920, 1080, Sampling(short_side=256), turned=True)[1] == (256, 456)
    assert size(101, 64, Sampling(short_side=64))[1] == (101, 64)  # as it is: not even


@settings(deadline=None, max_examples=100)
@given(
    width=st.integers(8, 4000),
    height=st.integers(8, 4000),
    target=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    aspect=st.sampled_from(["1", "64/45", "15/16"]),
    orientation=st.sampled_from(ALL_ORIENTATIONS),
)
def test_sizes_are_reached(
    width: int, height: int, target: tuple[int, int], aspect: str, orientation: Orientation
) -> None:
    fits: tuple[Fit, ...] = ("crop", "pad", "stretch")
    for fit in fits:
        sampling = Sampling(size=target, fit=fit)
        plan = plan_geometry(width, height, Fraction(aspect), orientation, sampling)
        assert plan.size == target
        for side in (0, 1):
            assert plan.scaled[side] >= target[side] or fit != "crop"
            assert plan.scaled[side] <= target[side] or fit != "pad"
    short = plan_geometry(
        width, height, Fraction(aspect), orientation, Sampling(short_side=target[0])
    )
    assert min(short.size) == target[0]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4G", 4 << 30),
        ("4GiB", 4 << 30),
        ("512 MB", 512 << 20),
        ("1.5K", 1536),
        ("1T", 1 << 40),
        ("7", 7),
        ("7B", 7),
    ],
)
def test_bytes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "G", "0", "-1G", "4X", "4GG", "1e9", "0.1", "٤G"])
def test_what_are_no_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="expected bytes such as 4G"):
        parse_bytes(text)
