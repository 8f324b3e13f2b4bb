from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfvae_cli.stats.moments import Moments


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
