"""Crops and encryption of video tracks, read from files whose headers are whole or damaged."""

from __future__ import annotations

import io
import struct
from random import Random

import pytest

from tests.fuzz.mutate import damaged
from wfvae_cli.media.headers import Crop, VideoTrack, video_tracks

from .conftest import MakeClip

CLAP = struct.pack(">I4s8i", 40, b"clap", 60, 1, 44, 1, 0, 1, 1, 1)


def tracks(data: bytes) -> list[VideoTrack]:
    """What a file of these bytes holds; buffered, since such files refuse to read -2 bytes."""
    return video_tracks(io.BufferedReader(io.BytesIO(data)))


@pytest.fixture
def clean_aperture(make_clip: MakeClip) -> bytes:
    """An MP4 of 64x48 whose `clap` box shows 60x44, one row below the middle."""
    data = bytearray(make_clip("clap.mp4", 2).read_bytes())
    entry = data.index(b"avc1", data.index(b"stsd")) - 4
    end = entry + int.from_bytes(data[entry : entry + 4], "big")
    data[end:end] = CLAP
    parents = [
        data.index(name) - 4 for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    ]
    for begin in (*parents, entry):
        size = int.from_bytes(data[begin : begin + 4], "big") + len(CLAP)
        data[begin : begin + 4] = size.to_bytes(4, "big")
    return bytes(data)


def test_clean_aperture(clean_aperture: bytes) -> None:
    assert tracks(clean_aperture) == [VideoTrack(Crop(left=2, top=3, right=2, bottom=1))]


def test_a_part_that_would_begin_behind_the_end_of_its_parent(clean_aperture: bytes) -> None:
    """A box whose long size does not fit, and an element whose size does not."""
    cut = bytearray(clean_aperture)
    at = cut.index(b"hdlr") - 4
    mdia = cut.index(b"mdia") - 4
    cut[at : at + 4] = (1).to_bytes(4, "big")  # the size follows, in 8 bytes
    cut[mdia : mdia + 4] = (at + 12 - mdia).to_bytes(4, "big")
    assert tracks(bytes(cut)) == []
    type_of_track = b"\x83\x40\x01\x01"  # an ID, then a size of two bytes
    entry = b"\xae\x82" + type_of_track[:2]
    inner = b"\x16\x54\xae\x6b" + bytes([0x80 + len(entry) + 2]) + entry + type_of_track[2:]
    matroska = b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67" + bytes([0x80 + len(inner)]) + inner
    assert tracks(matroska) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "clap"])
def test_damage_is_never_an_error(make_clip: MakeClip, clean_aperture: bytes, name: str) -> None:
    good = clean_aperture if name == "clap" else make_clip(name, 2).read_bytes()
    assert len(tracks(good)) == 1
    random = Random(7)
    for _ in range(3000):
        for track in tracks(damaged(good, random)):
            assert min(track.crop.left, track.crop.top) >= 0
