"""Real containers: what of a file is only announced, and what is hidden."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet
from av.video.stream import VideoStream
from PIL import Image, ImageCms

from wfvae_cli.errors import VideoError
from wfvae_cli.media.headers import Crop, video_tracks
from wfvae_cli.media.reader import open_clip

from .conftest import MakeClip, numbered, pipe, read, refusal, write_clip

SHORT_GOP = {"g": "10", "crf": "1", "preset": "ultrafast"}


def remux(
    source: Path,
    target: Path,
    change: Callable[[list[Packet[VideoStream]]], Iterable[Packet[VideoStream]]],
    tags: dict[str, str] | None = None,
) -> Path:
    """Copy the packets of a video, changed, into another container."""
    with av.open(str(source)) as box, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(box.streams.video[0])
        stream.metadata.update(tags or {})
        for packet in change([p for p in box.demux(video=0) if p.size]):
            packet.stream = stream
            out.mux(packet)
    return target


def box_at(data: bytes | bytearray, *names: bytes) -> int:
    """Position of the first box of these names, each within the one before."""
    at = 0
    for name in names:
        at = data.index(name, at) + 4
    return at - 8


def test_b_frames_in_avi_are_steady(make_clip: MakeClip) -> None:
    path = make_clip("a.avi", 25, options={"bf": "3", "crf": "1"})
    info, pts, numbers = read(path)
    assert numbers == list(range(25))
    assert [p * info.time_base for p in pts] == [Fraction(i, 25) for i in range(25)]
    assert read(path, fps=Fraction(25))[2] == list(range(25))


def cropped_matroska(path: Path) -> bytearray:
    """A clip of 64x48 with a crop of 2 columns left, 8 rows above, 6 right and 4 below."""
    data = bytearray(path.read_bytes())
    # The Video element: PixelWidth (B0), PixelHeight (BA), DisplayUnit; then an element for alpha,
    # and a Void. They give their room to the crop of each side.
    at = data.index(bytes.fromhex("e08ab08140ba813054b28104 55ee8100 ec01"))
    assert data[at + 16 : at + 27] == bytes.fromhex("ec010000000000000200 00")
    sides = "54bb8108 54aa8104 54cc8102 54dd8106"
    data[at : at + 27] = bytes.fromhex(f"e096 b08140 ba8130 {sides} ec8100")
    return data


def with_tracks_at_the_end(data: bytearray) -> bytearray:
    """The same as mkvpropedit leaves it where tracks have outgrown their room."""
    segment = data.index(bytes.fromhex("18538067")) + 12
    begin = data.index(bytes.fromhex("1654ae6b40"), segment)
    length = 6 + int.from_bytes(data[begin + 4 : begin + 6], "big") - 0x4000
    tracks = data[begin : begin + length]
    data[begin : begin + length] = void(length)
    # The seek head, and the Void behind it, reach up to the next element, Info.
    room = data.index(bytes.fromhex("1549a966"), segment + 100) - segment
    position = len(data) - segment
    seek = bytes.fromhex("4dbb8c 53ab84 1654ae6b 53ac82") + position.to_bytes(2, "big")
    head = bytes.fromhex("114d9b74") + bytes([0x80 + len(seek)]) + seek
    data[segment : segment + room] = head + void(room - len(head))
    data += tracks
    size = len(data) - segment
    data[segment - 8 : segment] = b"\x01" + size.to_bytes(7, "big")
    return data


def void(length: int) -> bytes:
    """An EBML element of nothing, `length` bytes in all."""
    return b"\xec" + (0x4000 + length - 3).to_bytes(2, "big") + bytes(length - 3)


def test_tracks_behind_the_clusters_cannot_be_piped(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_tracks_at_the_end(cropped_matroska(make_clip("a.mkv", 3, width=64, height=48)))
    pipe(monkeypatch, bytes(data))
    with pytest.raises(VideoError, match="no streams in it, or through a pipe none"):
        open_clip("-")


@pytest.mark.parametrize("moved", [False, True], ids=["in front", "behind the clusters"])
def test_matroska_crop(make_clip: MakeClip, moved: bool) -> None:
    path = make_clip("a.mkv", 3, width=64, height=48)
    data = cropped_matroska(path)
    data = with_tracks_at_the_end(data) if moved else data
    path.write_bytes(data)
    assert video_tracks(io.BytesIO(data))[0].crop == Crop(2, 8, 6, 4)
    with open_clip(path) as reader:
        assert (reader.info.width, reader.info.height) == (56, 36)
        assert any("cropped to 56x36" in notice for notice in reader.info.notices)
        pixels = next(reader).pixels
    assert pixels.shape == (36, 56, 3)
    # The dark quarter began at (32, 24).
    assert pixels[20:, 34:].max() < 20 < pixels[:14, :26].min()


@pytest.mark.parametrize("on_pipe", [False, True])
def test_clean_aperture(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, on_pipe: bool
) -> None:
    path = make_clip("a.mp4", 3, container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    clap = struct.pack(">I4s8i", 40, b"clap", 48, 1, 32, 1, 2, 1, 0, 1)
    entry = box_at(data, b"stsd", b"avc1")
    offsets = box_at(data, b"stco")
    count = int.from_bytes(data[offsets + 12 : offsets + 16], "big")
    for at in range(offsets + 16, offsets + 16 + 4 * count, 4):
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 40).to_bytes(4, "big")
    parents = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    for at in (*(box_at(data, name) for name in parents), entry):
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 40).to_bytes(4, "big")
    data[entry + 86 : entry + 86] = clap
    path.write_bytes(data)
    if on_pipe:
        pipe(monkeypatch, bytes(data))
    with open_clip("-" if on_pipe else path) as reader:
        assert (reader.info.width, reader.info.height) == (48, 32)
        pixels = next(reader).pixels
    # Left: (64 - 48) / 2 + 2; above: (48 - 32) / 2.
    assert pixels[18:, 24:].max() < 20 < pixels[:14, :20].min()


@pytest.mark.parametrize("codec", ["libx265", "mpeg4", "libx264"])
def test_frames_before_the_first_listed_key_frame_are_read(make_clip: MakeClip, codec: str) -> None:
    options = {"g": "10", "x265-params": "log-level=none:keyint=10:scenecut=0"}
    path = make_clip("a.mp4", 30, codec=codec, options=options)
    data = bytearray(path.read_bytes())
    at = box_at(data, b"stss")
    size, count = struct.unpack_from(">I", data, at)[0], struct.unpack_from(">I", data, at + 12)[0]
    keys = struct.unpack_from(f">{count}I", data, at + 16)
    assert count == 3
    box = struct.pack(">I4sII", size - 8, b"stss", 0, 1) + struct.pack(">I", keys[2])
    data[at : at + size] = box + struct.pack(">I4s", 8, b"free")
    path.write_bytes(data)
    info, _, numbers = read(path)
    assert numbers == list(range(30))
    assert not info.notices


@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "mpeg2video", "libvpx"])
def test_a_clip_cut_amid_a_group_begins_with_the_next_key_frame(
    make_clip: MakeClip, tmp_path: Path, codec: str
) -> None:
    source = make_clip("a.mkv", 30, codec=codec, options={"g": "10"})
    path = remux(source, tmp_path / "b.mkv", lambda packets: packets[3:])
    info, _, numbers = read(path)
    assert numbers == list(range(10, 30))
    assert "its first 7 frames need earlier ones that are missing; left out" in info.notices


def test_an_mdat_that_claims_too_much(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 20, container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    at = box_at(data, b"mdat")
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 8).to_bytes(4, "big")
    path.write_bytes(data)
    assert read(path)[2] == list(range(20))
    path.write_bytes(data[:-1])
    assert "cut short" in refusal(path)


def test_an_empty_sample(make_clip: MakeClip) -> None:
    frames, noise = [numbered(i) for i in range(6)], np.random.default_rng(0)
    for i, pixels in enumerate(frames):  # of different sizes
        pixels[40:, : 8 * i] = noise.integers(0, 255, (8, 8 * i, 3), np.uint8)
    path = make_clip("a.mov", frames, codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    at = box_at(data, b"stsz")
    sizes = list(struct.unpack_from(">6I", data, at + 20))
    # The third sample becomes bytes behind the end of the second.
    sizes[1], sizes[2] = sizes[1] + sizes[2], 0
    struct.pack_into(">6I", data, at + 20, *sizes)
    path.write_bytes(data)
    info, pts, numbers = read(path)
    assert numbers == [0, 1, 3, 4, 5]
    assert [p * info.time_base * 25 for p in pts] == numbers


def segment(path: Path, first: int, count: int) -> Path:
    """A transport stream of its own whose times begin at frame `first`."""
    return write_clip(path, count, pts=list(range(first, first + count)), options=SHORT_GOP)


def test_joined_transport_streams(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = [segment(tmp_path / f"{i}.ts", 20 * i, 20) for i in range(3)]
    joined = tmp_path / "joined.ts"
    for order in ((0, 1, 2), (1, 0)):
        joined.write_bytes(b"".join(parts[i].read_bytes() for i in order))
        with caplog.at_level(logging.ERROR):
            _, pts, numbers = read(joined)
        assert numbers == list(range(20)) * len(order)
        assert pts == sorted(set(pts))


def test_a_transport_stream_with_a_gap(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), np.uint8)
    path = write_clip(tmp_path / "a.ts", list(noise), options={"g": "50", "crf": "10"})
    data = path.read_bytes()
    half = len(data) // 188 // 2 * 188
    path.write_bytes(data[:half] + data[half + 5 * 188 :])
    assert "damaged" in refusal(path)


HELD = [0, 40, 80, 120, 2000]


def held_clip(path: Path, **options: Any) -> Path:
    """Frames of 40 ms of which the last but one is held, and a last one to be cut off."""
    return write_clip(path, 5, pts=HELD, time_base=Fraction(1, 1000), **options)


def held_mkv(tmp_path: Path) -> Path:
    """A Matroska file whose last frame is held for 1.88 s, as its tag says."""
    source = held_clip(tmp_path / "source.mp4", options={"bf": "0"})

    def shorter(packets: list[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        packets[3].duration = round(Fraction(1880, 1000) / packets[3].time_base)
        return packets[:4]

    return remux(source, tmp_path / "held.mkv", shorter)


@pytest.mark.parametrize("on_pipe", [False, True])
def test_a_long_last_frame_in_matroska(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_pipe: bool
) -> None:
    path = held_mkv(tmp_path)
    if on_pipe:
        pipe(monkeypatch, path.read_bytes())
    with open_clip("-" if on_pipe else path) as reader:
        frames = list(reader)
        assert [frame.pts for frame in frames] == [0, 40, 80, 120]
        assert reader.end == 2000


def test_tags_copied_from_a_source_are_not_believed(make_clip: MakeClip, tmp_path: Path) -> None:
    source = make_clip("a.mkv", 10, codec="ffv1", pix_fmt="yuv444p")
    tags = {"DURATION": "00:01:00.000000000"}
    path = remux(source, tmp_path / "a.nut", lambda packets: packets, tags)
    with av.open(str(path)) as box:
        assert box.streams.video[0].metadata["DURATION"] == tags["DURATION"]
    assert read(path)[2] == list(range(10))


def with_profile(index: int) -> Image.Image:
    return Image.new("RGB", (64, 48), (30 + 4 * index,) * 3)


def test_pictures_with_a_colour_profile(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = [with_profile(i) for i in range(3)]
    animation = tmp_path / "a.png"
    frames[0].save(
        animation, save_all=True, append_images=frames[1:], duration=100, icc_profile=profile
    )
    assert read(animation)[2] == [0, 1, 2]
    movie = tmp_path / "a.mov"
    with av.open(str(movie), "w") as out:
        stream = out.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for i, frame in enumerate(frames):
            file = io.BytesIO()
            frame.save(file, "PNG", icc_profile=profile)
            packet = Packet(file.getvalue())
            packet.pts = packet.dts = i
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 10), stream, True
            out.mux(packet)
    for _ in range(3):
        assert read(movie)[2] == [0, 1, 2]


def test_music_with_a_cover(tmp_path: Path) -> None:
    path, picture = tmp_path / "song.mp3", io.BytesIO()
    with_profile(0).save(picture, "PNG")
    with av.open(str(path), "w") as out:
        sound = out.add_stream("libmp3lame", rate=44100, layout="mono")
        cover = out.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        packet = Packet(picture.getvalue())
        packet.pts = packet.dts = 0
        packet.stream = cover
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), "fltp", "mono")
        frame.rate = 44100
        out.mux(sound.encode(frame))
        out.mux(packet)
        out.mux(sound.encode(None))
    assert "only audio and a cover picture" in refusal(path)


def test_encrypted_mp4(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 3)
    data = bytearray(path.read_bytes())
    at = box_at(data, b"stsd", b"avc1")
    data[at + 4 : at + 8] = b"encv"
    path.write_bytes(data)
    assert "encrypted" in refusal(path)
    assert "again" not in refusal(path)


def test_heif_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.heif"
    brands = bytes.fromhex("0000001866747970") + b"mif2" + bytes(4) + b"mif2unif"
    path.write_bytes(brands + b"\0\0\0\x10meta" + bytes(8))
    assert "HEIF" in refusal(path)
    assert "moov)" not in refusal(path)


def test_alpha_is_not_said_to_be_ignored_where_it_is_composited(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", 2, codec="ffv1", pix_fmt="yuva420p")
    size, unit, mode = (bytes.fromhex(text) for text in ("b08140ba8130", "54b28104", "53c08101"))
    data = path.read_bytes()
    assert size + unit in data
    path.write_bytes(data.replace(size + unit, size + mode))  # AlphaMode in DisplayUnit's place
    with open_clip(path) as reader:
        assert reader.info.notices == ("its alpha channel is composited onto black",)
