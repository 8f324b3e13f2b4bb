"""Stills of more than 8 bits keep their depth, and say what their colours mean."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image

from tests.media.test_images import write_deep
from wfvae_cli.errors import VideoError
from wfvae_cli.media import svt_av1
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.reader import open_clip
from wfvae_cli.media.stills.heif import brands

Uint16 = NDArray[np.uint16]


def read_one(path: Path) -> tuple[ClipInfo, NDArray[Any]]:
    with open_clip(path) as reader:
        (frame,) = reader
        return reader.info, frame.pixels


def av1(pixels: Uint16, pix_fmt: str = "yuv420p10le") -> bytes:
    """One picture, coded nearly without loss: limited range, BT.2020."""
    encoder = av.CodecContext.create("libsvtav1", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = pixels.shape[1], pixels.shape[0], pix_fmt
    encoder.framerate, encoder.options = Fraction(25), {"preset": "12", "crf": "1"}
    frame = VideoFrame.from_ndarray(pixels, format="rgb48le")
    frame = frame.reformat(format=pix_fmt, dst_colorspace=9, dst_color_range=1)
    frame.pts = 0
    with svt_av1.tamed():
        return b"".join(map(bytes, (*encoder.encode(frame), *encoder.encode(None))))


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def nclx(primaries: int, transfer: int, matrix: int, full_range: bool) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, full_range << 7))


def avif(
    tiles: list[bytes],
    columns: int,
    size: tuple[int, int],
    *,
    colour: bytes,
    alpha: bytes | None = None,
    premultiplied: bool = False,
    turn: bytes = b"",
) -> bytes:
    """An AVIF file of 10 bits: item 1 is a grid, items 2 and on are its tiles, the last is alpha.

    Without a grid where there is one tile.
    """
    items = [*tiles, *([] if alpha is None else [alpha])]
    grid = struct.pack(">BBBBHH", 0, 0, len(tiles) // columns - 1, columns - 1, *size)
    single = len(tiles) == 1
    first = 1 if single else 2
    types = {first + i: b"av01" for i in range(len(items))} | ({} if single else {1: b"grid"})
    infe = [
        full(b"infe", struct.pack(">HH4sB", number, 0, kind, 0), version=2)
        for number, kind in sorted(types.items())
    ]
    references = b""
    if not single:
        numbers = range(2, 2 + len(tiles))
        references += box(b"dimg", struct.pack(f">HH{len(tiles)}H", 1, len(tiles), *numbers))
    last = first + len(items) - 1
    if alpha is not None:
        references += box(b"auxl", struct.pack(">HHH", last, 1, 1))
    if premultiplied:
        references += box(b"prem", struct.pack(">HHH", 1, 1, last))
    urn = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
    properties = [
        full(b"ispe", struct.pack(">II", *size)),
        box(b"av1C", bytes.fromhex("81004c00")),
        colour,
        full(b"auxC", urn),
        turn or box(b"free"),
    ]
    associations = {number: [1, 2, 3] for number in types}
    if turn:
        associations[1] = [1, 2, 3, 5 | 0x80]  # essential
    if alpha is not None:
        associations[last] = [1, 2, 4]
    ipma = struct.pack(">I", len(associations))
    for number, indices in sorted(associations.items()):
        ipma += struct.pack(">HB", number, len(indices)) + bytes(indices)

    def meta(begin: int) -> bytes:
        iloc = struct.pack(">BBH", 0x44, 0, len(types))
        for number, data in enumerate(items, first):
            iloc += struct.pack(">HHHHII", number, 0, 0, 1, begin, len(data))
            begin += len(data)
        if not single:
            iloc += struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(grid))
        return full(
            b"meta",
            full(b"hdlr", struct.pack(">I4s12sB", 0, b"pict", bytes(12), 0)),
            full(b"pitm", struct.pack(">H", 1)),
            full(b"iloc", iloc, version=1),
            full(b"iinf", struct.pack(">H", len(infe)), *infe),
            box(b"iprp", box(b"ipco", *properties), full(b"ipma", ipma)),
            full(b"iref", references) if references else b"",
            box(b"idat", grid),
        )

    head = box(b"ftyp", b"avif\0\0\0\0avifmif1miaf")
    begin = len(head) + len(meta(0)) + 8
    return head + meta(begin) + box(b"mdat", *items)


BT2020_PQ = nclx(9, 16, 9, False)


def picture(width: int = 64, height: int = 64) -> Uint16:
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x / width, y / height, 1 - x / width], axis=-1) * 0.5 + 0.25
    return (rgb * 65535).astype(np.uint16)


def test_avif_of_10_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    path.write_bytes(avif([av1(picture())], 1, (64, 64), colour=BT2020_PQ))
    info, got = read_one(path)
    assert np.abs(got.astype(int) - picture()).max() < 65535 / 50
    assert len(np.unique(got)) > 400  # more levels than 8 bits have
    assert (info.bits, info.source_bits, info.pixel_format) == (16, 10, "yuv420p10le")
    assert (info.colour.primaries, info.colour.transfer) == ("bt2020", "smpte2084")
    assert (info.container, info.is_image) == ("avif", True)


def test_avif_in_a_grid(tmp_path: Path) -> None:
    whole = picture(110, 100)
    padded = np.pad(whole, ((0, 28), (0, 18), (0, 0)), "edge")
    tiles = [av1(padded[y : y + 64, x : x + 64]) for y in (0, 64) for x in (0, 64)]
    path = tmp_path / "a.avif"
    path.write_bytes(avif(tiles, 2, (110, 100), colour=BT2020_PQ))
    _, got = read_one(path)
    assert got.shape == (100, 110, 3)
    assert np.abs(got.astype(int) - whole).max() < 65535 / 50


@pytest.mark.parametrize("premultiplied", [False, True])
def test_avif_alpha(tmp_path: Path, premultiplied: bool) -> None:
    grey = np.full((64, 64, 3), 40000, np.uint16)
    # Alpha is of full range; its encoder believes in a limited one.
    alpha = av1(grey)
    path = tmp_path / "a.avif"
    data = avif(
        [av1(picture())], 1, (64, 64), colour=BT2020_PQ, alpha=alpha, premultiplied=premultiplied
    )
    path.write_bytes(data)
    info, got = read_one(path)
    luma = (64 + 40000 / 65535 * 876) / 1023
    expected = picture() * (1 if premultiplied else luma)
    assert np.abs(got - expected.astype(float)).max() < 65535 / 50
    assert info.notices == ("its alpha channel is composited onto black",)


def test_avif_whose_grid_repeats_a_tile(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    data = avif([av1(picture())] * 2, 2, (128, 64), colour=BT2020_PQ)
    tiles = struct.pack(">HHHH", 1, 2, 2, 3)
    path.write_bytes(data.replace(tiles, struct.pack(">HHHH", 1, 2, 2, 2)))
    with pytest.raises(VideoError, match="damaged"):
        open_clip(path)


def test_avif_whose_tiles_do_not_fill_its_grid(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    path.write_bytes(avif([av1(picture())] * 2, 2, (200, 64), colour=BT2020_PQ))
    with pytest.raises(VideoError, match="damaged"):
        open_clip(path)


def test_avif_turned(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    turn = box(b"irot", b"\1")  # a quarter, anticlockwise
    path.write_bytes(avif([av1(picture(96, 64))], 1, (96, 64), colour=BT2020_PQ, turn=turn))
    _, got = read_one(path)
    assert np.abs(got.astype(int) - np.rot90(picture(96, 64))).max() < 65535 / 50


def test_8_bit_avif_keeps_its_colour_description(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    Image.new("RGB", (64, 64), (90, 90, 90)).save(path)
    data = path.read_bytes()
    at = data.index(b"colrnclx") + 8
    path.write_bytes(data[:at] + struct.pack(">HH", 9, 18) + data[at + 4 :])
    info, _ = read_one(path)
    assert (info.bits, info.colour.primaries, info.colour.transfer) == (
        8,
        "bt2020",
        "arib-std-b67",
    )


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_cut_avif_is_called_damaged(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.avif"
    noise = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), np.uint16)
    data = avif([av1(noise)], 1, (64, 64), colour=BT2020_PQ)
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(VideoError, match="damaged or cut short"):
        open_clip(path)


@pytest.mark.parametrize("major", [b"heic", b"mif1", b"mif2", b"msf1", b"hevc", b"avci", b"unif"])
def test_other_heif_is_named(tmp_path: Path, major: bytes) -> None:
    path = tmp_path / "a.heif"
    path.write_bytes(box(b"ftyp", major, bytes(4), b"mif1heic") + full(b"meta") + bytes(50))
    with pytest.raises(VideoError, match=rf"HEIF image \(brand {major.decode()}\).*only AVIF"):
        open_clip(path)


def test_brands() -> None:
    assert brands(box(b"ftyp", b"mif1", bytes(4), b"mif1avif")) == (b"mif1", b"mif1", b"avif")
    assert brands(b"") == brands(b"\0\0\0\x14moov" + bytes(20)) == ()


@pytest.mark.parametrize("pix_fmt", ["rgb48le", "gray16le", "gray12le", "rgba64le", "gbrp12le"])
def test_jpeg_2000(tmp_path: Path, pix_fmt: str) -> None:
    bits = 12 if "12" in pix_fmt else 16
    levels = picture() >> (16 - bits)
    levels[0, 0], levels[0, 1] = 2**bits - 1, 0
    levels = (levels.astype(np.uint32) * 65535 // (2**bits - 1)).astype(np.uint16)
    if pix_fmt.startswith("gray"):
        levels[...] = levels[..., :1]
    sent = levels
    if pix_fmt == "rgba64le":
        sent = np.dstack([levels, np.full((64, 64), 32768, np.uint16)])
        levels = (levels.astype(np.uint32) * 32768 // 65535).astype(np.uint16)
    path = write_deep(tmp_path / "a.jp2", sent, "jpeg2000", pix_fmt, {"pred": "dwt53"})
    info, got = read_one(path)
    assert np.abs(got.astype(int) - levels).max() <= (1 if bits == 16 else 20)
    assert (info.bits, info.source_bits, info.container) == (16, bits, "jpeg2000")
    if bits == 12:
        assert got.max() == 65535


def cicp_png(depth: int, colour: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    row = b"\0" + (struct.pack(">3H", 60000, 20000, 0) if depth == 16 else b"\xeb\x7d\x10") * 16
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, 2, 0, 0, 0)),
            chunk(b"cICP", colour),
            chunk(b"IDAT", zlib.compress(row * 16)),
            chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize("depth", [8, 16])
def test_png_keeps_its_colour_description(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(cicp_png(depth, bytes((9, 16, 0, 1))))
    info, got = read_one(path)
    assert (info.colour.primaries, info.colour.transfer) == ("bt2020", "smpte2084")
    assert got[0, 0].tolist() == ([60000, 20000, 0] if depth == 16 else [0xEB, 0x7D, 0x10])


def test_png_of_limited_range(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(cicp_png(8, bytes((9, 16, 0, 0))))
    assert read_one(path)[1][0, 0].tolist() == [255, 127, 0]
