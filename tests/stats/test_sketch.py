from __future__ import annotations

import json

import numpy as np
import pytest
from ddsketch import CubicallyInterpolatedMapping
from ddsketch.ddsketch import BaseDDSketch
from ddsketch.store import DenseStore
from hypothesis import given, settings
from hypothesis import strategies as st

from wfvae_cli.stats.sketch import (
    ACCURACY,
    BINS,
    HIGH,
    LOW,
    Histogram,
    QuantileSketch,
    bucket_keys,
)

RANKS = (0.0, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0)


@settings(deadline=None, max_examples=200)
@given(st.floats(1e-300, 1e300))
def test_keys_are_the_packages(value: float) -> None:
    assert bucket_keys(np.array([value]))[0] == CubicallyInterpolatedMapping(ACCURACY).key(value)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1), min_size=1, max_size=6))
def test_quantiles_are_within_the_accuracy(parts: list[list[float]]) -> None:
    merged = QuantileSketch.empty(1)
    for part in parts:
        sketch = QuantileSketch.empty(1)
        sketch.update(np.array([part]))
        merged.merge(sketch)
    x = np.concatenate([np.array(part) for part in parts])
    exact = np.quantile(x, RANKS, method="lower")
    found = np.array(merged.quantiles(0, RANKS))
    assert (np.abs(found - exact) <= ACCURACY * np.abs(exact) * (1 + 1e-9)).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1e4, 1e4) | st.sampled_from((0.0, 1.0, -1.0)), min_size=1))
def test_quantiles_are_the_packages(values: list[float]) -> None:
    theirs = BaseDDSketch(CubicallyInterpolatedMapping(ACCURACY), DenseStore(), DenseStore(), 0.0)
    for value in values:
        theirs.add(value)
    ours = QuantileSketch.empty(1)
    ours.update(np.array([values]))
    assert ours.quantiles(0, RANKS) == tuple(map(theirs.get_quantile_value, RANKS))


def test_order_and_grouping_give_the_same_bytes() -> None:
    x = np.random.default_rng(0).standard_cauchy((3, 4000))
    x[:, ::100] = 0
    whole, parts = QuantileSketch.empty(3), QuantileSketch.empty(3)
    whole.update(x)
    for part in reversed(np.array_split(x, 7, axis=1)):
        one = QuantileSketch.empty(3)
        one.update(part)
        parts.merge(one)
    assert json.dumps(parts.to_state()) == json.dumps(whole.to_state())
    assert whole.zeros.tolist() == [40, 40, 40]
    assert QuantileSketch.from_state(whole.to_state()).to_state() == whole.to_state()


def test_below_is_right_within_its_own_bound() -> None:
    x = np.random.default_rng(1).normal(0.5, 2, (2, 50_000))
    sketch = QuantileSketch.empty(2)
    sketch.update(x)
    limits = np.array([-100, -5.5, -1, 0, 0.1, 3.25, 6.5, 100])
    for channel in range(2):
        below, error = sketch.below(channel, limits)
        exact = (x[channel] < limits[:, None]).sum(axis=1)
        assert (np.abs(below - exact) <= error).all()
        assert error.max() < 300
        assert np.abs(below - exact).max() < 60


def test_histogram_is_numpys() -> None:
    x = np.random.default_rng(2).normal(0, 8, (3, 20_000))
    x[0, :3] = (LOW, HIGH, np.nextafter(HIGH, 0))
    whole = Histogram.empty(3)
    whole.update(x[:, :7000])
    rest = Histogram.empty(3)
    rest.update(x[:, 7000:])
    whole.merge(rest)
    edges = np.linspace(LOW, HIGH, BINS + 1)
    for channel in range(3):
        inside = x[channel][x[channel] < HIGH]  # NumPy's last bin alone includes its upper edge
        assert (whole.counts[channel, 1:-1] == np.histogram(inside, edges)[0]).all()
        assert whole.counts[channel, 0] == (x[channel] < LOW).sum()
        assert whole.counts[channel, -1] == (x[channel] >= HIGH).sum()
    assert (Histogram.from_state(whole.to_state()).counts == whole.counts).all()


def test_state_of_other_bins_is_refused() -> None:
    with pytest.raises(ValueError, match="512 bins"):
        Histogram.from_state({**Histogram.empty(1).to_state(), "bins": 100})
    with pytest.raises(ValueError, match="accuracy"):
        QuantileSketch.from_state({**QuantileSketch.empty(1).to_state(), "accuracy": 0.1})
