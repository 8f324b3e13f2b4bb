import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.reference import reference_psnr
from tests.metrics.scores import ms_ssim, ssim
from wfvae_cli.errors import InputError
from wfvae_cli.metrics.clip import ClipMetrics
from wfvae_cli.metrics.pixels import Pixels
from wfvae_cli.metrics.result import ClipResult, FrameScores


def clips(frames: int, height: int = 24, width: int = 32, seed: int = 0) -> tuple[Pixels, Pixels]:
    """Uint8 THWC: noise, and the same with an error of another size in every frame."""
    rng = np.random.default_rng(seed)
    x = rng.integers(20, 230, (frames, height, width, 3), dtype=np.uint8)
    error = rng.integers(-8, 9, x.shape) * rng.integers(1, 3, (frames, 1, 1, 1))
    return x, (x + error).astype(np.uint8)


def measure(x: Pixels, y: Pixels) -> ClipResult:
    metrics = ClipMetrics()
    for original, reconstruction in zip(x, y, strict=True):
        metrics.update(original, reconstruction)
    return metrics.result()


@settings(deadline=None, max_examples=10)
@given(frames=st.integers(1, 9), seed=st.integers(0, 1000))
def test_streamed_scores_are_those_of_the_whole_clip(frames: int, seed: int) -> None:
    x, y = clips(frames, seed=seed)
    result = measure(x, y)
    psnrs = [reference_psnr(a, b) for a, b in zip(x, y, strict=True)]
    assert result.psnr == pytest.approx(np.mean(psnrs), abs=1e-4)
    assert result.psnr_mse == pytest.approx(reference_psnr(x, y), abs=1e-4)
    assert result.ssim == pytest.approx(
        np.mean([ssim(a, b) for a, b in zip(x, y, strict=True)]), abs=1e-9
    )
    assert result.worst_frame.index == int(np.argmin(psnrs))
    assert result.worst_frame.psnr == pytest.approx(min(psnrs), abs=1e-4)
    assert [frame.psnr for frame in result.per_frame] == pytest.approx(psnrs, abs=1e-4)
    assert (result.frames, result.width, result.height, result.bits) == (frames, 32, 24, 8)


def test_flicker_is_the_psnr_of_frame_differences() -> None:
    x, y = clips(5)
    dx, dy = np.diff(x.astype(float), axis=0), np.diff(y.astype(float), axis=0)
    expected = [
        -10 * math.log10(np.mean((a - b) ** 2) / 255**2) for a, b in zip(dx, dy, strict=True)
    ]
    result = measure(x, y)
    assert result.per_frame[0].flicker_psnr is None
    assert [f.flicker_psnr for f in result.per_frame[1:]] == pytest.approx(expected, abs=1e-4)
    assert result.flicker_psnr == pytest.approx(np.mean(expected), abs=1e-4)


def test_an_error_that_stays_does_not_flicker() -> None:
    x, _ = clips(4)
    result = measure(x, x + np.uint8(9))
    assert result.psnr == pytest.approx(20 * math.log10(255 / 9), abs=1e-4)
    assert result.flicker_psnr == math.inf


def test_one_frame_has_no_flicker() -> None:
    x, y = clips(1)
    assert measure(x, y).flicker_psnr is None


def test_identical_frames_are_counted_and_left_out_of_the_mean() -> None:
    x, y = clips(4)
    y[1] = x[1]
    result = measure(x, y)
    differing = [reference_psnr(x[i], y[i]) for i in (0, 2, 3)]
    assert result.identical_frames == 1
    assert result.per_frame[1].psnr == math.inf
    assert result.psnr == pytest.approx(np.mean(differing), abs=1e-4)
    assert result.psnr_mse == pytest.approx(reference_psnr(x, y), abs=1e-4)


def test_an_identical_clip_is_infinite() -> None:
    x, _ = clips(3)
    result = measure(x, x)
    assert (result.psnr, result.psnr_mse, result.flicker_psnr) == (math.inf,) * 3
    assert (result.identical_frames, result.worst_frame.index) == (3, 0)
    assert result.ssim == pytest.approx(1, abs=1e-6)


def test_small_frames_have_psnr_only() -> None:
    x, y = clips(2, height=8, width=8)
    result = measure(x, y)
    assert result.ssim is None and result.ms_ssim is None
    assert math.isfinite(result.psnr)


def test_ms_ssim_can_be_left_out() -> None:
    x, y = clips(1, height=180, width=190)
    assert measure(x, y).ms_ssim == ms_ssim(x[0], y[0])
    without = ClipMetrics(ms_ssim=False)
    assert without.update(x[0], y[0]).ms_ssim is None
    assert without.result().ssim == measure(x, y).ssim


def test_a_deeper_reconstruction_sets_the_depth() -> None:
    x, y = clips(2)
    deep = measure(x, y.astype(np.uint16) * np.uint16(257))
    assert deep.bits == 16
    assert deep.psnr == pytest.approx(measure(x, y).psnr, abs=1e-5)


def test_a_clip_whose_size_changes_is_an_error() -> None:
    metrics = ClipMetrics()
    small, large = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 20, 3), np.uint8)
    metrics.update(small, small)
    with pytest.raises(InputError, match="frame 1 is 20x16, those before it 16x16"):
        metrics.update(large, large)


def test_no_frames_are_an_error() -> None:
    with pytest.raises(InputError, match="no frames"):
        ClipMetrics().result()


def test_learned_scores_and_observers_see_every_pair() -> None:
    seen: list[FrameScores] = []

    class Observer:
        def observe(self, scores: FrameScores, original: Pixels, reconstruction: Pixels) -> None:
            assert original is x[scores.index] or np.array_equal(original, x[scores.index])
            assert np.array_equal(reconstruction, y[scores.index])
            seen.append(scores)

    def score(original: Pixels, reconstruction: Pixels) -> float | None:
        return float(reconstruction.astype(int).sum() - original.astype(int).sum())

    x, y = clips(3)
    metrics = ClipMetrics(lpips=score, observers=[Observer()])
    for original, reconstruction in zip(x, y, strict=True):
        metrics.update(original, reconstruction)
    result = metrics.result()
    assert tuple(seen) == result.per_frame
    expected = (y.astype(int) - x.astype(int)).sum(axis=(1, 2, 3))
    assert [frame.lpips for frame in result.per_frame] == expected.tolist()
    assert result.lpips == pytest.approx(expected.mean())


def test_memory_is_one_frame_whatever_the_length() -> None:
    x, y = clips(6)
    metrics = ClipMetrics()
    for original, reconstruction in zip(x, y, strict=True):
        metrics.update(original, reconstruction)
        arrays = [v for v in vars(metrics).values() if hasattr(v, "numel")]
        assert [array.numel() for array in arrays] == [24 * 32 * 3]
