"""Colours against an independent conversion in floating point, and geometry pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from wfvae_cli.media.clip import Chroma, Colour
from wfvae_cli.media.filters import (
    Converter,
    Cropper,
    Deinterlacer,
    Pixels,
    _filtering,
    _format,
    _scale,
    build_graph,
    over_black,
)
from wfvae_cli.media.frames import convert as to_yuv
from wfvae_cli.media.headers import Crop
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.sampling import Orientation, plan_geometry
from wfvae_cli.media.yuv import PictureFormat

Range = Literal["tv", "pc"]
RGB, UPRIGHT, ALL = Colour("gbr", "pc"), Orientation(), Sampling()
KR_KB = {  # ITU-T H.273, table 4
    "bt709": (0.2126, 0.0722),
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}


def frame_of(fmt: str, planes: Sequence[NDArray[Any]]) -> VideoFrame:
    """A frame of planar format `fmt`."""
    height, width = planes[0].shape
    frame = VideoFrame(width, height, fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        rows[:, : values.shape[1]] = values
        plane.update(rows.tobytes())
    return frame


def reference(
    planes: Sequence[NDArray[Any]], bits: int, matrix: str, value_range: Range
) -> NDArray[np.float64]:
    """HWC RGB in 0..1 from full-size Y, Cb and Cr (ITU-T H.273, equations 1 to 54)."""
    kr, kb = KR_KB[matrix]
    y, cb, cr = (plane.astype(np.float64) for plane in planes)
    unit, top, middle = 2.0 ** (bits - 8), 2.0**bits - 1, 2.0 ** (bits - 1)
    if value_range == "tv":
        y, cb, cr = (y / unit - 16) / 219, (cb - middle) / unit / 224, (cr - middle) / unit / 224
    else:
        y, cb, cr = y / top, (cb - middle) / top, (cr - middle) / top
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 1)


def converter(
    width: int,
    height: int,
    bits: Literal[8, 16] = 8,
    colour: Colour = RGB,
    orientation: Orientation = UPRIGHT,
    sampling: Sampling = ALL,
) -> Converter:
    plan = plan_geometry(width, height, Fraction(1), orientation, sampling)
    return Converter(bits, colour, plan)


def picture(width: int = 24, height: int = 16, dtype: type = np.uint8) -> NDArray[Any]:
    """Random HWC RGB."""
    generator = np.random.default_rng(3)
    return generator.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("value_range", ["tv", "pc"])
@pytest.mark.parametrize("matrix", KR_KB)
def test_yuv_becomes_the_right_rgb(bits: int, value_range: Range, matrix: str) -> None:
    generator = np.random.default_rng(bits)
    unit, top = 1 << (bits - 8), (1 << bits) - 1
    low, high = (16 * unit, 235 * unit) if value_range == "tv" else (0, top)
    dtype = np.uint8 if bits == 8 else np.uint16
    planes = [generator.integers(low, high, (40, 56), dtype, endpoint=True) for _ in range(3)]
    planes[1][:2] = planes[2][:2] = 128 * unit
    planes[0][0], planes[0][1] = low, high
    fmt = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
    convert = converter(56, 40, 8 if bits == 8 else 16, Colour(matrix, value_range))

    pixels = convert(frame_of(fmt, planes))

    assert pixels.dtype == dtype
    largest = np.iinfo(pixels.dtype).max
    assert np.all(pixels[0] == 0)
    assert np.all(pixels[1] == largest)
    # In code values of the source, or of the output where that is coarser.
    error = np.abs(pixels / largest - reference(planes, bits, matrix, value_range)).max() * top
    assert error <= (0.6 if bits < 16 else 6)


@pytest.mark.parametrize(
    ("fmt", "across", "down"),
    [("yuv420p", 2, 2), ("yuv422p", 2, 1), ("yuv444p", 1, 1), ("yuv410p", 4, 4)],
)
def test_any_chroma_subsampling(fmt: str, across: int, down: int) -> None:
    y = np.random.default_rng(0).integers(16, 235, (32, 48), np.uint8)
    chroma = [np.full((32 // down, 48 // across), value, np.uint8) for value in (90, 170)]
    pixels = converter(48, 32, 8, Colour("bt709", "tv"))(frame_of(fmt, [y, *chroma]))
    full = [y, np.full_like(y, 90), np.full_like(y, 170)]
    assert np.abs(pixels / 255 - reference(full, 8, "bt709", "tv")).max() * 255 <= 1


def test_chroma_is_interpolated_not_repeated() -> None:
    y = np.full((16, 16), 128, np.uint8)
    ramp = np.repeat(np.linspace(60, 200, 8).astype(np.uint8)[None], 8, axis=0)
    flat = np.full((8, 8), 128, np.uint8)
    pixels = converter(16, 16, 8, Colour("bt709", "tv"))(frame_of("yuv420p", [y, ramp, flat]))
    blue = pixels[8, 2:-2, 2].astype(int)
    assert len(set(blue)) > 8


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv422p", "nv12", "yuv420p10le"])
@pytest.mark.parametrize(("site", "shift"), [("left", 0.0), ("centre", 0.5)])
def test_chroma_is_read_where_it_lies(fmt: str, site: Chroma, shift: float) -> None:
    """A ramp of chroma over the columns, whose samples are on every other one, plus `shift`."""
    deep = fmt.endswith("le")
    ramp = np.arange(32) * 2 + 90
    down = 1 if "422" in fmt else 2
    chroma = np.repeat(ramp[None], 32 // down, axis=0) << 2 * deep
    luma = np.full((32, 64), 126 << 2 * deep, chroma.dtype)
    flat = np.full_like(chroma, 128 << 2 * deep)
    planes = [luma, chroma, flat]
    if fmt == "nv12":
        planes = [luma, np.stack([chroma, flat], axis=-1).reshape(16, 64)]
    stored = [plane.astype(np.uint16 if deep else np.uint8) for plane in planes]
    convert = converter(64, 32, 16 if deep else 8, Colour("bt709", "tv", chroma=site))
    pixels = convert(frame_of(fmt, stored)) / (65535 if deep else 255)
    blue = (np.arange(64) - shift) + 90
    full = [luma >> 2 * deep, np.tile(blue, (32, 1)), np.full((32, 64), 128)]
    error = np.abs(pixels - reference(full, 8, "bt709", "tv"))[:, 4:-4] * 255
    assert error.max() <= 1
    assert error[..., 2].mean() < 0.4  # half a pixel is 1.06


def test_what_is_written_is_read_where_it_was() -> None:
    """A subsampled picture keeps its chroma in place, however often it is stored."""
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    waves = [128 + 100 * np.sin((x + 2 * y) / (7 + channel)) for channel in range(3)]
    once = np.stack(waves, axis=-1).round().astype(np.uint8)
    pixels: Pixels = once
    for _ in range(8):
        pixels = converter(64, 48, 8, Colour())(to_yuv(pixels, PictureFormat("yuv420p")))
    middle = (slice(8, -8), slice(8, -8))
    shifted = [
        np.square(pixels[middle] - np.roll(once, by, axis=1)[middle].astype(float)).mean()
        for by in (-1, 0, 1)
    ]
    assert shifted[1] < shifted[0] / 4
    assert shifted[1] < shifted[2] / 4


@pytest.mark.parametrize(
    ("fmt", "bits", "planes"),
    [
        ("gray", 8, 1),
        ("gray10le", 10, 1),
        ("gray12le", 12, 1),
        ("gray16le", 16, 1),
        ("gbrp", 8, 3),
        ("gbrp10le", 10, 3),
        ("gbrp12le", 12, 3),
        ("gbrp16le", 16, 3),
    ],
)
@pytest.mark.parametrize("value_range", ["tv", "pc"])
def test_grey_and_rgb_fill_the_range(fmt: str, bits: int, planes: int, value_range: Range) -> None:
    unit, top = 1 << (bits - 8), (1 << bits) - 1
    low, high = (16 * unit, 235 * unit) if value_range == "tv" else (0, top)
    ramp = np.linspace(low, high, 256).round()[None].repeat(8, axis=0)
    values = ramp.astype(np.uint8 if bits == 8 else np.uint16)
    convert = converter(256, 8, 8 if bits == 8 else 16, Colour("gbr", value_range))
    pixels = convert(frame_of(fmt, [values] * planes))
    largest = np.iinfo(pixels.dtype).max
    expected = (values.astype(float) - low) / (high - low)
    assert (pixels.min(), pixels.max()) == (0, largest)
    assert np.abs(pixels[..., 0] / largest - expected).max() * top <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rgb_passes_unchanged(dtype: type) -> None:
    pixels = picture(dtype=dtype)
    fmt = "rgb24" if dtype is np.uint8 else "rgb48le"
    convert = converter(24, 16, 8 if dtype is np.uint8 else 16)
    assert np.array_equal(convert(VideoFrame.from_ndarray(pixels, format=fmt)), pixels)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_orientations(transpose: bool, hflip: bool, vflip: bool, dtype: type) -> None:
    pixels = picture(dtype=dtype)
    expected = pixels.swapaxes(0, 1) if transpose else pixels
    expected = expected[:, ::-1] if hflip else expected
    expected = expected[::-1] if vflip else expected
    orientation = Orientation(transpose, hflip, vflip)
    fmt = "rgb24" if dtype is np.uint8 else "rgb48le"
    convert = converter(24, 16, 8 if dtype is np.uint8 else 16, orientation=orientation)
    assert np.array_equal(convert(VideoFrame.from_ndarray(pixels, format=fmt)), expected)


def test_crop_takes_the_middle() -> None:
    pixels = picture(30, 16)
    convert = converter(30, 16, sampling=Sampling(size=(16, 16)))
    got = convert(VideoFrame.from_ndarray(pixels, format="rgb24"))
    assert np.array_equal(got, pixels[:, 7:23])


@pytest.mark.parametrize("turned", [False, True])
def test_pad_centres_on_black(turned: bool) -> None:
    pixels = picture(16, 16)
    convert = converter(
        16,
        16,
        orientation=Orientation(transpose=turned),
        sampling=Sampling(size=(22, 16), fit="pad"),
    )
    got = convert(VideoFrame.from_ndarray(pixels, format="rgb24"))
    inside = pixels.swapaxes(0, 1) if turned else pixels
    assert np.array_equal(got[:, 3:19], inside)
    assert not got[:, :3].any()
    assert not got[:, 19:].any()


def test_scaling_down_averages() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    convert = converter(64, 64, sampling=Sampling(size=(16, 16)))
    got = convert(VideoFrame.from_ndarray(stripes, format="rgb24"))
    assert np.abs(got[2:-2, 2:-2].astype(int) - 128).max() <= 3


@pytest.mark.parametrize(
    ("fmt", "bits"),
    [("yuva420p", 8), ("yuva444p10le", 10), ("gbrap", 8), ("gbrap12le", 12)],
)
def test_alpha_is_composited_onto_black(fmt: str, bits: int) -> None:
    top, unit = (1 << bits) - 1, 1 << (bits - 8)
    dtype = np.uint8 if bits == 8 else np.uint16
    alpha = np.linspace(0, top, 64).round().astype(dtype)[None].repeat(16, axis=0)
    white = np.full_like(alpha, top if fmt.startswith("gb") else 235 * unit)
    middle = np.full((16, 64) if "420" not in fmt else (8, 32), 128 * unit, dtype)
    colours = [white] * 3 if fmt.startswith("gb") else [white, middle, middle]
    value_range: Range = "pc" if fmt.startswith("gb") else "tv"
    convert = converter(64, 16, 8 if bits == 8 else 16, Colour("bt709", value_range))
    pixels = convert(frame_of(fmt, [*colours, alpha]))
    largest = np.iinfo(pixels.dtype).max
    expected = alpha.astype(np.float64) / top
    assert np.abs(pixels[..., 1] / largest - expected).max() * top <= 1
    assert np.all(pixels[:, -1] == largest)
    assert np.all(pixels[:, 0] == 0)


def test_hidden_colours_do_not_bleed_when_scaling() -> None:
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[..., 0] = 255  # red everywhere, visible nowhere
    convert = converter(32, 32, sampling=Sampling(size=(8, 8)))
    assert not convert(VideoFrame.from_ndarray(rgba, format="rgba")).any()


def test_over_black_rounds() -> None:
    rgba = np.array([[[255, 100, 1, 128]]], np.uint8)
    assert over_black(rgba).tolist() == [[[128, 50, 1]]]
    deep = np.array([[[65535, 30000, 1, 65535]]], np.uint16)
    assert over_black(deep).tolist() == [[[65535, 30000, 1]]]


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv444p", "nv12", "yuv420p10le", "yuv422p16le"])
@pytest.mark.parametrize("scaled", [(64, 48), (50, 31)])
def test_vector_code_gives_what_plain_code_gives(fmt: str, scaled: tuple[int, int]) -> None:
    """Planar RGB is made by FFmpeg's vector code, packed RGB by its C code."""
    random = np.random.Generator(np.random.PCG64(0))
    frame = VideoFrame(64, 48, fmt)
    bits = frame.format.components[0].bits
    for plane in frame.planes:
        dtype = np.uint8 if bits == 8 else np.uint16
        values = random.integers(0, 2**bits, plane.buffer_size // dtype().itemsize, dtype)
        plane.update(values.tobytes())
    planar, packed = ("gbrp", "rgb24") if bits == 8 else ("gbrp16le", "rgb48le")
    scale = _scale(*scaled, {"in_range": "tv", "out_range": "pc", "in_color_matrix": "bt709"})
    fast = [scale, _format(planar), _scale(0, 0, {}), _format(packed)]
    np.testing.assert_array_equal(
        _filtering(frame, fast)(frame), _filtering(frame, [scale, _format(packed)])(frame)
    )


def interlaced(fmt: str, level: int, pts: int) -> VideoFrame:
    """A frame of two fields and one grey."""
    frame = VideoFrame(64, 48, fmt)
    for plane in frame.planes:
        wide = fmt.endswith("10le")
        values = np.full(plane.buffer_size // (1 + wide), level << 2 * wide, f"u{1 + wide}")
        plane.update(values.tobytes())
    frame.pts, frame.time_base = pts, Fraction(1, 25)
    graph = build_graph(frame, frame.time_base, [("setfield", {"mode": "tff"})])
    graph.vpush(frame)
    return graph.vpull()


def test_fields_of_another_format_amid_a_clip() -> None:
    frames = [interlaced("yuv420p", 100, i) for i in range(3)]
    frames += [interlaced("yuv420p10le", 120, i) for i in range(3, 6)]
    whole = list(Deinterlacer()(iter(frames)))
    assert [frame.pts for frame in whole] == list(range(6))
    assert [frame.format.name for frame in whole] == ["yuv420p"] * 3 + ["yuv420p10le"] * 3
    luma = [np.frombuffer(memoryview(frame.planes[0]), np.uint8)[0] for frame in whole[:3]]
    deep = [np.frombuffer(memoryview(frame.planes[0]), np.uint16)[0] for frame in whole[3:]]
    assert luma + deep == [100] * 3 + [480] * 3


def test_crop_of_frames_of_another_format_amid_a_clip() -> None:
    crop = Cropper(Crop(left=4, bottom=8))
    shapes = []
    for fmt in ("yuv420p", "yuv444p", "yuv420p"):
        frame = crop(interlaced(fmt, 90, 0))
        shapes.append((frame.format.name, frame.width, frame.height))
    assert shapes == [("yuv420p", 60, 40), ("yuv444p", 60, 40), ("yuv420p", 60, 40)]
