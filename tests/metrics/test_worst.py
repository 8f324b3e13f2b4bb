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
        differing = sum(psnr != math.inf for psnr in psnrs[: index + 1])
        assert len(worst.worst_first()) == min(count, differing)
    frames = worst.worst_first()
    assert [frame.kept for frame in frames] == [frame.scores.index for frame in frames]
    return [frame.kept for frame in frames]


@settings(deadline=None)
@given(
    psnrs=st.lists(st.sampled_from([10.0, 20.0, 25.5, 30.0, math.inf]), max_size=80),
    count=st.integers(1, 4),
)
def test_the_worst_is_first_and_no_place_is_empty(psnrs: list[float], count: int) -> None:
    found = collect(psnrs, count)
    differing = [index for index, psnr in enumerate(psnrs) if psnr != math.inf]
    assert found[:1] == sorted(differing, key=lambda index: psnrs[index])[:1]
    assert [psnrs[index] for index in found] == sorted(psnrs[index] for index in found)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 4))
def test_the_worst_of_a_long_clip_are_apart(seed: int, count: int) -> None:
    psnrs = np.random.default_rng(seed).uniform(20, 40, 400).tolist()
    places = sorted(collect(psnrs, count))
    assert all(b - a >= 16 for a, b in itertools.pairwise(places))


def test_the_distance_that_grows_leaves_no_place_empty() -> None:
    assert collect([20.0, 21.0, math.inf, math.inf, math.inf, math.inf], 2) == [0, 1]


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
