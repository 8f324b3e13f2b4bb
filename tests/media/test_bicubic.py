"""Weights against the kernel in floating point; `test_from_planes` holds them to FFmpeg."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wfvae_cli.media.bicubic import MIDDLE, bicubic_taps

UNIT = 1 << 14


def dense(old: int, new: int, site: int = MIDDLE) -> NDArray[np.float64]:
    """Weights as a matrix, `[new, old]`."""
    positions, weights = bicubic_taps(old, new, UNIT, site)
    matrix = np.zeros((new, old))
    for tap in range(positions.shape[1]):
        np.add.at(matrix, (np.arange(new), positions[:, tap]), weights[:, tap])
    return matrix / UNIT


def exact(old: int, new: int, site: int = MIDDLE) -> NDArray[np.float64]:
    """The same from the kernel's definition, B = 0 and C = 0.6, edges repeated."""
    reach, c = max(1.0, old / new), 0.6
    around = 4 + int(2 * reach)
    samples = np.arange(-around, old + around)
    centres = (np.arange(new) + 0.5) * old / new - site / 256
    x = np.abs(samples - centres[:, None]) / reach
    near = (12 - 6 * c) * x**3 + (6 * c - 18) * x**2 + 6
    far = c * (-6 * x**3 + 30 * x**2 - 48 * x + 24)
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((new, old))
    for column, position in enumerate(np.clip(samples, 0, old - 1)):
        matrix[:, position] += weights[:, column]
    return matrix


@settings(deadline=None, max_examples=100)
@given(old=st.integers(8, 300), new=st.integers(8, 300), site=st.sampled_from([64, MIDDLE]))
def test_weights_are_those_of_the_kernel(old: int, new: int, site: int) -> None:
    centres = (np.arange(new) + 0.5) * old / new
    reach = 2.5 * max(1.0, old / new)
    within = (centres > reach) & (centres < old - reach)  # at the ends, FFmpeg's windows fall short
    # Negligible weights are left out, and steps between samples rounded to 1/65536.
    error = np.abs(dense(old, new, site) - exact(old, new, site))
    assert error[within].max(initial=0) < 0.005
    assert error.max() < 0.05


@settings(deadline=None, max_examples=100)
@given(old=st.integers(1, 2000), new=st.integers(1, 300), site=st.sampled_from([64, MIDDLE]))
def test_weights_add_up_and_stay_inside(old: int, new: int, site: int) -> None:
    positions, weights = bicubic_taps(old, new, UNIT, site)
    assert positions.shape == weights.shape
    assert np.abs(weights.sum(axis=1) - UNIT).max() <= 1
    assert positions.min() >= 0
    assert positions.max() < old


@pytest.mark.parametrize("size", [1, 9, 640])
def test_an_unscaled_line_is_itself(size: int) -> None:
    assert np.array_equal(dense(size, size), np.eye(size))
