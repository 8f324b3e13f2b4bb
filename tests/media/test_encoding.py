import logging
from fractions import Fraction
from typing import Any

import pytest

from tests.media.outputs import info_for
from wfvae_cli.errors import UsageError
from wfvae_cli.media.clip import ClipInfo, Colour
from wfvae_cli.media.encoding import EncodingPlan, plan
from wfvae_cli.media.options import VideoOptions


def planned(target: str = "out.mp4", info: ClipInfo | None = None, **options: Any) -> EncodingPlan:
    return plan(target, info or info_for(), VideoOptions(**options), streaming=target == "-")


@pytest.mark.parametrize(
    ("target", "container", "encoder"),
    [
        ("a.mp4", "mp4", "libx264"),
        ("a.MP4", "mp4", "libx264"),
        ("a.m4v", "mp4", "libx264"),
        ("a.mov", "mov", "libx264"),
        ("a.mkv", "matroska", "libx264"),
        ("a.ts", "mpegts", "libx264"),
        ("a.webm", "webm", "libvpx-vp9"),
        ("a.avi", "avi", "mpeg4"),
        ("a.y4m", "yuv4mpegpipe", "rawvideo"),
        ("-", "matroska", "libx264"),
    ],
)
def test_defaults_by_target(target: str, container: str, encoder: str) -> None:
    chosen = planned(target)
    assert (chosen.container, chosen.encoder) == (container, encoder)


@pytest.mark.parametrize(
    ("codec", "source_bits", "pix_fmt"),
    [
        ("h264", 8, "yuv420p"),
        ("h264", 10, "yuv420p10le"),
        ("h264", 12, "yuv420p10le"),
        ("h264", 16, "yuv420p10le"),
        ("hevc", 8, "yuv420p"),
        ("hevc", 10, "yuv420p10le"),
        ("hevc", 12, "yuv420p12le"),
        ("prores", 8, "yuv422p10le"),
        ("ffv1", 8, "bgr0"),
        ("ffv1", 10, "gbrp16le"),
    ],
)
def test_pixel_format_by_depth(codec: str, source_bits: int, pix_fmt: str) -> None:
    info = info_for(deep=source_bits > 8, source_bits=source_bits)
    target = "a.mkv" if codec == "ffv1" else "a.mov"
    assert planned(target, info, codec=codec).stored.pix_fmt == pix_fmt


def test_odd_sizes_are_kept_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wfvae"):
        assert planned(info=info_for(63, 47)).stored.pix_fmt == "yuv444p"
        assert planned(info=info_for(64, 47, deep=True)).stored.pix_fmt == "yuv444p10le"
    assert "63x47 is an odd size: writing yuv444p" in caplog.text


def test_lost_depth_is_told(caplog: pytest.LogCaptureFixture) -> None:
    planned("a.webm", info_for(deep=True))
    assert "libvpx-vp9 stores 8 bits per sample, and the source had 10" in caplog.text


def test_lost_aspect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    anamorphic = info_for(sample_aspect=Fraction(4, 3))
    planned("a.mp4", anamorphic)
    planned("a.mkv", anamorphic)
    assert caplog.text == ""
    planned("a.webm", anamorphic)
    assert "does not store the pixel aspect ratio 4/3" in caplog.text


@pytest.mark.parametrize(
    ("colour", "matrix", "range_"),
    [
        (Colour("smpte170m", "pc"), "smpte170m", "pc"),
        (Colour("bt2020nc", "tv"), "bt2020nc", "tv"),
        (Colour("gbr", "pc"), "bt709", "tv"),
        (Colour("ycgco", "pc"), "bt709", "tv"),
    ],
)
def test_colours_are_those_of_the_source(colour: Colour, matrix: str, range_: str) -> None:
    chosen = planned(info=info_for(colour=colour))
    assert (chosen.stored.matrix, chosen.stored.range) == (matrix, range_)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("a.xyz", {}, r"cannot tell a video format.*\.mp4.*--container"),
        ("a", {}, "cannot tell a video format"),
        ("a.mp4", {"container": "mp5"}, "unknown container 'mp5'.*matroska"),
        ("a.mp4", {"codec": "h265000"}, "unknown video codec 'h265000'.*h264.*ffv1"),
        ("a.mp4", {"codec": "aac"}, "unknown video codec 'aac'"),
        ("a.webm", {"codec": "h264"}, "webm cannot hold h264.*vp9"),
        ("a.mp4", {"pix_fmt": "yuv999"}, "cannot be given pixels as 'yuv999'.*yuv420p"),
        ("a.mp4", {"pix_fmt": "nv12"}, "cannot be given pixels as 'nv12'"),
        ("a.mp4", {"crf": 52.0}, r"--crf of 0 \(best\) to 51 for libx264, got 52"),
        ("a.mkv", {"crf": -1.0}, "--crf of 0"),
        ("a.mkv", {"codec": "ffv1", "crf": 9.0}, "ffv1 has no constant rate factor"),
        ("a.gif", {}, "gif has no pixel format"),
    ],
)
def test_options_that_cannot_be(target: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(target, **options)


def test_odd_size_in_420_is_refused() -> None:
    with pytest.raises(UsageError, match=r"yuv420p cannot hold an odd width or height.*63x48"):
        planned(info=info_for(63, 48), pix_fmt="yuv420p")


def test_pixel_format_names_without_byte_order() -> None:
    assert planned(pix_fmt="yuv420p10").stored.pix_fmt == "yuv420p10le"


def test_old_codecs_are_not_left_at_their_bit_rate() -> None:
    chosen = planned("a.avi").codec_options
    assert chosen["flags"] == "+bitexact+qscale"
    assert chosen["global_quality"] == "236"


def test_crf() -> None:
    assert planned().codec_options["crf"] == "18"
    assert planned(crf=23.5).codec_options["crf"] == "23.5"
