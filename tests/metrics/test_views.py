import numpy as np
import pytest

from wfvae_cli.errors import InputError
from wfvae_cli.metrics.pixels import Pixels, deepen
from wfvae_cli.metrics.result import FrameScores
from wfvae_cli.metrics.views import (
    ERROR_SCALE,
    Box,
    difference,
    error_colours,
    error_map,
    luminance_error,
    side_by_side,
    worst_box,
)


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_scores_are_written_into_the_corners_of_both_sides(dtype: type) -> None:
    x = np.full((120, 320, 3), 40, np.uint8)
    pair = (x, x) if dtype == np.uint8 else (deepen(x, 16), x)
    both = side_by_side(*pair, scores=FrameScores(7, 31.25))
    assert both.dtype == dtype and both.shape == (120, 640, 3)
    unit = np.iinfo(dtype).max // 255
    changed = (both != 40 * unit).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.max() < 30  # the rest of the picture is as it was
    assert both.max() // unit > 200 and not changed[:, 319].any()  # bright letters, dark strip
    assert both[0, 0, 0] // unit == 24
    assert columns[columns < 320].min() == 0 and columns[columns >= 320].min() == 320
    other = side_by_side(*pair, scores=FrameScores(8, 31.25))
    assert (both[:, :320] != other[:, :320]).any() and (both[:, 320:] == other[:, 320:]).all()


def test_captions_that_do_not_fit_are_cut() -> None:
    x = np.full((6, 20, 3), 40, np.uint8)
    assert side_by_side(x, x, scores=FrameScores(0, 30.0)).shape == (6, 40, 3)


def test_luminance_errors_are_in_eight_bit_levels() -> None:
    x = np.full((2, 3, 3), 100, np.uint8)
    y = x.copy()
    y[0, 0] = 90
    y[1, 1] = (110, 100, 100)
    error = luminance_error(x, y)
    assert error == pytest.approx(np.array([[10, 0, 0], [0, 2.126, 0]]), abs=1e-4)
    deep = luminance_error(deepen(x, 16), deepen(y, 16))
    assert deep == pytest.approx(error, abs=1e-4)


def test_error_maps_go_from_dark_to_bright_and_stop() -> None:
    errors = np.array([[0, ERROR_SCALE / 2, ERROR_SCALE, 200]], np.float32)
    picture = error_map(errors)
    brightness = picture.sum(axis=2)[0].tolist()
    assert brightness[0] < 10 < brightness[1] < brightness[2] == brightness[3]
    ramp = error_colours(64, 3)
    assert ramp.shape == (3, 64, 3)
    assert (np.diff(ramp[0].astype(int).sum(axis=1)) >= 0).all()
    assert (ramp[0, [0, -1]] == picture[0, [0, 2]]).all()


def test_the_worst_box_holds_the_error_and_stays_inside() -> None:
    error = np.zeros((40, 60), np.float32)
    error[36:40, 50:60] = 5
    box = worst_box(error, 16)
    assert box.of(error[..., None].astype(np.uint8)).shape == (16, 16, 1)
    assert box.top + box.height <= 40 and box.left + box.width <= 60
    assert error[36:40, 50:60].sum() == box.of(error[..., None].astype(np.uint8)).sum()
    assert worst_box(error, 100) == Box(0, 0, 40, 60)
