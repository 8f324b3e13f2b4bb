from __future__ import annotations

import logging
import struct
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from wfvae_cli.errors import UsageError
from wfvae_cli.media.frames import convert
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.rate import constant_rate
from wfvae_cli.media.reader import open_clip, probe
from wfvae_cli.media.yuv import PictureFormat

from .conftest import MakeClip, read


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "ffv1", "yuv444p"),
        ("a.mov", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "mpeg2video", "yuv420p"),
    ],
)
def test_every_frame_of_any_container(
    make_clip: MakeClip, name: str, codec: str, pix_fmt: str
) -> None:
    info, pts, numbers = read(make_clip(name, 12, codec=codec, pix_fmt=pix_fmt))
    assert numbers == list(range(12))
    assert constant_rate(pts, info.time_base, info.frame_rate) == 25
    assert pts[0] == 0
    assert (info.width, info.height, info.bits, info.source_bits) == (64, 48, 8, 8)
    assert info.frame_rate == 25
    assert info.container == {"mkv": "matroska", "ts": "mpegts"}.get(name[2:], name[2:])
    assert info.codec == {"libx264": "h264", "libvpx-vp9": "vp9"}.get(codec, codec)
    assert not info.is_image
    assert not info.notices


def test_info_tells_what_will_come(make_clip: MakeClip) -> None:
    info = probe(make_clip("a.mp4", 30, rate=Fraction(30000, 1001), width=66, height=50))
    assert info.frames == 30
    assert info.frame_rate == Fraction(30000, 1001)
    assert (info.width, info.height) == (66, 50)
    assert info.pixel_format == "yuv420p"
    assert (info.colour.matrix, info.colour.range) == ("smpte170m", "tv")
    assert info.sample_aspect == 1


def test_large_untagged_video_is_bt709(make_clip: MakeClip) -> None:
    colour = probe(make_clip("a.mkv", 1, width=32, height=720, codec="ffv1")).colour
    assert (colour.matrix, colour.range) == ("bt709", "tv")


def test_tags_are_believed(make_clip: MakeClip) -> None:
    def tag(stream: VideoStream) -> None:
        context = stream.codec_context
        context.colorspace, context.color_range = 9, 2
        context.color_primaries, context.color_trc = 9, 16

    colour = probe(make_clip("a.mkv", 1, pix_fmt="yuv420p10le", prepare=tag)).colour
    assert (colour.matrix, colour.range) == ("bt2020nc", "pc")
    assert (colour.primaries, colour.transfer) == ("bt2020", "smpte2084")


@pytest.mark.parametrize(("matrix", "kr", "kb"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114)])
def test_matrix_and_range_make_the_colours(
    make_clip: MakeClip, matrix: int, kr: float, kb: float
) -> None:
    pure = np.zeros((48, 64, 3), np.uint8)
    pure[:, :32] = (255, 0, 0)
    pure[:, 32:] = (0, 255, 0)
    kg = 1 - kr - kb
    red = [16 + 219 * kr, 128 - 112 * kr / (1 - kb), 128 + 112]
    green = [16 + 219 * kg, 128 - 112 * kg / (1 - kb), 128 - 112 * kg / (1 - kr)]

    def tag(stream: VideoStream) -> None:
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1

    def paint(frame: VideoFrame) -> None:
        for plane, left, right in zip(frame.planes, red, green, strict=True):
            row = np.full(plane.line_size, round(left), np.uint8)
            row[plane.width // 2 :] = round(right)
            plane.update(row.tobytes() * plane.height)
        frame.colorspace, frame.color_range = matrix, 1

    path = make_clip("a.mkv", [pure], codec="ffv1", pix_fmt="yuv444p", prepare=tag, touch=paint)
    with open_clip(path) as reader:
        pixels = next(reader).pixels.astype(int)
    assert np.abs(pixels - pure).max() <= 2


@pytest.mark.parametrize(
    ("pix_fmt", "bits"), [("yuv420p10le", 10), ("gbrp12le", 12), ("yuv444p16le", 16)]
)
def test_deep_video_is_not_squeezed(make_clip: MakeClip, pix_fmt: str, bits: int) -> None:
    ramp = np.linspace(0, 65535, 1024).round().astype(np.uint16)
    pixels = np.repeat(np.tile(ramp, (8, 1))[..., None], 3, axis=2)
    with open_clip(make_clip("a.mkv", [pixels], codec="ffv1", pix_fmt=pix_fmt)) as reader:
        got = next(reader).pixels
        info = reader.info
    assert (info.bits, info.source_bits) == (16, bits)
    assert got.dtype == np.uint16
    assert len(np.unique(got)) > 800
    assert (got.min(), got.max()) == (0, 65535)


def test_variable_rate_is_kept(make_clip: MakeClip) -> None:
    given = [0, 40, 100, 101, 240, 1000]
    path = make_clip("a.mkv", 6, pts=given, time_base=Fraction(1, 1000))
    info, pts, numbers = read(path)
    assert [p * info.time_base for p in pts] == [Fraction(p, 1000) for p in given]
    assert numbers == list(range(6))
    assert constant_rate(pts, info.time_base, info.frame_rate) is None


def test_times_begin_at_zero_and_info_says_where_that_was(make_clip: MakeClip) -> None:
    path = make_clip("a.mkv", 5, pts=[50, 51, 52, 53, 54])
    info, pts, _ = read(path)
    assert pts[0] == 0
    assert info.start == 2
    assert probe(path).start == 2


def test_equal_times_are_spread(
    make_clip: MakeClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "zero.nut"
    source = make_clip("a.mkv", 5, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(source)) as box, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(box.streams.video[0])
        for packet in box.demux(video=0):
            if packet.size:
                packet.pts = packet.dts = 0
                packet.stream = stream
                out.mux(packet)
    with caplog.at_level(logging.WARNING, "wfvae"):
        info, pts, numbers = read(path)
    assert numbers == list(range(5))
    assert constant_rate(pts, info.time_base) == 25
    assert "timestamps" in caplog.text


@pytest.mark.parametrize("name", ["a.h264", "a.mjpeg"])
def test_streams_without_times_are_timed_by_their_rate(make_clip: MakeClip, name: str) -> None:
    codec, fmt = ("libx264", "yuv420p") if name == "a.h264" else ("mjpeg", "yuvj420p")
    info, pts, numbers = read(make_clip(name, 6, codec=codec, pix_fmt=fmt))
    assert numbers == list(range(6))
    assert constant_rate(pts, info.time_base) == 25


@pytest.mark.parametrize(
    ("matrix", "corner"),  # the picture is dark in its lower right quarter (1, 1)
    [
        ((1, 0, 0, 1), (1, 1)),
        ((0, 1, -1, 0), (1, 0)),  # clockwise, as phones held upright write it
        ((-1, 0, 0, -1), (0, 0)),
        ((0, -1, 1, 0), (0, 1)),
        ((-1, 0, 0, 1), (1, 0)),
        ((1, 0, 0, -1), (0, 1)),
        ((0, 1, 1, 0), (1, 1)),
        ((0, -1, -1, 0), (0, 0)),
    ],
)
def test_rotation_is_applied(
    make_clip: MakeClip, matrix: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    aspect = Fraction(4, 3)
    path = make_clip(
        "a.mp4",
        3,
        prepare=lambda stream: setattr(stream.codec_context, "sample_aspect_ratio", aspect),
    )
    # The track header (ISO/IEC 14496-12, 8.3.2) holds a b u, c d v, x y w, 40 bytes after its name.
    data, (a, b, c, d) = bytearray(path.read_bytes()), (value << 16 for value in matrix)
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)

    with open_clip(path) as reader:
        pixels = next(reader).pixels
        info = reader.info

    turned = matrix[0] == 0
    assert (info.width, info.height) == ((48, 64) if turned else (64, 48))
    assert info.sample_aspect == (1 / aspect if turned else aspect)
    halves = [np.array_split(half, 2, axis=1) for half in np.array_split(pixels, 2, axis=0)]
    means = {(i, j): halves[i][j].mean() for i in (0, 1) for j in (0, 1)}
    assert min(means, key=lambda key: means[key]) == corner


def test_other_rotations_are_told(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 1)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    info = probe(path)
    assert (info.width, info.height) == (64, 48)
    assert any("90 degrees" in notice for notice in info.notices)


def test_interlaced_is_deinterlaced(make_clip: MakeClip) -> None:
    # Something moves between the fields: combing, unless it is removed.
    frames = []
    for i in range(6):
        pixels = np.full((48, 64, 3), 60, np.uint8)
        pixels[0::2, 8 * i : 8 * i + 12] = 200
        pixels[1::2, 8 * i + 4 : 8 * i + 16] = 200
        frames.append(pixels)
    path = make_clip(
        "a.mkv",
        frames,
        options={"crf": "1", "x264-params": "tff=1"},
    )
    with open_clip(path) as reader:
        got = list(reader)
        notices = reader.info.notices
    assert [f.pts for f in got] == [got[1].pts * i for i in range(6)]
    assert any("interlaced" in notice for notice in notices)
    combing = [np.abs(np.diff(f.pixels[..., 0].astype(int), axis=0)).mean() for f in got]
    raw = [np.abs(np.diff(f[..., 0].astype(int), axis=0)).mean() for f in frames]
    assert max(combing) < 0.5 * max(raw)


def test_alpha_is_composited_with_a_notice(make_clip: MakeClip) -> None:
    def fade(frame: VideoFrame) -> None:
        alpha = frame.planes[3]
        alpha.update(bytes([128]) * alpha.buffer_size)

    with open_clip(make_clip("a.mkv", 2, codec="ffv1", pix_fmt="yuva420p", touch=fade)) as reader:
        pixels = next(reader).pixels
        assert any("black" in notice for notice in reader.info.notices)
    assert abs(float(pixels[:10, :10].mean()) - 30 * 128 / 255) < 1.5


@pytest.mark.parametrize("start", [0.0, 0.04, 0.5, 0.99, 1.96])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_start_is_accurate(make_clip: MakeClip, name: str, start: float) -> None:
    # Key frames every 10, B frames in between.
    path = make_clip(name, 50, options={"crf": "1", "g": "10", "bf": "3"})
    info, pts, numbers = read(path, start=start)
    first = -(-round(start * 100) // 4)
    assert numbers == list(range(first, 50))
    assert pts[0] == 0
    assert info.start - probe(path).start == Fraction(first, 25)
    assert info.frames == pytest.approx(50 - first, abs=2)


def test_start_on_all_equal_timestamps_counts_frames(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, numbers = read(make_clip("a.h264", 30), start=0.4)
    assert numbers == list(range(10, 30))


def test_duration_frames_and_fps(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 50)
    assert read(path, duration=0.4)[2] == list(range(10))
    assert read(path, start=0.4, frames=3)[2] == [10, 11, 12]
    info, pts, numbers = read(path, fps=Fraction(25, 2), frames=4)
    assert (pts, info.time_base, info.frame_rate) == (
        [0, 1, 2, 3],
        Fraction(2, 25),
        Fraction(25, 2),
    )
    assert numbers == [0, 2, 4, 6]
    info, pts, numbers = read(path, fps=Fraction(50), duration=0.08)
    assert (numbers, info.frames) == ([0, 0, 1, 1], 4)


def test_size(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 3)
    for options in ({"size": (32, 40)}, {"size": (32, 40), "fit": "pad"}, {"short_side": 24}):
        info, _, numbers = read(path, **options)
        assert (info.width, info.height) == options.get("size", (32, 24))
        if options.get("fit") != "pad":
            assert numbers == [0, 1, 2]


def test_an_enormous_target_is_refused(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 1, width=640, height=16)
    with pytest.raises(UsageError, match="smaller size"):
        open_clip(path, Sampling(size=(16000, 16000)))


def test_sound_and_cover_pictures_are_no_obstacle(make_clip: MakeClip) -> None:
    assert read(make_clip("a.mp4", 5, sound=True))[2] == list(range(5))


def test_animated_gif_is_a_clip(make_clip: MakeClip) -> None:
    info, _, numbers = read(make_clip("a.gif", 6, codec="gif", pix_fmt="gray", rate=10))
    assert len(numbers) == 6
    assert not info.is_image
    assert info.frame_rate == 10


def test_repeated_frames_are_converted_once(make_clip: MakeClip) -> None:
    with open_clip(make_clip("a.mp4", 2), Sampling(fps=Fraction(100))) as reader:
        first, second = next(reader), next(reader)
    assert first.pixels is second.pixels


def test_colours_and_depth_that_change_amid_a_clip(tmp_path: Path) -> None:
    colours = np.zeros((48, 64, 3), np.uint8)
    colours[:24] = (200, 40, 90)
    colours[24:] = (30, 160, 220)
    parts = []
    changes: list[tuple[str, str, Literal["tv", "pc"]]] = [
        ("yuv444p", "smpte170m", "tv"),
        ("yuv444p", "bt709", "pc"),
        ("yuv444p10le", "bt709", "tv"),
    ]
    for index, (pix_fmt, matrix, levels) in enumerate(changes):
        path = tmp_path / f"{index}.ts"
        with av.open(str(path), "w") as box:
            stream = box.add_stream("libx264", rate=25, options={"crf": "1", "bf": "2"})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
            stream.codec_context.colorspace = 1 if matrix == "bt709" else 6
            stream.codec_context.color_range = 2 if levels == "pc" else 1
            stored = PictureFormat(pix_fmt, matrix, levels)
            for _ in range(6):
                box.mux(stream.encode(convert(colours, stored)))
            box.mux(stream.encode(None))
        parts.append(path.read_bytes())
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts))
    with open_clip(joined) as reader:
        frames = [frame.pixels for frame in reader]
    assert len(frames) == 18
    for frame in frames:
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - colours).max() <= 3
