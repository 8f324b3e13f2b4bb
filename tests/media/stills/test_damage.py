"""Whatever is done to an image file, it is read, or refused as a damaged input: never a crash."""

from __future__ import annotations

import io
import resource
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.media.test_images import write_deep
from wfvae_cli.errors import InputError
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip

from .test_deep import BT2020_PQ, av1, avif, picture

MIB = 1 << 20
LIMIT = 64 * MIB
"""Bytes that decoding one picture may take."""
BOUND = 400 * MIB
"""Bytes by which the process may grow over all inputs: FFmpeg, which reads PPM, has no limit but
`memory.MAX_PIXELS`, and decoders' own libraries take some."""

Damage = Callable[[np.random.Generator, bytes, bytes], bytes]


def pillow(fmt: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    y, x = np.mgrid[0:48, 0:64]
    pixels = np.stack([x * 4, y * 5, (x * y) % 256], axis=-1).astype(np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    if options.pop("animated", False):
        more = [image.rotate(30 * i) for i in range(1, 4)]
        options |= {"save_all": True, "append_images": more, "duration": 70}
    image.save(file, fmt, **options)
    return file.getvalue()


def tiff(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


@cache
def seeds() -> dict[str, bytes]:
    """Small files of every kind, by a name with their suffix."""
    deep = picture(48, 40)
    exif = Image.Exif()
    exif[274] = 6
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        png16 = write_deep(path, deep, "png", "rgb48be").read_bytes()
        jp2_16 = write_deep(path, deep, "jpeg2000", "rgb48le").read_bytes()
        lzw = write_deep(path, deep, "tiff", "rgb48le", {"compression_algo": "lzw"}).read_bytes()
    return {
        "a.png": pillow("PNG"),
        "alpha.png": pillow("PNG", "RGBA", exif=exif),
        "palette.png": pillow("PNG", "P"),
        "deep.png": png16,
        "animated.png": pillow("PNG", "RGBA", animated=True),
        "a.jpg": pillow("JPEG", exif=exif),
        "progressive.jpg": pillow("JPEG", progressive=True),
        "cmyk.jpg": pillow("JPEG", "CMYK"),
        "a.webp": pillow("WEBP"),
        "alpha.webp": pillow("WEBP", "RGBA", lossless=True),
        "animated.webp": pillow("WEBP", "RGBA", animated=True, method=0),
        "a.gif": pillow("GIF"),
        "animated.gif": pillow("GIF", animated=True),
        "a.tif": pillow("TIFF"),
        "lzw.tif": pillow("TIFF", "RGBA", compression="tiff_lzw"),
        "jpeg.tif": pillow("TIFF", compression="jpeg"),
        "bilevel.tif": pillow("TIFF", "1", compression="group4"),
        "deep.tif": lzw,
        "tiles.tif": tiff(deep, photometric="rgb", tile=(16, 16)),
        "planes.tif": tiff(
            deep.transpose(2, 0, 1),
            photometric="rgb",
            planarconfig="separate",
            compression="zlib",
            predictor=True,
            bigtiff=True,
            byteorder=">",
        ),
        "a.avif": pillow("AVIF", speed=10),
        "alpha.avif": pillow("AVIF", "RGBA", speed=10),
        "animated.avif": pillow("AVIF", animated=True, speed=10),
        "deep.avif": avif(
            [av1(picture())] * 2, 2, (128, 64), colour=BT2020_PQ, alpha=av1(picture(128, 64))
        ),
        "a.bmp": pillow("BMP"),
        "a.ppm": pillow("PPM"),
        "a.dds": pillow("DDS", "RGBA"),
        "a.ico": pillow("ICO", "RGBA", sizes=[(16, 16), (48, 48)]),
        "a.jp2": pillow("JPEG2000"),
        "deep.jp2": jp2_16,
        "a.qoi": pillow("QOI"),
    }


def flip(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Change single bytes."""
    changed = bytearray(data)
    for at in random.integers(0, len(data), random.integers(1, 9)):
        changed[at] = random.integers(0, 256)
    return bytes(changed)


def flip_head(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Put extreme numbers among the first bytes, where sizes and counts are."""
    changed = bytearray(data)
    at = int(random.integers(0, min(len(data), 300)))
    extremes = (
        b"\xff",
        b"\0",
        b"\xff\xff",
        b"\0\0\0\0",
        b"\xff" * 4,
        b"\x7f\xff\xff\xff",
        b"\x40\0",
    )
    extreme = extremes[random.integers(0, len(extremes))]
    changed[at : at + len(extreme)] = extreme
    return bytes(changed[: len(data)])


def cut(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Leave out the end."""
    return data[: random.integers(1, len(data))]


def leave_out(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Leave out a stretch."""
    a, b = sorted(random.integers(0, len(data), 2))
    return data[:a] + data[min(b, a + 200) :]


def splice(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Put a stretch of another file, or of the same, amid the file."""
    source = other if random.integers(0, 2) else data
    a, b = sorted(random.integers(0, len(source), 2))
    part = source[a : min(b, a + 300)]
    at = random.integers(0, len(data))
    return data[:at] + part + data[at + (len(part) if random.integers(0, 2) else 0) :]


def zero(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Overwrite a stretch with zeros."""
    a, b = sorted(random.integers(0, len(data), 2))
    return data[:a] + bytes(b - a) + data[b:]


DAMAGES: tuple[Damage, ...] = (flip, flip, flip_head, flip_head, cut, leave_out, splice, zero)


def damaged(number: int) -> tuple[str, bytes]:
    """Input `number` of the series: always the same."""
    random = np.random.default_rng([16, number])
    names = sorted(seeds())
    name, other = names[number % len(names)], names[random.integers(0, len(names))]
    damage = DAMAGES[random.integers(0, len(DAMAGES))]
    return name, damage(random, seeds()[name], seeds()[other])


def peak() -> int:
    """Bytes of the process at its largest."""
    unit = 1024 if sys.platform == "linux" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def attack(folder: Path, numbers: range, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = folder / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = peak()
    refused = 0
    for number in numbers:
        name, data = damaged(number)
        path = folder / name
        path.write_bytes(data)
        try:
            with open_clip(path, Sampling(frames=20), threads=1, image_memory=LIMIT) as reader:
                for frame in reader:
                    assert frame.pixels.shape == (reader.info.height, reader.info.width, 3)
        except InputError as error:
            assert error.exit_code == 3
            assert name in str(error)
            refused += 1
        except BaseException as error:
            raise AssertionError(f"input {number}, {name}: {error!r}") from error
        assert peak() - before < BOUND, f"input {number}, {name}"
    assert len(numbers) / 4 < refused < len(numbers)  # the damage is neither deadly nor harmless
    assert list(temporary.iterdir()) == []


def test_seeds_are_sound(tmp_path: Path) -> None:
    for name, data in seeds().items():
        (tmp_path / name).write_bytes(data)
        with open_clip(tmp_path / name) as reader:
            frames = list(reader)
        assert len(frames) == (4 if "animated" in name else 1)
        deep = name.startswith(("deep", "tiles", "planes"))
        assert reader.info.bits == (16 if deep else 8)
        assert reader.info.frame_rate == (Fraction(100, 7) if "animated" in name else None)


def test_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack(tmp_path, range(310), monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(10))
def test_much_damage(tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    attack(tmp_path, range(1000 * part + 1000, 1000 * part + 2000), monkeypatch)
