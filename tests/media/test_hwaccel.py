"""Hardware decoding: the same frames, and software wherever it cannot be had.

No test needs a device: `on_device` hands frames over as one does, with their chroma interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.hwaccel import HWAccel
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from tests.media.conftest import MakeClip
from wfvae_cli.errors import UsageError, VideoError
from wfvae_cli.media import hwaccel
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.decoding import Decoding
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip

OnDevice = Callable[[str], None]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Each test looks for devices, and is told of them, anew."""
    hwaccel._usable.cache_clear()
    yield
    hwaccel._usable.cache_clear()


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> OnDevice:
    """Decode as if on a device, which gives frames of the format named."""

    def install(pixel_format: str) -> None:
        decoded = Decoding.__iter__

        def downloaded(self: Decoding) -> Iterator[VideoFrame]:
            for frame in decoded(self):
                yield frame.reformat(format=pixel_format)

        monkeypatch.setattr(hwaccel, "find", lambda name: HWAccel("opencl"))
        monkeypatch.setattr(hwaccel, "in_use", lambda context: True)
        monkeypatch.setattr(Decoding, "__iter__", downloaded)

    return install


def read(path: Path, device: str = "none", **options: Any) -> tuple[ClipInfo, list[Frame]]:
    with open_clip(path, Sampling(**options), hwaccel=device) as reader:
        return reader.info, list(reader)


def assert_same(some: list[Frame], others: list[Frame]) -> None:
    assert [frame.pts for frame in some] == [frame.pts for frame in others]
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def grain(pixel_format: str, count: int = 4) -> list[NDArray[Any]]:
    """Frames in which every pixel counts."""
    random = np.random.Generator(np.random.PCG64(1))
    dtype = np.uint16 if "10" in pixel_format else np.uint8
    top = np.iinfo(dtype).max
    return [random.integers(0, top, (48, 64, 3), dtype, endpoint=True) for _ in range(count)]


@pytest.mark.parametrize(
    ("stored", "handed_over"),
    [("yuv420p", "nv12"), ("yuv444p", "nv24"), ("yuv420p10le", "p010le")],
)
@pytest.mark.parametrize("range_", ["tv", "pc"])
@pytest.mark.parametrize("size", [None, (40, 40)])
def test_frames_of_a_device_are_those_of_software(
    make_clip: MakeClip,
    on_device: OnDevice,
    stored: str,
    handed_over: str,
    range_: str,
    size: tuple[int, int] | None,
) -> None:
    path = make_clip(
        "a.mkv",
        grain(stored),
        codec="ffv1",
        pix_fmt=stored,
        options={"color_range": range_, "colorspace": "bt709"},
    )
    info, frames = read(path, size=size)
    assert info.colour.range == range_
    on_device(handed_over)
    device_info, device_frames = read(path, "cuda", size=size)
    assert device_info == info
    assert_same(device_frames, frames)


def test_interlaced_frames_of_a_device_are_deinterlaced_alike(
    make_clip: MakeClip, on_device: OnDevice
) -> None:
    options = {"flags": "+ildct+ilme", "crf": "1", "preset": "ultrafast", "x264-params": "tff=1"}
    path = make_clip("a.mp4", grain("yuv420p"), options=options)
    info, frames = read(path)
    assert "interlaced; deinterlaced at the frame rate" in info.notices
    on_device("nv12")
    assert_same(read(path, "cuda")[1], frames)


def test_a_device_is_kept_when_seeking(make_clip: MakeClip, on_device: OnDevice) -> None:
    path = make_clip("a.mp4", 30)
    _, frames = read(path, start=0.8)
    on_device("nv12")
    assert_same(read(path, "cuda", start=0.8)[1], frames)


def test_a_device_that_fails_midway_is_named_as_a_possible_cause(
    make_clip: MakeClip, on_device: OnDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip("a.mp4", 6)

    def lose(self: Decoding, frame: VideoFrame) -> None:
        if self._count == 3:
            raise av.error.ExternalError(1, "the device was lost")

    monkeypatch.setattr(Decoding, "_check_frame", lose)
    with pytest.raises(VideoError, match=r"after 3 frames .* again$"):
        read(path)
    on_device("nv12")
    with pytest.raises(
        VideoError, match=r"the device was lost.*, or use software: --hwaccel none$"
    ):
        read(path, "cuda")


def test_a_codec_that_the_device_lacks_is_decoded_in_software(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip("a.mp4", 6)
    info, frames = read(path)
    # No decoder works with OpenCL: FFmpeg falls back by itself, as it does for a codec or profile.
    monkeypatch.setattr(hwaccel, "find", lambda name: HWAccel("opencl"))
    device_info, device_frames = read(path, "cuda", start=0.04)
    assert device_info.notices == (
        "no hardware decoder (cuda) for its h264 (yuv420p); decoded in software",
    )
    assert device_info.pixel_format == info.pixel_format
    assert [frame.pts for frame in device_frames] == [frame.pts for frame in frames[:-1]]


def test_a_device_that_is_absent_is_said_once(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hwaccel, "hwdevices_available", list)
    path = make_clip("a.mp4", 6)
    info, frames = read(path)
    for _ in range(2):
        device_info, device_frames = read(path, "cuda")
        assert device_info == info
        assert_same(device_frames, frames)
    assert [record.getMessage() for record in caplog.records] == [
        "no hardware decoder (cuda): this FFmpeg was built without it; decoding in software"
    ]


def test_auto_takes_the_first_device_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hwaccel, "hwdevices_available", lambda: ["qsv", "cuda", "vaapi"])
    monkeypatch.setattr(hwaccel, "_obstacle", {"qsv": "broken"}.get)
    assert hwaccel._usable("auto") == "cuda"
    assert hwaccel._usable("qsv") is None
    assert hwaccel.find("auto") is not None
    assert hwaccel.find("none") is None


def test_versions_that_lose_colours_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "__version__", "17.1.0")
    assert "version 18 or later is needed" in (hwaccel._obstacle("cuda") or "")


def test_a_device_without_decoders_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hwaccel, "hwdevices_available", lambda: ["opencl"])
    assert "FFmpeg's own decoders" in (hwaccel._obstacle("opencl") or "")


def test_a_software_decoder_is_not_in_use_on_a_device(make_clip: MakeClip) -> None:
    with av.open(str(make_clip("a.mp4", 2))) as box:
        assert not hwaccel.in_use(box.streams.video[0].codec_context)


def test_an_unknown_device_is_a_usage_error(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 2)
    with pytest.raises(UsageError, match=r"one of none, auto, .*cuda.*, got 'cudda'"):
        open_clip(path, hwaccel="cudda")
