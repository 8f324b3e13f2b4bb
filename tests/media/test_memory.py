"""The size of a picture is known before it is decoded, and no more memory is taken than said."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import cast

import numpy as np
import psutil
import pytest
from PIL import Image

from wfvae_cli.errors import VideoError
from wfvae_cli.media import memory
from wfvae_cli.media.filters import Pixels, over_black
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip

MIB = 1 << 20


def png_of_zeros(width: int, height: int, *, begun: bool = False) -> bytes:
    """A transparent PNG; only its header and the first bytes of its picture if `begun`."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = b"\0" * 64 if begun else bytes(width * 4 + 1) * height
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(rows, 1)),
            chunk(b"IEND", b""),
        )
    )


def test_a_limit_refuses_a_picture_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_of_zeros(13300, 13300, begun=True))  # decoding would call it damaged
    with pytest.raises(VideoError, match=r"decoding its 13300x13300 .* the limit for one image"):
        open_clip(path, Sampling(size=(64, 64)), image_memory=1000 * MIB)


def test_half_of_what_is_free_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 400 * MIB)
    path = tmp_path / "a.png"
    path.write_bytes(png_of_zeros(6000, 6000, begun=True))
    with pytest.raises(VideoError, match=r"half of the memory that is free \(200 MiB\)"):
        open_clip(path)
    monkeypatch.setattr(memory, "free_memory", lambda: 0)
    path.write_bytes(png_of_zeros(100, 100))
    open_clip(path).close()  # small ones always go


def test_more_pixels_than_ffmpeg_scales(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_of_zeros(17000, 16000, begun=True))
    with pytest.raises(VideoError, match=r"17000x16000 pixels, more than the 268435456 allowed"):
        open_clip(path, image_memory=1 << 40)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "jp2", "avif", "webp", "gif"])
def test_pillows_own_limit_does_not_bind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (64, 48), (255, 255, 255)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with open_clip(path) as reader:
        (frame,) = reader
    assert frame.pixels.min() > 250
    assert Image.MAX_IMAGE_PIXELS == 100  # for the rest of the program


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compositing_alpha_takes_little_memory(dtype: type[np.uint8] | type[np.uint16]) -> None:
    rgba = cast(Pixels, np.full((2000, 1000, 4), 100, dtype))
    tracemalloc.start()
    try:
        result = over_black(rgba)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < result.nbytes + 24 * MIB
    expected = np.round(rgba[..., :3].astype(float) * 100 / np.iinfo(dtype).max)
    assert np.array_equal(result, expected)


_PEAK = """
import resource, sys
from pathlib import Path
from PIL import Image
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip
Image.init()
for path in sys.argv[1:]:
    with open_clip(Path(path), Sampling(size=(64, 64))) as reader:
        frames = len(list(reader))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_a_large_picture_takes_a_few_frames(tmp_path: Path) -> None:
    """13.9 GB for 177 million pixels it was: 79 bytes a pixel."""
    side = 3000
    (tmp_path / "small.png").write_bytes(png_of_zeros(64, 64))
    (tmp_path / "large.png").write_bytes(png_of_zeros(side, side))
    paths = [str(tmp_path / "small.png"), str(tmp_path / "large.png")]
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *paths], capture_output=True, text=True, check=True
    )
    before, after = (int(line) * 1024 for line in done.stdout.split())
    assert (after - before) / side**2 < 18


def test_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 <= memory.free_memory() <= psutil.virtual_memory().total
    monkeypatch.setattr(memory, "_free_in_cgroups", lambda: [5, 7])
    assert memory.free_memory() == 5


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_left_in_a_control_group(tmp_path: Path, version: int) -> None:
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (tmp_path / names[0]).write_text(f"{6 << 30}\n")
    (tmp_path / names[1]).write_text(f"{2 << 30}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\n{names[2]} {1 << 30}\n")
    assert memory._free_in(tmp_path, *names) == 5 << 30
    (tmp_path / names[0]).write_text("max\n" if version == 2 else f"{(1 << 63) - 4096}\n")
    assert memory._free_in(tmp_path, *names) is None
    assert memory._free_in(tmp_path / "absent", *names) is None
