"""Parts of GIFs and APNGs are laid onto each other as their specifications say."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wfvae_cli.errors import VideoError
from wfvae_cli.media.reader import open_clip

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
KEEP, BACKGROUND, PREVIOUS = 1, 2, 3
SIZE = (8, 4)


def read(path: Path) -> list[NDArray[np.uint8]]:
    with open_clip(path) as reader:
        return [frame.pixels.astype(np.uint8) for frame in reader]


def gif_part(colour: int, box: tuple[int, int, int, int], disposal: int, key: int | None) -> bytes:
    """A control block and a rectangle of one colour, whose left column is of colour 3."""
    width, height = box[2:]
    indices = np.full((height, width), colour, np.uint8)
    indices[:, 0] = 3
    image = Image.fromarray(indices).convert("P")
    image.putpalette(bytes(range(256)) * 3)
    data = io.BytesIO()
    image.save(data, "GIF", optimize=False, interlace=0)
    whole = data.getvalue()
    begin = whole.index(b"\x2c" + struct.pack("<4H", 0, 0, width, height))
    flags = disposal << 2 | (key is not None)
    control = b"\x21\xf9\x04" + struct.pack("<BHBB", flags, 10, key or 0, 0)
    return control + b"\x2c" + struct.pack("<4HB", *box, 0) + whole[begin + 10 : -1]


def write_gif(path: Path, *parts: bytes) -> Path:
    palette = bytes((*RED, *GREEN, *BLUE, 9, 9, 9)) + bytes(252 * 3)
    head = b"GIF89a" + struct.pack("<HHBBB", *SIZE, 0xF7, 0, 0)
    path.write_bytes(head + palette + b"".join(parts) + b";")
    return path


@pytest.mark.parametrize(
    ("disposal", "left_behind"), [(KEEP, GREEN), (BACKGROUND, BLACK), (PREVIOUS, RED), (0, GREEN)]
)
def test_disposal_in_gif(tmp_path: Path, disposal: int, left_behind: tuple[int, ...]) -> None:
    path = write_gif(
        tmp_path / "a.gif",
        gif_part(0, (0, 0, *SIZE), KEEP, None),
        gif_part(1, (2, 1, 4, 2), disposal, 3),
        gif_part(2, (6, 3, 2, 1), KEEP, None),
    )
    first, second, third = read(path)
    assert first[1, 3].tolist() == list(RED)
    assert second[1, 3].tolist() == list(GREEN)
    assert second[1, 2].tolist() == list(RED)  # transparent there
    assert third[1, 3].tolist() == list(left_behind)
    assert third[0, 3].tolist() == list(RED)
    assert third[3, 7].tolist() == list(BLUE)


def test_a_first_gif_picture_that_is_not_left_there(tmp_path: Path) -> None:
    path = write_gif(
        tmp_path / "a.gif",
        gif_part(0, (0, 0, *SIZE), PREVIOUS, None),
        gif_part(1, (2, 1, 4, 2), KEEP, None),
    )
    _, second = read(path)
    assert second[0, 5].tolist() == list(BLACK)
    assert second[1, 3].tolist() == list(GREEN)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_apng(
    path: Path, *parts: tuple[tuple[int, ...], tuple[int, int, int, int], int, int]
) -> Path:
    """An APNG of rectangles: RGBA, (x, y, width, height), disposal and blending of each."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 6, 0, 0, 0))]
    chunks.append((b"acTL", struct.pack(">II", len(parts), 0)))
    number = 0
    for index, (colour, (x, y, width, height), disposal, blending) in enumerate(parts):
        control = struct.pack(">5IHHBB", number, width, height, x, y, 1, 10, disposal, blending)
        pixels = zlib.compress((b"\0" + bytes(colour) * width) * height)
        number += 1
        chunks.append((b"fcTL", control))
        if index:
            pixels = struct.pack(">I", number) + pixels
            number += 1
        chunks.append((b"fdAT" if index else b"IDAT", pixels))
    data = b"".join(chunk(*each) for each in [*chunks, (b"IEND", b"")])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


@pytest.mark.parametrize(
    ("disposal", "left_behind"), [(0, (100, 50, 128)), (1, BLACK), (2, (200, 100, 0))]
)
def test_blending_and_disposal_in_apng(
    tmp_path: Path, disposal: int, left_behind: tuple[int, ...]
) -> None:
    path = write_apng(
        tmp_path / "a.png",
        ((200, 100, 0, 255), (0, 0, *SIZE), 0, 0),
        ((0, 0, 255, 128), (2, 1, 4, 2), disposal, 1),
        ((0, 0, 255, 128), (6, 3, 2, 1), 0, 0),
    )
    first, second, third = read(path)
    assert first[1, 3].tolist() == [200, 100, 0]
    assert second[1, 3].tolist() == [100, 50, 128]
    assert third[1, 3].tolist() == list(left_behind)
    assert third[3, 7].tolist() == [0, 0, 128]  # in the place of what was there


def test_a_damaged_frame_of_an_apng(tmp_path: Path) -> None:
    path = write_apng(tmp_path / "a.png", *[((9, 8, 7, 255), (0, 0, *SIZE), 0, 0)] * 3)
    data = path.read_bytes()
    assert len(read(path)) == 3
    at = data.rindex(b"fdAT") + 10
    path.write_bytes(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
    with pytest.raises(VideoError, match="checksum of its fdAT"):
        read(path)
    path.write_bytes(
        data.replace(struct.pack(">5I", 3, *SIZE, 0, 0), struct.pack(">5I", 7, 0, 0, 0, 0))
    )
    with pytest.raises(VideoError, match="damaged"):
        read(path)
