from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wfvae_cli.metrics.result import FrameScores
from wfvae_cli.metrics.worst import SpacedWorst

EMPTY = np.zeros((1, 1, 3), np.uint8)


def collect(psnrs: list[float], count: int) -> list[int]:
    worst = SpacedWorst(count, lambda scores, x, y: scores.index)
    for index, psnr in enumerate(psnrs):
        worst.observe(FrameScores(index, psnr), EMPTY, EMPTY)
        assert len(worst.worst_first()) <= count
    frames = worst.worst_first()
    assert [frame.kept for frame in frames] == [frame.scores.index for frame in frames]
    return [frame.kept for frame in frames]


@settings(deadline=None)
@given(
    psnrs=st.lists(st.sampled_from([10.0, 20.0, 25.5, 30.0, math.inf]), max_size=80),
    count=st.integers(1, 4),
)
def test_the_worst_is_first_and_the_rest_apart(psnrs: list[float], count: int) -> None:
    found = collect(psnrs, count)
    differing = [index for index, psnr in enumerate(psnrs) if psnr != math.inf]
    assert found[:1] == sorted(differing, key=lambda index: psnrs[index])[:1]
    assert [psnrs[index] for index in found] == sorted(psnrs[index] for index in found)
    spacing = 1
    while spacing < 16 and len(psnrs) > 2 * count * spacing:
        spacing *= 2
    places = sorted(found)
    assert all(b - a >= spacing for a, b in itertools.pairwise(places))


def test_a_short_clip_gives_as_many_as_asked_for() -> None:
    assert collect([30.0, 20.0, 25.0, math.inf, 28.0], 3) == [1, 2, 4]


def test_one_glitch_does_not_fill_all_places() -> None:
    psnrs = [35.0] * 200
    psnrs[50:60] = [12.0, 11.0, 10.0, 11.0, 12.0, 13.0, 13.0, 13.0, 13.0, 13.0]
    psnrs[150] = 20.0
    assert collect(psnrs, 2) == [52, 150]


def test_only_what_is_kept_is_made() -> None:
    made: list[int] = []
    worst = SpacedWorst(1, lambda scores, x, y: made.append(scores.index))
    for index, psnr in enumerate((30.0, 40.0, 20.0, 50.0)):
        worst.observe(FrameScores(index, psnr), EMPTY, EMPTY)
    assert made == [0, 2]
