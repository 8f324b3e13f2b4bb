"""The figures of `weights/scenes.py`, of errors that are known."""

import numpy as np
import pytest

from scenes import Clip, grey_lines, report_ball, report_copies, report_later, report_lines


def halves(clip: Clip) -> Clip:
    """Each frame of a pair shows half of both."""
    blended = clip.copy()
    blended[1::2] = blended[2::2] = (clip[1::2] + clip[2::2]) / 2
    return blended


def test_what_both_frames_of_a_pair_show_by_half_has_the_factor_one_half(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report_copies(halves)
    pair, other = capsys.readouterr().out.splitlines()
    assert "its pair" in pair and "green's factor 0.50" in pair
    assert "the other pair: off by 0.0, 0.0, 0.0 levels" in other
    report_copies(np.round)
    assert capsys.readouterr().out.count("off by 0.0, 0.0, 0.0 levels") == 2


def test_a_copy_is_apart_from_the_ball(capsys: pytest.CaptureFixture[str]) -> None:
    report_ball(lambda clip: clip)
    assert capsys.readouterr().out.count("78.13 dB") == 2  # of the least error that counts
    report_ball(lambda clip: np.roll(clip, 1, axis=0))  # each frame shows the one before
    within, copies = capsys.readouterr().out.split(" dB within it, ")
    assert float(within.split()[-1]) < 12 and float(copies.split()[0]) < 20


def test_lines_are_those_of_two_pixels_and_not_slopes() -> None:
    y, x = np.mgrid[:40, :48].astype(float)
    slope = np.repeat((100 + 2 * x - y)[None, ..., None], 3, axis=-1)
    assert np.abs(grey_lines(slope)).max() < 1e-9
    rows, columns, both = grey_lines(slope + 1.5 * ((-1) ** y)[..., None])
    assert np.allclose(np.abs(rows), 1.5)
    assert np.abs(columns).max() < 1e-9 and np.abs(both).max() < 1e-9


def test_lines_that_a_model_adds_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    report_lines(lambda clip: clip + 1.0 * ((-1) ** np.arange(clip.shape[2]))[:, None])
    assert "lines in waves: 0.58 levels, below 1.0 in 99 %" in capsys.readouterr().out


def test_frames_that_are_worse_within_a_clip_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    def grows(clip: Clip) -> Clip:
        return clip + np.where(np.arange(len(clip)) < 17, 2.55, 25.5)[:, None, None, None]

    report_later(grows, [np.full((length, 8, 8, 3), 100.0) for length in (60, 97)])
    assert capsys.readouterr().out.splitlines() == [
        "frames 33 to 48 of 2 held-out clips: 20.00 dB, 40.00 dB encoded by themselves",
        "frames 81 to 96 of 1 held-out clips: 20.00 dB, 40.00 dB encoded by themselves",
    ]
