from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfvae_cli.stats.accumulate import LatentStats
from wfvae_cli.stats.moments import MIN_CLIPS, ClipSpread, Moments, student_t95


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    offset=st.sampled_from([0.0, 3.0, -1e4]),
    order=st.randoms(use_true_random=False),
)
def test_merged_in_any_order_equals_numpy(lengths: list[int], offset: float, order) -> None:  # type: ignore[no-untyped-def]  # hypothesis' Random
    rng = np.random.default_rng(sum(lengths))
    parts = [rng.gamma(2, size=(3, n)) + offset for n in lengths]
    pool = [Moments.of(part) for part in parts]
    while len(pool) > 1:  # any binary tree over any permutation
        order.shuffle(pool)
        pool.append(pool.pop().merged(pool.pop()))
    (m,) = pool
    x = np.concatenate(parts, axis=1)
    deviation = x - x.mean(axis=1, keepdims=True)
    floor = 1e-9 * (1 if offset > -1 else 100)
    assert m.count == x.shape[1]
    np.testing.assert_allclose(m.mean, x.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(m.comoment, deviation @ deviation.T, rtol=1e-9, atol=floor)
    np.testing.assert_allclose(m.third, (deviation**3).sum(axis=1), rtol=1e-9, atol=floor)
    np.testing.assert_allclose(m.fourth, (deviation**4).sum(axis=1), rtol=1e-9, atol=floor)
    assert (m.minimum == x.min(axis=1)).all()
    assert (m.maximum == x.max(axis=1)).all()


def test_a_mean_far_from_zero_does_not_cancel_the_variance() -> None:
    x = np.array([[1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 6]])
    merged = Moments.of(x[:, :1]).merged(Moments.of(x[:, 1:]))
    assert merged.square[0] == pytest.approx(14, rel=1e-6)  # the mean itself has 17 digits
    assert Moments.of(x).square[0] == pytest.approx(14, rel=1e-12)


def test_state_round_trips_exactly() -> None:
    m = Moments.of(np.random.default_rng(0).normal(size=(5, 9)))
    again = Moments.from_state(m.to_state())
    assert again.count == m.count
    for name in ("mean", "comoment", "third", "fourth", "minimum", "maximum"):
        assert np.array_equal(getattr(again, name), getattr(m, name)), name


def _clips(rng: np.random.Generator, clips: int) -> LatentStats:
    """Clips of various lengths that differ in mean and spread far more than their latents do."""
    stats = LatentStats()
    for k in range(clips):
        shape = (2, int(rng.integers(1, 5)), 4, 4)
        centre = rng.normal(10, 1, (2, 1, 1, 1))
        x = centre + rng.uniform(0.5, 2, (2, 1, 1, 1)) * rng.normal(size=shape)
        stats.add_clip(str(k), [(x, None)])
    return stats


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(7)
    # Var = E[spread^2] + Var(centre) for spreads uniform on [0.5, 2].
    true_std = math.sqrt((2**3 - 0.5**3) / 3 / 1.5 + 1)
    runs, hits = 150, np.zeros(2)
    for _ in range(runs):
        stats = _clips(rng, 40)
        p = stats.precision()
        std = np.sqrt(stats.moments.square / stats.moments.count)
        hits[0] += (np.abs(stats.moments.mean - 10) <= np.array(p.mean) * std).sum()
        hits[1] += (np.abs(std - true_std) <= np.array(p.std) * std).sum()
    coverage = hits / (2 * runs)
    assert 0.91 <= coverage[0] <= 0.985
    assert 0.91 <= coverage[1] <= 0.985


def test_formula_is_the_ratio_estimators() -> None:
    rng = np.random.default_rng(3)
    clips = [rng.normal(3, 2, int(n)) + rng.normal() for n in rng.integers(5, 40, 25)]
    stats = LatentStats()
    for k, clip in enumerate(clips):
        stats.add_clip(str(k), [(clip.reshape(1, 1, 1, -1), None)])
    x = np.concatenate(clips)
    u = [clip.sum() - x.mean() * len(clip) for clip in clips]
    v = [((clip - x.mean()) ** 2).sum() - x.var() * len(clip) for clip in clips]
    factor = student_t95(24) * math.sqrt(25 / 24) / len(x)
    p = stats.precision()
    assert p.mean[0] == pytest.approx(factor * np.linalg.norm(u) / x.std(), rel=1e-9)
    assert p.std[0] == pytest.approx(factor * np.linalg.norm(v) / (2 * x.var()), rel=1e-9)
    assert p.worst == max(p.mean[0], p.std[0])


def test_merging_changes_nothing_but_rounding() -> None:
    rng = np.random.default_rng(5)
    whole = _clips(rng, 30)
    rng = np.random.default_rng(5)
    a, b = _clips(rng, 11), _clips(rng, 19)
    b.merge(a)
    assert b.precision().mean == pytest.approx(whole.precision().mean, rel=1e-9)
    assert b.precision().std == pytest.approx(whole.precision().std, rel=1e-9)


def test_too_few_clips_know_nothing() -> None:
    rng = np.random.default_rng(0)
    assert _clips(rng, MIN_CLIPS - 1).precision().worst == math.inf
    assert _clips(rng, MIN_CLIPS).precision().worst < math.inf
    assert LatentStats().precision().worst == math.inf


@pytest.mark.parametrize(("freedom", "value"), [(9, 2.262157), (29, 2.045230), (999, 1.962341)])
def test_student_t(freedom: int, value: float) -> None:
    assert student_t95(freedom) == pytest.approx(value, abs=1e-4)


def test_the_state_of_a_spread_round_trips_exactly() -> None:
    spread = _clips(np.random.default_rng(1), 12)._spread
    assert spread is not None
    again = ClipSpread.from_state(spread.to_state())
    assert again.clips == 12
    assert np.array_equal(again.products, spread.products)
    assert np.array_equal(again.mean, spread.mean)
