from typing import Literal

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wfvae_cli.media import frames, yuv
from wfvae_cli.media.clip import Chroma

Floats = NDArray[np.float64]


def reference(
    pixels: yuv.Pixels,
    matrix: str,
    range_: str,
    bits: int,
    site: str,
    across: int,
    down: int,
) -> list[Floats]:
    """Y, Cb, Cr before rounding, straight from ITU-T H.273, equations 25 to 40."""
    kr, kb = yuv.LUMA_WEIGHTS[matrix]
    rgb = pixels.astype(np.float64) / (255 if pixels.dtype == np.uint8 else 65535)
    luma = rgb @ np.array([kr, 1 - kr - kb, kb])
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * kb), (rgb[..., 0] - luma) / (2 - 2 * kr)]
    for i, plane in enumerate(chroma):
        if down == 2:
            plane = (plane[::2] + plane[1::2]) / 2
        if across == 2 and site == "centre":
            plane = (plane[:, ::2] + plane[:, 1::2]) / 2
        elif across == 2:
            padded = np.pad(plane, ((0, 0), (1, 1)), "edge")
            plane = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:])[:, ::2] / 4
        chroma[i] = plane
    unit, peak = 2.0 ** (bits - 8), 2.0**bits - 1
    if range_ == "tv":
        return [luma * 219 * unit + 16 * unit, *(c * 224 * unit + 128 * unit for c in chroma)]
    return [luma * peak, *(np.minimum(c * peak + 128 * unit, peak) for c in chroma)]


def planes(frame: av.VideoFrame) -> list[Floats]:
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    return [
        np.frombuffer(bytes(plane), dtype)
        .reshape(plane.height, -1)[:, : plane.width]
        .astype(np.float64)
        for plane in frame.planes
    ]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("range_", ["tv", "pc"])
@pytest.mark.parametrize("chroma", ["left", "centre"])
@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le", "gray"]
)
def test_rounds_the_exact_value(
    pix_fmt: str, matrix: str, range_: Literal["tv", "pc"], chroma: Chroma, deep: bool
) -> None:
    factors = yuv.subsampling(pix_fmt)
    rng = np.random.default_rng(0)
    pixels: yuv.Pixels = (
        rng.integers(0, 65536, (16, 24, 3), dtype=np.uint16)
        if deep
        else rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    )
    pixels[:8] = 0  # black, white and the primaries too, whose chroma reaches the ends
    for rows, channel in ((slice(0, 2), 0), (slice(2, 4), 1), (slice(4, 6), 2)):
        pixels[rows, :, channel] = np.iinfo(pixels.dtype).max
    pixels[6] = np.iinfo(pixels.dtype).max
    frame = frames.convert(pixels, yuv.PictureFormat(pix_fmt, matrix, range_, chroma))
    expected = reference(pixels, matrix, range_, yuv.depth(pix_fmt), chroma, *factors)
    for got, exact in zip(planes(frame), expected, strict=False):
        assert got.shape == exact.shape
        assert np.abs(got - exact).max() <= 0.51


@pytest.mark.parametrize("pix_fmt", ["bgr0", "gbrp", "rgb24"])
def test_rgb_keeps_8_bits(pix_fmt: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    back = frames.convert(pixels, yuv.PictureFormat(pix_fmt)).to_ndarray(format="rgb24")
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize("pix_fmt", ["gbrp16le", "rgb48le"])
def test_rgb_keeps_16_bits(pix_fmt: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (7, 9, 3), dtype=np.uint16)
    back = frames.convert(pixels, yuv.PictureFormat(pix_fmt)).to_ndarray(format="rgb48le")
    np.testing.assert_array_equal(back, pixels)


@given(st.integers(0, 65535), st.sampled_from([8, 9, 10, 12, 14, 16]))
@settings(deadline=None, max_examples=60)
def test_rescale_rounds(value: int, bits: int) -> None:
    got = frames.rescale(np.full((1, 1, 3), value, np.uint16), bits)
    assert abs(float(got[0, 0, 0]) - value * (2**bits - 1) / 65535) <= 0.5


def test_rescale_inverts() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(frames.rescale(frames.rescale(levels, 16), 8), levels)


def test_formats_that_are_not_made() -> None:
    assert not any(map(yuv.is_supported, ("nv12", "yuva420p", "yuv420p10be", "gbrpf32le", "pal8")))
    assert all(map(yuv.is_supported, ("yuv420p", "yuv444p10le", "gbrp16le", "bgr0", "gray")))


def test_equal_to_the_last_bit_on_a_strided_view() -> None:
    whole = np.random.default_rng(0).integers(0, 256, (16, 48, 3), dtype=np.uint8)
    view = whole[:, ::2]
    a, b = (frames.convert(each, yuv.PictureFormat("yuv420p")) for each in (view, view.copy()))
    for left, right in zip(planes(a), planes(b), strict=True):
        np.testing.assert_array_equal(left, right)
