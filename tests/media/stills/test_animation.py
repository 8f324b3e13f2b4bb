"""Animations give all their pictures, with the times that their containers say."""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media.conftest import MakeClip, numbered, read
from wfvae_cli.errors import VideoError
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.media.stills.headers import gif_layout

LOSSLESS: dict[str, dict[str, Any]] = {
    "gif": {},
    "png": {},
    "webp": {"lossless": True},
    "avif": {"quality": 100, "subsampling": "4:4:4"},
}


def save(path: Path, count: int = 6, mode: str = "RGB", **options: Any) -> Path:
    """An animation of numbered pictures."""
    images = [Image.fromarray(numbered(i)).convert(mode) for i in range(count)]
    options = LOSSLESS.get(path.suffix[1:], {}) | {"duration": 100} | options
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    return path


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_all_pictures_with_their_times(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", duration=[100, 50, 30, 20, 60, 40])
    info, pts, numbers = read(path)
    assert numbers == list(range(6))
    assert [at * info.time_base for at in pts] == [
        Fraction(at, 100) for at in (0, 10, 15, 18, 20, 26)
    ]
    assert info.frames == 6
    assert info.frame_rate == 6 / Fraction(30, 100)
    assert not info.is_image
    assert info.codec == {"png": "apng"}.get(suffix, suffix)
    assert info.notices == ()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_sampling(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", 10)
    info, pts, numbers = read(path, start=0.3, frames=4)
    assert numbers == [3, 4, 5, 6]
    assert pts == [0, 1, 2, 3]
    assert (info.frame_rate, info.start) == (Fraction(10), Fraction(3, 10))
    assert read(path, fps=Fraction(5))[2] == [0, 2, 4, 6, 8]
    assert read(path, fps=Fraction(20))[2] == [n for n in range(10) for _ in (0, 1)]
    with pytest.raises(VideoError, match=r"nothing is left after 2 s, the clip is 1\.000 s long"):
        open_clip(path, Sampling(start=2))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_on_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    data = io.BytesIO(save(tmp_path / f"a.{suffix}").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    assert read("-")[2] == list(range(6))


def test_gif_without_control_blocks(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gif", 8)
    data = re.sub(rb"\x21\xf9\x04.{4}\x00", b"", path.read_bytes(), flags=re.DOTALL)
    assert b"\x21\xf9" not in data
    path.write_bytes(data)
    info, _, numbers = read(path)
    assert numbers == list(range(8))
    assert info.frame_rate == 10  # what browsers make of no delay


def test_gif_delays_too_short_to_be_meant(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "a.gif", 3, duration=[20, 40, 60]).read_bytes())
    first = data.index(b"\x21\xf9\x04")
    data[first + 4 : first + 6] = b"\1\0"
    assert gif_layout(bytes(data)).delays == (
        Fraction(1, 10),
        Fraction(4, 100),
        Fraction(6, 100),
    )


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95, -1])
def test_cut_gif(tmp_path: Path, keep: float) -> None:
    path = save(tmp_path / "a.gif")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if keep > 0 else -1])
    with pytest.raises(VideoError, match="cut short"):
        open_clip(path)


def test_a_hole_in_a_gif(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 48, 64, 3), np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0)
    data = path.read_bytes()
    for share in (0.1, 0.4, 0.7):
        at = int(len(data) * share)
        path.write_bytes(data[:at] + bytes(300) + data[at + 300 :])
        with pytest.raises(VideoError, match="damaged"), open_clip(path) as reader:
            list(reader)
    path.write_bytes(data[:-1] + bytes(5) + data[-1:] + b"<html>")  # padding, and junk behind
    with open_clip(path) as reader:
        assert len(list(reader)) == 6


def test_a_single_picture_needs_no_trailer(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gif", 1)
    path.write_bytes(path.read_bytes()[:-1])
    assert read(path)[2] == [0]


@pytest.mark.parametrize("suffix", ["png", "webp", "avif"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_other_cut_animations(tmp_path: Path, suffix: str, keep: float) -> None:
    path = save(tmp_path / f"a.{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(VideoError, match="damaged or cut short"), open_clip(path) as reader:
        list(reader)


def test_gif_picture_that_sticks_out(tmp_path: Path) -> None:
    data = bytearray(huge_gif(3, 64))
    second = data.index(b"\x2c", data.index(b"\x2c") + 1)
    data[second + 1 : second + 3] = struct.pack("<H", 100)  # its left edge
    (tmp_path / "a.gif").write_bytes(data)
    with open_clip(tmp_path / "a.gif") as reader:
        assert [frame.pixels.shape for frame in reader] == [(64, 64, 3)] * 3


@pytest.mark.parametrize("blend", [0, 1])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_apng_that_blends(tmp_path: Path, blend: int, mode: str) -> None:
    path = save(tmp_path / "a.png", mode=mode, blend=blend)
    assert read(path)[2] == list(range(6))


def test_apng_leaves_out_a_default_image(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 5, default_image=True, duration=[100, 50, 100, 100])
    info, pts, numbers = read(path)
    assert numbers == [1, 2, 3, 4]
    assert len(pts) == info.frames == 4


def test_apng_that_lacks_a_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    data = path.read_bytes()
    at = data.index(b"acTL")
    chunk = b"acTL" + struct.pack(">II", 7, 0)
    path.write_bytes(data[:at] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[at + 16 :])
    with pytest.raises(VideoError, match="6 of the 7 pictures"):
        open_clip(path)


@pytest.mark.parametrize("suffix", ["png", "webp", "avif"])
def test_alpha_goes_onto_black(tmp_path: Path, suffix: str) -> None:
    images = [Image.new("RGBA", (64, 48), (200, 200, 200, alpha)) for alpha in (128, 64)]
    images[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=images[1:], lossless=True)
    with open_clip(tmp_path / f"a.{suffix}") as reader:
        means = [frame.pixels.mean() for frame in reader]
        assert reader.info.notices == ("its alpha channel is composited onto black",)
    assert means == pytest.approx([100, 50], abs=1)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_exif_orientation(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[274] = 6
    with open_clip(save(tmp_path / f"a.{suffix}", 2, exif=exif)) as reader:
        assert [frame.pixels.shape for frame in reader] == [(64, 48, 3)] * 2


def test_animated_avif_of_10_bits(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = [np.full((64, 64, 3), 257 * (30 + 4 * i), np.uint16) for i in range(0, 50, 10)]
    path = make_clip(
        "a.avif",
        pixels,
        codec="libsvtav1",
        pix_fmt="yuv420p10le",
        rate=10,
        options={"preset": "8"},
    )
    info, _, numbers = read(path)
    assert len(numbers) == 5
    assert numbers == sorted(set(numbers))  # the codec is lossy, but not that lossy
    assert (info.bits, info.pixel_format, info.frame_rate) == (
        16,
        "yuv420p10le",
        Fraction(10),
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert read("-")[2] == numbers


def test_an_avif_sequence_under_the_brand_of_stills(tmp_path: Path) -> None:
    path = save(tmp_path / "a.avif")
    data = path.read_bytes()
    path.write_bytes(data[:8] + b"avif" + data[12:])  # Pillow sees one picture
    assert read(path)[2] == list(range(6))


def huge_gif(pictures: int, side: int = 8192) -> bytes:
    """A GIF of large pictures, each of which draws a single pixel."""
    screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes((0, 0, 0, 9, 9, 9))
    picture = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return screen + picture * pictures + b";"


def test_what_an_animation_costs_is_checked_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(huge_gif(500))
    with pytest.raises(VideoError, match="500 pictures of 8192x8192 pixels in"):
        open_clip(path, Sampling(size=(64, 64)), image_memory=1 << 40)
    with pytest.raises(VideoError, match=r"decoding its 8192x8192 pixels takes up to \d+ MiB"):
        open_clip(path, Sampling(size=(64, 64)), image_memory=1 << 20)
    path.write_bytes(huge_gif(500, 64))
    assert len(read(path)[1]) == 500
