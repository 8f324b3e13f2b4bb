"""Files of which something is missing: at the end, or in a hole amid them."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from wfvae_cli.media.inputs import Passing
from wfvae_cli.media.reader import open_clip
from wfvae_cli.media.truncation import gif_pictures

from .conftest import MakeClip, pipe, read, refusal, write_clip


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.gif", "gif", "rgb8"),
        ("a.ogv", "libvpx", "yuv420p"),
        ("a.y4m", "rawvideo", "yuv420p"),
        ("a.mjpeg", "mjpeg", "yuvj420p"),
        ("a.mxf", "mpeg2video", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
    ],
)
def test_cut_files_are_refused(
    make_clip: MakeClip, name: str, codec: str, pix_fmt: str, share: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8)
    path = make_clip(name, list(noise), codec=codec, pix_fmt=pix_fmt)
    with open_clip(path) as reader:
        assert len(list(reader)) == 12
    if (name, share) == ("a.mxf", 0.99):  # of its index alone something is missing
        assert cut(path, share).exists()
        with open_clip(path) as reader:
            assert len(list(reader)) == 12
        return
    assert "cut short" in refusal(cut(path, share))


def test_cut_dv_is_refused(tmp_path: Path, make_clip: MakeClip) -> None:
    gray = np.full((576, 720, 3), 128, np.uint8)
    path = make_clip("a.dv", [gray] * 3, codec="dvvideo", format="dv")
    assert path.stat().st_size == 3 * 144000
    assert "of its last frame only a part" in refusal(cut(path, 2.5 / 3))


def test_cut_ogg_on_a_pipe(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip("a.ogv", 12, codec="libvpx")
    pipe(monkeypatch, path.read_bytes())
    assert read("-")[2] == list(range(12))
    pipe(monkeypatch, cut(path, 0.7).read_bytes())
    assert "cut short" in refusal("-")


def test_a_gif_is_counted() -> None:
    frames = [Image.new("L", (8, 8), i * 40) for i in range(5)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    data = file.getvalue()
    assert gif_pictures(data) == (5, True)
    assert gif_pictures(data + b"junk") == (5, True)
    count, whole = gif_pictures(data[: len(data) // 2])
    assert 0 < count < 5
    assert not whole
    assert gif_pictures(b"GIF89a") == (0, False)


def with_a_hole(data: bytes, packets: list[tuple[int, int]]) -> bytes:
    """A file of which the beginning of the middle packet, and what is before it, is blank."""
    begin, end = (packets[len(packets) // 2 + i][0] for i in (-1, 0))
    return data[: begin + 24] + bytes(end + 24 - (begin + 24)) + data[end + 24 :]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.flv", "flashsv", "bgr24"),
        ("a.mxf", "mpeg2video", "yuv420p"),
        ("a.mkv", "mjpeg", "yuvj420p"),
        ("a.mkv", "ffv1", "yuv420p"),
    ],
)
def test_no_frames_are_lost_in_a_hole(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"g": "1"} if codec != "mjpeg" else {}
    path = write_clip(tmp_path / name, 12, codec=codec, pix_fmt=pix_fmt, options=options)
    data = path.read_bytes()
    with av.open(str(path)) as box:
        packets = [(p.pos or 0, p.size) for p in box.demux(video=0) if p.size]
    assert len(packets) == 12
    path.write_bytes(with_a_hole(data, packets))
    assert "damaged" in refusal(path)
    pipe(monkeypatch, path.read_bytes())
    assert "damaged" in refusal("-")
    for padding in (bytes(100), b"<html>\n", b"\xff" * 50):
        path.write_bytes(data + padding)
        assert read(path)[2] == list(range(12))


def test_a_hole_in_avi(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8)
    path = write_clip(
        tmp_path / "a.avi", list(noise), codec="mjpeg", pix_fmt="yuvj420p", options={}
    )
    with av.open(str(path)) as box:
        packet = [p for p in box.demux(video=0) if p.size][6]
    assert packet.pos is not None
    data = path.read_bytes()
    begin = packet.pos - 100  # the end of the one before, and its header
    path.write_bytes(data[:begin] + bytes(500) + data[begin + 500 :])
    assert "11 of the 12 pictures" in refusal(path)


def test_cut_nut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.nut", 12, codec="ffv1")
    data = path.read_bytes()
    for whole in (data, data + b"\n", data + bytes(1000)):
        path.write_bytes(whole)
        assert read(path)[2] == list(range(12))
    pipe(monkeypatch, data)
    assert read("-")[2] == list(range(12))
    for keep in (len(data) // 3, len(data) // 2, len(data) - 20):
        path.write_bytes(data[:keep])
        assert "cut short" in refusal(path)
        pipe(monkeypatch, data[:keep])
        assert "cut short" in refusal("-")


def test_cut_ivf(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ivf", 12, codec="libvpx")
    data = path.read_bytes()
    assert read(path)[2] == list(range(12))
    with av.open(str(path)) as box:
        end = [p.pos for p in box.demux(video=0) if p.size][6]
    assert end is not None
    for keep in (end, end + 5, len(data) - 1):  # between two frames, and amid others
        path.write_bytes(data[:keep])
        assert "cut short" in refusal(path)


def test_damage_of_matroska_on_a_pipe(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    data = bytearray(make_clip("a.mkv", list(noise), codec="ffv1", pix_fmt="yuv444p").read_bytes())
    data[len(data) * 3 // 4 :] = bytes(len(data) - len(data) * 3 // 4)
    pipe(monkeypatch, bytes(data))
    assert "the container announces" in refusal("-")


def test_parts_are_followed_however_they_come(make_clip: MakeClip) -> None:
    for name in ("a.mkv", "a.mp4", "a.ogv"):
        codec = "libvpx" if name == "a.ogv" else "libx264"
        data = make_clip(name, 10, codec=codec).read_bytes()
        for step in (7, 100, 4096, len(data)):
            passing = Passing(data[:100])
            for at in range(0, len(data), step):
                passing.take(data[at : at + step])
            passing.finish()
            assert passing.structure.sound
            assert passing.structure.position == passing.count == len(data)
