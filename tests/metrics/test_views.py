import numpy as np
import pytest

from wfvae_cli.errors import InputError
from wfvae_cli.metrics.pixels import Pixels, deepen
from wfvae_cli.metrics.views import difference, side_by_side


def test_side_by_side_keeps_both_pictures() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, 7, 9, 3), dtype=np.uint8)
    both = side_by_side(x, y)
    assert both.shape == (7, 18, 3) and both.dtype == np.uint8
    assert np.array_equal(both[:, :9], x) and np.array_equal(both[:, 9:], y)


def test_side_by_side_of_two_depths_takes_the_deeper() -> None:
    x = np.full((4, 5, 3), 255, np.uint8)
    y = np.full((4, 5, 3), 1000, np.uint16)
    both = side_by_side(x, y)
    assert both.dtype == np.uint16
    assert (both[:, :5] == 65535).all() and (both[:, 5:] == 1000).all()


@pytest.mark.parametrize(
    ("flat", "grey"),
    [(np.full((2, 2, 3), 100, np.uint8), 128), (np.full((2, 2, 3), 100, np.uint16), 32768)],
    ids=["8 bit", "16 bit"],
)
def test_difference_is_amplified_around_grey(flat: Pixels, grey: int) -> None:
    y = flat.copy()
    y[0, 0], y[0, 1] = 103, 95
    shown = difference(flat, y, gain=4)
    assert shown.dtype == flat.dtype
    assert (shown[0, 0] == grey + 12).all() and (shown[0, 1] == grey - 20).all()
    assert (shown[1] == grey).all()


def test_large_differences_are_clamped() -> None:
    x = np.array([[[0, 255, 10]]], np.uint8)
    y = np.array([[[255, 0, 10]]], np.uint8)
    assert difference(x, y, gain=8).tolist() == [[[255, 0, 128]]]


def test_sizes_must_match() -> None:
    with pytest.raises(InputError, match="5x4"):
        side_by_side(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.uint8))


def test_deepening_is_exact_at_both_ends() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, -1, 1)
    deep = deepen(levels, 16)
    assert deep.dtype == np.uint16 and deep.min() == 0 and deep.max() == 65535
    assert np.array_equal(deep // 257, levels)
