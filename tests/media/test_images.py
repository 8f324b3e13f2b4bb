from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image

from wfvae_cli.errors import VideoError
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.images import sequence
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.picture import is_image
from wfvae_cli.media.reader import open_clip

from .conftest import number_of, numbered, read


def read_one(path: Path | str, **options: Any) -> tuple[ClipInfo, NDArray[Any]]:
    with open_clip(path, Sampling(**options)) as reader:
        frames = list(reader)
        assert [f.pts for f in frames] == [0]
        return reader.info, frames[0].pixels


def picture(width: int = 40, height: int = 24) -> NDArray[np.uint8]:
    """Smooth, every corner of its own colour."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 / width, y * 255 / height, 255 - x * 255 / width], axis=-1)
    return rgb.astype(np.uint8)


def write_deep(
    path: Path,
    pixels: NDArray[np.uint16],
    codec: str,
    pix_fmt: str,
    options: dict[str, str] | None = None,
) -> Path:
    """One image of over 8 bits, through FFmpeg: Pillow writes none in colour."""
    context = av.CodecContext.create(codec, "w")
    context.options = options or {}
    context.width, context.height = pixels.shape[1], pixels.shape[0]  # type: ignore[attr-defined] # of the video context that it is
    context.pix_fmt = pix_fmt  # type: ignore[attr-defined] # same
    context.time_base = Fraction(1, 25)
    if pix_fmt.startswith("gray"):
        frame = VideoFrame.from_ndarray(pixels[..., 0], format="gray16le")
    else:
        source = "rgb48le" if pixels.shape[2] == 3 else "rgba64le"
        frame = VideoFrame.from_ndarray(pixels, format=source)
    packets = context.encode(frame.reformat(format=pix_fmt)) + context.encode(None)  # type: ignore[attr-defined] # same
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif", "ppm", "tga", "jpg"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    options: dict[str, Any] = {
        "webp": {"lossless": True},
        "jpg": {"quality": 100, "subsampling": 0},
    }
    Image.fromarray(picture()).save(path, **options.get(suffix, {}))
    info, pixels = read_one(path)
    loss = {"jpg": 4, "gif": 40}.get(suffix, 0)
    assert np.abs(pixels.astype(int) - picture()).max() <= loss
    assert pixels.dtype == np.uint8
    assert (info.width, info.height, info.frames, info.bits) == (40, 24, 1, 8)
    assert info.is_image
    assert info.frame_rate is None
    assert info.colour.matrix == "gbr"
    assert not info.notices


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture()).save(path, exif=exif, quality=100, subsampling=0)
    upright = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: np.rot90(p, 2),
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
        8: lambda p: np.rot90(p, 1),
    }[orientation](picture())
    info, pixels = read_one(path)
    assert pixels.shape == upright.shape == (info.height, info.width, 3)
    assert np.abs(pixels.astype(int) - upright).max() <= 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "YCbCr", "RGBA"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    image = Image.fromarray(picture()).convert(mode)
    options: dict[str, Any] = {"quality": 100} if path.suffix == ".jpg" else {}
    image.save(path, **options)
    _, pixels = read_one(path)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels - expected).mean() <= 2


def test_alpha_goes_onto_black_with_a_notice(tmp_path: Path) -> None:
    rgba = np.dstack([picture(), np.full((24, 40), 100, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    info, pixels = read_one(tmp_path / "a.png")
    assert np.abs(pixels - picture() * (100 / 255)).max() <= 0.51
    assert any("black" in notice for notice in info.notices)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.png", "png", "rgb48be"),
        ("a.png", "png", "gray16be"),
        ("a.tiff", "tiff", "rgb48le"),
        ("a.tiff", "tiff", "gray16le"),
    ],
)
def test_sixteen_bits_stay(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    ramp = np.linspace(0, 65535, 24 * 40).round().astype(np.uint16).reshape(24, 40)
    deep = np.repeat(ramp[..., None], 3, axis=2)
    info, pixels = read_one(write_deep(tmp_path / name, deep, codec, pix_fmt))
    assert (info.bits, info.source_bits) == (16, 16)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, deep)
    assert info.is_image


def test_sixteen_bits_with_alpha(tmp_path: Path) -> None:
    deep = np.full((24, 40, 4), 65535, np.uint16)
    deep[:, 20:, 3] = 20000
    info, pixels = read_one(write_deep(tmp_path / "a.png", deep, "png", "rgba64be"))
    assert np.all(pixels[:, :20] == 65535)
    assert np.all(pixels[:, 20:] == 20000)
    assert any("black" in notice for notice in info.notices)


def test_grey_sixteen_bit_tiff_of_pillow(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 960).astype(np.uint16).reshape(24, 40)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    _, pixels = read_one(tmp_path / "a.tif")
    assert np.array_equal(pixels[..., 1], ramp)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_unknown_range_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(VideoError, match="32 bits"):
        open_clip(tmp_path / "a.tif")


def test_size(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    info, pixels = read_one(tmp_path / "a.png", size=(16, 16), fps=Fraction(5), duration=3)
    assert pixels.shape == (16, 16, 3)
    assert info.frame_rate is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_truncated(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(VideoError, match=r"a\.\w+: the image is damaged|not an image"):
        open_clip(path)


def test_truncated_deep(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 65535, (60, 60, 3), np.uint16)
    path = write_deep(tmp_path / "a.png", noise, "png", "rgb48be")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(VideoError, match="damaged"):
        open_clip(path)


def test_heic_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(VideoError, match="HEIF"):
        open_clip(path)


@pytest.mark.parametrize(
    ("name", "header", "channels"),
    [("a.ppm", b"P6 8 4 255\n", 3), ("a.pgm", b"P5\n8 4\n255\n", 1), ("a.y4m", b"", 1)],
)
def test_binary_pictures_that_look_like_text(
    tmp_path: Path, name: str, header: bytes, channels: int
) -> None:
    samples = bytes(range(ord("0"), ord("0") + 32)) * channels
    if name == "a.y4m":
        header = b"YUV4MPEG2 W8 H4 F25:1 Ip Cmono XCOLORRANGE=FULL\nFRAME\n"
    (tmp_path / name).write_bytes(header + samples)
    with open_clip(tmp_path / name) as reader:
        (frame,) = reader
    expected = np.frombuffer(samples, np.uint8).reshape(4, 8, channels)
    assert np.array_equal(frame.pixels, np.broadcast_to(expected, (4, 8, 3)))


def test_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    data = io.BytesIO((tmp_path / "a.png").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    info, pixels = read_one("-")
    assert np.array_equal(pixels, picture())
    assert info.is_image


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "BMP"])
def test_a_stream_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str) -> None:
    parts = []
    for index in range(5):
        part = io.BytesIO()
        Image.fromarray(numbered(index)).save(part, fmt)
        parts.append(part.getvalue())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"".join(parts))))
    assert read("-")[2] == list(range(5))
    path = tmp_path / "frames"
    path.write_bytes(b"".join(parts))
    assert read(path)[2] == list(range(5))


def test_a_jpeg_of_two_views_is_one_picture(tmp_path: Path) -> None:
    views = [Image.fromarray(numbered(index)) for index in range(2)]
    path = tmp_path / "a.mpo"
    views[0].save(path, save_all=True, append_images=views[1:])
    assert read(path)[2] == [0]


@pytest.mark.parametrize("bits", [2, 4])
def test_a_transparent_grey_of_few_bits(tmp_path: Path, bits: int) -> None:
    white, peak = (1 << bits) - 1, 255
    samples = np.repeat(np.arange(white + 1, dtype=np.uint8), 2)
    packed = np.packbits(np.unpackbits(samples[:, None], axis=1)[:, 8 - bits :]).tobytes()
    body = b"\0" + packed
    header = struct.pack(">IIBBBBB", len(samples), 1, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", struct.pack(">H", white))]
    chunks += [(b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in chunks
    )
    (tmp_path / "a.png").write_bytes(data)
    _, pixels = read_one(tmp_path / "a.png")
    expected = samples.astype(int) * peak // white
    expected[samples == white] = 0
    assert pixels[0, :, 0].tolist() == expected.tolist()


def test_kinds_that_cannot_be_decoded_are_not_called_damaged(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    frame = data.index(b"\xff\xc0")
    deep = data[: frame + 1] + b"\xc1" + data[frame + 2 : frame + 4] + b"\x0c" + data[frame + 5 :]
    (tmp_path / "a.jpg").write_bytes(deep)
    psd = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 16, 3) + bytes(500)
    (tmp_path / "a.psd").write_bytes(psd)
    for name, why in (("a.jpg", "12-bit"), ("a.psd", "16 bits")):
        with pytest.raises(VideoError, match=f"of a kind that cannot be decoded .*{why}"):
            read_one(tmp_path / name)


def test_pictures_that_are_programs(tmp_path: Path) -> None:
    xbm = (
        "#define a_width 16\n#define a_height 2\nstatic char a_bits[] = {\n0xff,0x00,0x0f,0xf0 };\n"
    )
    xpm = '/* XPM */\nstatic char *a[] = {\n"2 1 2 1",\n"a c #FF0000",\n"b c #0000FF",\n"ab"\n};\n'
    (tmp_path / "a.xbm").write_text(xbm)
    (tmp_path / "a.xpm").write_text(xpm)
    _, bits = read_one(tmp_path / "a.xbm")
    assert bits.shape == (2, 16, 3)
    assert bits[0, :, 0].tolist() == [0] * 8 + [255] * 8
    _, pixels = read_one(tmp_path / "a.xpm")
    assert pixels.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    (tmp_path / "a.xbm").write_text("#define WIDTH 16\nint main(void) { return 0; }\n")
    with pytest.raises(VideoError, match="text file"):
        read_one(tmp_path / "a.xbm")


def test_is_image() -> None:
    assert is_image(b"\x89PNG\r\n\x1a\n" + bytes(24))
    assert not is_image(b"RIFF\0\0\0\0AVI LIST")
    assert not is_image(b"BMW is not a bitmap")
    assert not is_image(b"")


@pytest.fixture
def frames(tmp_path: Path) -> Callable[..., Path]:
    def make(numbers: list[int], width: int = 5, **sizes: int) -> Path:
        for i in numbers:
            Image.fromarray(numbered(i, **sizes)).save(tmp_path / f"f_{i:0{width}d}.png")
        return tmp_path / f"f_%0{width}d.png"

    return make


def test_sequence_ends_at_the_first_gap_and_says_so(frames: Callable[..., Path]) -> None:
    pattern = frames([7, 8, 9, 11, 12])
    with open_clip(pattern) as reader:
        got = list(reader)
        info = reader.info
    (notice,) = info.notices
    assert "ends before number 10, which is missing; 2 later images, from f_00011.png" in notice
    assert [number_of(f.pixels) for f in got] == [7, 8, 9]
    assert [f.pts for f in got] == [0, 1, 2]
    assert (info.frames, info.frame_rate) == (3, Fraction(25))
    assert info.time_base == Fraction(1, 25)
    assert not info.is_image


def test_sequence_rate_and_sampling(frames: Callable[..., Path]) -> None:
    pattern = frames(list(range(20)))
    sampling = Sampling(start=0.5, fps=Fraction(5), frames=4)
    with open_clip(pattern, sampling, frame_rate=Fraction(10)) as reader:
        got = [number_of(f.pixels) for f in reader]
        assert reader.info.start == Fraction(1, 2)
    assert got == [5, 7, 9, 11]  # the later of two at one frame
    with pytest.raises(VideoError, match=r"20 images are 0\.800 s long"):
        open_clip(pattern, Sampling(start=0.8))


@pytest.mark.parametrize("pattern", ["%d.png", "%3d.png", "x%04d.png"])
def test_digits_of_a_pattern(tmp_path: Path, pattern: str) -> None:
    for i in (9, 10, 11):
        Image.fromarray(numbered(i)).save(tmp_path / (pattern % i).replace(" ", ""))
    (tmp_path / "note.txt").touch()
    if pattern == "%3d.png":  # padded with spaces: no pattern of ours
        with pytest.raises(VideoError):
            open_clip(tmp_path / pattern)
    else:
        assert len(sequence(tmp_path / pattern)) == 3


def test_no_file_of_the_pattern(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"no file matches, such as f_00000\.png"):
        open_clip(tmp_path / "f_%05d.png")


def test_sequence_of_changing_size(frames: Callable[..., Path]) -> None:
    frames([0, 1], width=5)
    pattern = frames([2], width=5, height=50)
    with open_clip(pattern) as reader, pytest.raises(VideoError, match="64x48 to 64x50"):
        list(reader)


def test_sequence_of_changing_depth(tmp_path: Path, frames: Callable[..., Path]) -> None:
    pattern = frames([1])
    deep = np.full((48, 64, 3), 40000, np.uint16)
    write_deep(tmp_path / "f_00002.png", deep, "png", "rgb48be")
    with open_clip(pattern) as reader, pytest.raises(VideoError, match="16 bits"):
        list(reader)
    write_deep(tmp_path / "f_00000.png", deep, "png", "rgb48be")
    with open_clip(pattern, Sampling(frames=2)) as reader:
        first, second = reader
    assert np.all(first.pixels == 40000)
    assert np.array_equal(second.pixels, numbered(1).astype(np.uint16) * 257)
