import io
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.metrics.reference import photographs, reference_psnr, reference_ssim
from tests.metrics.scores import ms_ssim, psnr, ssim
from wfvae_cli.errors import InputError
from wfvae_cli.metrics import image
from wfvae_cli.metrics.image import MS_SSIM_SIDE, SCALE_WEIGHTS
from wfvae_cli.metrics.pixels import Pixels


def compressed(pixels: Pixels, quality: int = 20) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("name", ["astronaut", "cat", "hubble"])
@pytest.mark.parametrize("deep", [False, True])
def test_agrees_with_scikit_image_on_photographs(name: str, deep: bool) -> None:
    x: Pixels = photographs()[name]
    y: Pixels = compressed(x)
    if deep:
        noise = np.random.default_rng(0).integers(0, 257, x.shape, dtype=np.uint16)
        x, y = x.astype(np.uint16) * 256 + noise, y.astype(np.uint16) * 257
    measured = ssim(x, y)
    assert measured == pytest.approx(
        reference_ssim(x, y, data_range=np.iinfo(x.dtype).max), abs=1e-4
    )
    assert measured is not None and measured < 0.98
    assert psnr(x, y) == pytest.approx(reference_psnr(x, y), abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(11, 70),
    width=st.integers(11, 70),
    seed=st.integers(0, 2**32 - 1),
    spread=st.integers(1, 120),
)
def test_agrees_with_scikit_image_for_every_size(
    height: int, width: int, seed: int, spread: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    y = np.clip(x + rng.normal(0, spread, x.shape), 0, 255).astype(np.uint8)
    assert ssim(x, y) == pytest.approx(
        reference_ssim(x, y, data_range=np.iinfo(x.dtype).max), abs=1e-4
    )


def reference_ms_ssim(x: Pixels, y: Pixels) -> float:
    """Per channel from scikit-image in float64; a huge K1 leaves the contrast-structure term."""
    products = []
    for channel in range(3):
        a, b = x[..., channel].astype(float), y[..., channel].astype(float)
        product = 1.0
        for scale, weight in enumerate(SCALE_WEIGHTS):
            if scale:
                h, w = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
                a, b = (p[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3)) for p in (a, b))
            last = scale == len(SCALE_WEIGHTS) - 1
            factor = reference_ssim(
                a, b, data_range=255, channel_axis=None, k1=0.01 if last else 1e6
            )
            product *= factor**weight
        products.append(product)
    return float(np.mean(products))


@pytest.mark.parametrize("name", ["astronaut", "cat"])
def test_ms_ssim_agrees_with_one_built_on_scikit_image(name: str) -> None:
    x = photographs()[name][:301, :411]
    y = compressed(x, quality=5)
    measured = ms_ssim(x, y)
    assert measured == pytest.approx(reference_ms_ssim(x, y), abs=1e-4)
    assert measured is not None and measured < 0.98


def test_ms_ssim_of_pictures_that_contradict_each_other_is_zero() -> None:
    x = np.random.default_rng(0).integers(0, 256, (180, 180, 3), dtype=np.uint8)
    assert ms_ssim(x, 255 - x) == 0


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = photographs()["astronaut"][:201, :303]
    y = compressed(x)
    pair = image.planes(x, y)
    monkeypatch.setattr(image, "_BAND_PIXELS", 1 << 30)
    whole = image.structure(pair, multiscale=True)
    monkeypatch.setattr(image, "_BAND_PIXELS", 303 * 7)
    assert image.structure(pair, multiscale=True) == pytest.approx(whole, abs=1e-6)


def test_identical_pictures() -> None:
    x = photographs()["cat"]
    assert psnr(x, x) == math.inf
    assert ssim(x, x) == pytest.approx(1, abs=1e-6)
    assert ms_ssim(x, x) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "has_ssim", "has_ms_ssim"),
    [
        ((10, 200), False, False),
        ((11, 11), True, False),
        ((MS_SSIM_SIDE - 1, 300), True, False),
        ((MS_SSIM_SIDE, MS_SSIM_SIDE), True, True),
    ],
)
def test_small_pictures_have_no_window(
    shape: tuple[int, int], has_ssim: bool, has_ms_ssim: bool
) -> None:
    x = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    y = compressed(x)
    assert (ssim(x, y) is not None) == has_ssim
    assert (ms_ssim(x, y) is not None) == has_ms_ssim
    assert psnr(x, y) == pytest.approx(reference_psnr(x, y), abs=1e-4)


def test_depths_are_compared_over_the_deeper_range() -> None:
    x = photographs()["cat"]
    y = compressed(x)
    deep = y.astype(np.uint16) * np.uint16(257)
    assert psnr(x, deep) == pytest.approx(psnr(x, y), abs=1e-6)
    assert ssim(deep, x) == pytest.approx(ssim(y, x), abs=1e-6)
    one_off = deep + (deep < 65535).astype(np.uint16)
    assert psnr(y, one_off) > 96  # a 16-bit step, which 8 bits would not show


def test_sizes_that_differ_are_an_error_that_names_both() -> None:
    x = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(InputError, match=r"original is 30x20 .* reconstruction 40x20"):
        psnr(x, np.zeros((20, 40, 3), np.uint8))


@pytest.mark.parametrize("bad", [np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3), np.float32)])
def test_what_is_no_picture_is_an_error(bad: Pixels) -> None:
    with pytest.raises(InputError, match="expected the reconstruction as HWC RGB"):
        ssim(np.zeros((20, 30, 3), np.uint8), bad)


def test_views_that_cannot_be_written_are_taken_without_a_warning() -> None:
    x = photographs()["cat"]
    flipped = x[:, ::-1]
    flipped.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert psnr(flipped, flipped) == math.inf
        assert psnr(flipped, x) < 20
