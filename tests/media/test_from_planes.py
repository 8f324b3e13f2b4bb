"""What a device makes of decoded planes, against FFmpeg's own pixels: equal, not near."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.media.conftest import MakeClip
from wfvae_cli.media import from_planes
from wfvae_cli.media.clip import Chroma, Colour, Frame
from wfvae_cli.media.filters import Converter
from wfvae_cli.media.frames import planes_of
from wfvae_cli.media.from_planes import find_conversion
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.media.sampling import Orientation, plan_geometry
from wfvae_cli.media.yuv import LUMA_WEIGHTS

FORMATS = ("yuv420p", "yuv422p", "yuv440p", "yuv444p", "nv12")
UPRIGHT, ALL = Orientation(), Sampling()


def noise(fmt: str, width: int, height: int) -> VideoFrame:
    """Every value of every sample, in or out of limited range."""
    frame = VideoFrame(width, height, fmt)
    random = np.random.default_rng(width * height)
    for plane in frame.planes:
        plane.update(random.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    return frame


def converter(
    frame: VideoFrame,
    colour: Colour | None = None,
    orientation: Orientation = UPRIGHT,
    sampling: Sampling = ALL,
) -> Converter:
    geometry = plan_geometry(frame.width, frame.height, Fraction(1), orientation, sampling)
    return Converter(8, colour or Colour(), geometry)


def assert_equal(frame: VideoFrame, convert: Converter) -> None:
    conversion = find_conversion(frame, convert)
    assert conversion is not None
    wanted = convert(frame)
    assert conversion.size == wanted.shape[1::-1]
    np.testing.assert_array_equal(conversion.on_host(planes_of(frame)), wanted)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("chroma", ["left", "centre"])
@pytest.mark.parametrize("value_range", ["tv", "pc"])
@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
def test_every_colour(
    fmt: str, chroma: Chroma, value_range: Literal["tv", "pc"], matrix: str
) -> None:
    frame = noise(fmt, 64, 48)
    assert_equal(frame, converter(frame, Colour(matrix, value_range, chroma=chroma)))


def test_full_range_by_name() -> None:
    frame = noise("yuvj420p", 64, 48)
    assert_equal(frame, converter(frame, Colour("smpte170m", "pc")))
    assert find_conversion(frame, converter(frame, Colour("smpte170m", "tv"))) is None


@settings(deadline=None, max_examples=60)
@given(
    fmt=st.sampled_from(FORMATS),
    old=st.tuples(st.integers(8, 200), st.integers(8, 200)),
    new=st.tuples(st.integers(7, 200), st.integers(7, 200)),
    fit=st.sampled_from(["crop", "pad", "stretch"]),
    turn=st.builds(Orientation, st.booleans(), st.booleans(), st.booleans()),
    chroma=st.sampled_from(["left", "centre"]),
)
def test_every_geometry(
    fmt: str,
    old: tuple[int, int],
    new: tuple[int, int],
    fit: Literal["crop", "pad", "stretch"],
    turn: Orientation,
    chroma: Chroma,
) -> None:
    frame = noise(fmt, *old)
    convert = converter(frame, Colour(chroma=chroma), turn, Sampling(size=new, fit=fit))
    assume(min(convert.geometry.scaled) >= 7)  # fitted in, a ribbon's width may nearly vanish
    assert_equal(frame, convert)


@pytest.mark.parametrize(
    ("old", "new"),
    [((1920, 1080), (456, 256)), ((1920, 1080), (256, 256)), ((1280, 720), (1920, 1080))],
)
def test_sizes_of_real_videos(old: tuple[int, int], new: tuple[int, int]) -> None:
    frame = noise("yuv420p", *old)
    assert_equal(frame, converter(frame, sampling=Sampling(size=new)))


@pytest.mark.parametrize("fmt", ["yuv420p10le", "yuva420p", "rgb24", "gray", "yuyv422"])
def test_other_formats_are_left_to_ffmpeg(fmt: str) -> None:
    frame = noise(fmt, 64, 48)
    assert find_conversion(frame, converter(frame)) is None


@pytest.mark.parametrize(("old", "new"), [((64, 6), (64, 6)), ((1056, 64), (32, 64))])
def test_extreme_sizes_are_left_to_ffmpeg(old: tuple[int, int], new: tuple[int, int]) -> None:
    frame = noise("yuv420p", *old)
    convert = converter(frame, sampling=Sampling(size=new, fit="stretch"))
    assert find_conversion(frame, convert) is None


def test_an_ffmpeg_that_rounds_otherwise_goes_on_converting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(from_planes, "_coefficients", lambda colour: (9539, 8192, 1, 2, 3, 4))
    from_planes._rounds_like_ffmpeg.cache_clear()
    frame = noise("yuv420p", 64, 48)
    try:
        with caplog.at_level(logging.WARNING, "wfvae"):
            assert find_conversion(frame, converter(frame)) is None
        assert "converting on the CPU" in caplog.text
    finally:
        from_planes._rounds_like_ffmpeg.cache_clear()


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("libx264", "yuv420p"), ("mjpeg", "yuvj422p"), ("ffv1", "yuv420p10le")]
)
@pytest.mark.parametrize(
    "sampling", [ALL, Sampling(short_side=24), Sampling(start=0.1, fps=Fraction(40), frames=12)]
)
def test_a_reader_leaves_what_a_device_can_do(
    make_clip: MakeClip, codec: str, pix_fmt: str, sampling: Sampling
) -> None:
    clip = make_clip("a.mkv", 10, codec=codec, pix_fmt=pix_fmt)
    with open_clip(clip, sampling) as reader:
        wanted = list(reader)
    with open_clip(clip, sampling) as reader:
        reader.leave_conversion()
        left = list(reader)

    assert [frame.pts for frame in left] == [frame.pts for frame in wanted]
    for frame, same in zip(left, wanted, strict=True):
        assert (frame.conversion is not None) == (codec != "ffv1")
        np.testing.assert_array_equal(frame.in_rgb(), same.pixels)


def test_frames_of_another_size_do_not_fit() -> None:
    frame = noise("yuv420p", 64, 48)
    conversion = find_conversion(frame, converter(frame))
    assert conversion is not None
    assert conversion.fits(noise("yuv420p", 64, 48))
    assert not conversion.fits(noise("yuv420p", 48, 64))
    assert not conversion.fits(noise("yuv444p", 64, 48))


def test_padding_of_rows_is_left_out() -> None:
    frame = noise("yuv420p", 50, 38)  # whose planes FFmpeg pads
    planes = planes_of(frame)
    assert planes.shape == (50 * 38 + 2 * 25 * 19,)
    assert torch.from_numpy(planes).is_contiguous()
    first = np.frombuffer(memoryview(frame.planes[0]), np.uint8)
    assert (planes[50:100] == first[frame.planes[0].line_size :][:50]).all()
    assert Frame(planes, 0).in_rgb() is planes
