"""PNG files are judged by their picture, not by what else they carry."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from wfvae_cli.errors import VideoError
from wfvae_cli.media.reader import open_clip
from wfvae_cli.media.stills.png import without_metadata

LARGE = "x" * 1_500_000


def chunk(kind: bytes, body: bytes, *, wrong: bool = False) -> bytes:
    checked = kind + body
    return (
        struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(checked) ^ wrong)
    )


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8 | np.uint16]]:
    with open_clip(path) as reader:
        (frame,) = reader
        return frame.pixels


def with_chunk(path: Path, extra: bytes) -> Path:
    """A picture with a chunk behind its header."""
    Image.new("RGB", (64, 48), (200, 30, 60)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:33] + extra + data[33:])
    return path


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
def test_large_metadata(tmp_path: Path, kind: str) -> None:
    info = PngImagePlugin.PngInfo()
    if kind == "zTXt":
        info.add_text("workflow", LARGE, zip=True)
    elif kind == "iTXt":
        info.add_itxt("XML:com.adobe.xmp", LARGE, zip=True)
    profile = bytes(2_000_000) if kind == "iCCP" else None
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 48), (200, 30, 60)).save(path, pnginfo=info, icc_profile=profile)
    assert (pixels(path) == (200, 30, 60)).all()


@pytest.mark.parametrize("kind", [b"tEXt", b"eXIf", b"iTXt", b"gAMA", b"pHYs", b"cICP", b"prVt"])
def test_wrong_crc_of_what_is_no_picture(tmp_path: Path, kind: bytes) -> None:
    path = with_chunk(tmp_path / "a.png", chunk(kind, b"Comment\0hello", wrong=True))
    assert (pixels(path) == (200, 30, 60)).all()


def test_wrong_crc_of_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 48), (200, 30, 60)).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") - 8] ^= 1  # in the header
    path.write_bytes(data)
    with pytest.raises(VideoError, match="damaged"):
        open_clip(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_orientation_in_xmp_is_kept(tmp_path: Path, compressed: bool) -> None:
    info = PngImagePlugin.PngInfo()
    xmp = '<rdf:Description tiff:Orientation="6"/>'
    info.add_itxt("XML:com.adobe.xmp", xmp, zip=compressed)
    info.add_text("workflow", LARGE, zip=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png", pnginfo=info)
    assert pixels(tmp_path / "a.png").shape == (64, 48, 3)


def test_a_file_without_metadata_is_not_copied(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert without_metadata(data) is data
