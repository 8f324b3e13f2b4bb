from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.report.clips import Frames, levels
from wfvae_cli.errors import OutputError
from wfvae_cli.report import media
from wfvae_cli.report.media import MediaFile, MediaWriter


def write(stem: Path, frames: Frames) -> MediaFile:
    writer = MediaWriter(stem, Fraction(24000, 1001))
    for frame in frames:
        writer.add(frame)
    return writer.close()


def read(path: Path) -> list[Frames]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24").astype(np.uint8) for f in container.decode(video=0)]


def test_a_copy_has_every_frame_in_place_and_colour(tmp_path: Path) -> None:
    frames = levels(20)
    frames[..., 0] += 60  # red is the first to go wrong with a wrong matrix
    file = write(tmp_path / "copy", frames)
    assert file == MediaFile("copy.mp4", 64, 48, 20)
    back = read(tmp_path / "copy.mp4")
    assert len(back) == 20
    for mine, theirs in zip(frames, back, strict=True):
        assert np.abs(mine.astype(int) - theirs).mean() < 3
    with av.open(str(tmp_path / "copy.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(24000, 1001)
        assert stream.codec_context.pix_fmt == "yuv420p"
        packets = [p for p in container.demux(stream) if p.pts is not None]
    assert [p.pts for p in packets] == [p.dts for p in packets]  # no B-frames
    assert [k for k, p in enumerate(packets) if p.is_keyframe] == [0, 12]


def test_odd_and_large_frames_become_small_and_even(tmp_path: Path) -> None:
    file = write(tmp_path / "odd", levels(2, 31, 45))
    assert (file.width, file.height) == (44, 32)
    wide = write(tmp_path / "wide", levels(2, 500, 1500))
    assert (wide.width, wide.height) == (960, 320)


def test_one_frame_is_a_lossless_picture(tmp_path: Path) -> None:
    frames = levels(1, 31, 45)
    file = write(tmp_path / "still", frames)
    assert file == MediaFile("still.png", 45, 31, 1)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "still.png")), frames[0])


def test_a_long_clip_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_FRAMES", 5)
    assert write(tmp_path / "long", levels(9)).frames == 5
    assert len(read(tmp_path / "long.mp4")) == 5


def test_without_h264_the_copy_is_vp9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"libvpx-vp9"})
    assert write(tmp_path / "copy", levels(3)).name == "copy.webm"
    assert len(read(tmp_path / "copy.webm")) == 3


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="copy"):
        write(tmp_path / "gone" / "copy", levels(2))
    with pytest.raises(OutputError, match="copy"):
        write(tmp_path / "gone" / "copy", levels(1))
