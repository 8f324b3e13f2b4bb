"""16-bit TIFF in every layout, equal to what was stored and to its 8-bit twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.media.test_images import write_deep
from wfvae_cli.errors import VideoError
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.reader import open_clip

Uint16 = NDArray[np.uint16]


def read_one(path: Path) -> tuple[ClipInfo, NDArray[Any]]:
    with open_clip(path) as reader:
        (frame,) = reader
        return reader.info, frame.pixels


def noise(samples: int, width: int = 77, height: int = 50) -> Uint16:
    return np.random.default_rng(7).integers(0, 65536, (height, width, samples), np.uint16)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"bigtiff": True, "byteorder": ">"},
        {"rowsperstrip": 7},
        {"compression": "zlib", "rowsperstrip": 7},
        {"compression": "zlib", "predictor": True, "byteorder": ">"},
        {"tile": (16, 16)},
        {"tile": (16, 32), "byteorder": ">"},
        {"tile": (32, 16), "compression": "zlib", "predictor": True},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "tile": (16, 16), "compression": "zlib"},
        {"planarconfig": "separate", "rowsperstrip": 9, "predictor": True, "compression": "zlib"},
    ],
    ids=str,
)
def test_layouts(tmp_path: Path, layout: dict[str, Any]) -> None:
    pixels = noise(3)
    stored = pixels.transpose(2, 0, 1) if "planarconfig" in layout else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **layout)
    info, got = read_one(tmp_path / "a.tif")
    assert np.array_equal(got, pixels)
    assert (info.bits, info.source_bits, info.container) == (16, 16, "tiff")
    assert info.pixel_format == ("rgb48be" if layout.get("byteorder") == ">" else "rgb48le")
    assert not info.notices


@pytest.mark.parametrize("compression", ["lzw", "packbits", "deflate", "raw"])
def test_compressions_of_ffmpeg(tmp_path: Path, compression: str) -> None:
    pixels = np.repeat(noise(3, 8, 50), 9, axis=1)
    options = {"compression_algo": compression}
    path = write_deep(tmp_path / "a.tif", pixels, "tiff", "rgb48le", options)
    assert np.array_equal(read_one(path)[1], pixels)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"compression": "zlib"}], ids=str)
def test_pillows_limit_does_not_bind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any]
) -> None:
    # 16-bit samples are shown to Pillow as six 8-bit pixels for one.
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", **layout)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert np.array_equal(read_one(tmp_path / "a.tif")[1], noise(3))


def test_rows_are_converted_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfvae_cli.media.stills.pillow_image._BAND_PIXELS", 4000)
    pixels = noise(4)
    options: dict[str, Any] = {"extrasamples": ["unspecified"]}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", **options)
    assert np.array_equal(read_one(tmp_path / "a.tif")[1], pixels[..., :3])


@pytest.mark.parametrize("extra", ["assocalpha", "unassalpha", "unspecified"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_extra_samples_are_what_they_are_declared_to_be(
    tmp_path: Path, extra: str, byteorder: Any
) -> None:
    pixels = noise(4)
    if extra == "assocalpha":
        pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])
    options: dict[str, Any] = {"photometric": "rgb", "extrasamples": [extra]}
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=byteorder, **options)
    info, got = read_one(tmp_path / "a.tif")
    colours, alpha = pixels[..., :3].astype(float), pixels[..., 3:].astype(float)
    expected = colours * alpha / 65535 if extra == "unassalpha" else colours
    assert np.abs(got - expected).max() <= 0.5
    assert any("black" in notice for notice in info.notices) == (extra != "unspecified")


def write_twins(folder: Path, shallow: NDArray[np.uint8], **options: Any) -> tuple[Path, Path]:
    """One picture at 8 and at 16 bits a sample."""
    for bits, pixels in ((8, shallow), (16, shallow.astype(np.uint16) * 257)):
        tifffile.imwrite(folder / f"{bits}.tif", pixels, **options)
    return folder / "8.tif", folder / "16.tif"


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (1, {"photometric": "minisblack"}),
        (1, {"photometric": "miniswhite"}),
        (3, {"photometric": "rgb"}),
        (4, {"photometric": "separated"}),
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        (5, {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]}),
        (5, {"photometric": "rgb", "extrasamples": ["unspecified", "unassalpha"]}),
        (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        (2, {"photometric": "minisblack", "extrasamples": ["assocalpha"]}),
        (5, {"photometric": "separated", "extrasamples": ["unassalpha"]}),
    ],
)
def test_equal_to_the_8_bit_twin(tmp_path: Path, samples: int, options: dict[str, Any]) -> None:
    shallow = np.random.default_rng(3).integers(0, 256, (20, 30, samples), np.uint8)
    twins = write_twins(tmp_path, shallow[..., 0] if samples == 1 else shallow, **options)
    (_, at_8), (_, at_16) = map(read_one, twins)
    assert [at_8.dtype, at_16.dtype] == [np.dtype(np.uint8), np.dtype(np.uint16)]
    assert np.abs(at_16 / 257 - at_8).max() <= 1


def test_associated_alpha_of_8_bits_is_not_multiplied_again(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30, 4), np.uint8)
    pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])
    options: dict[str, Any] = {"photometric": "rgb", "extrasamples": ["assocalpha"]}
    tiled: dict[str, Any] = {"tile": (16, 16), "compression": "zlib", "predictor": True}
    for layout in (options, options | tiled):
        tifffile.imwrite(tmp_path / "a.tif", pixels, **layout)
        info, got = read_one(tmp_path / "a.tif")
        assert np.array_equal(got, pixels[..., :3])
        assert (info.bits, info.pixel_format) == (8, "rgba")


@pytest.mark.parametrize("missing", [1, 40, 200])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}], ids=str)
def test_no_directory_passes_for_missing_pixels(
    tmp_path: Path, layout: dict[str, Any], missing: int
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(3), photometric="rgb", **layout)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(VideoError, match="damaged or cut short"):
        read_one(path)


def test_a_compression_that_pillow_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(3).astype(np.uint8), photometric="rgb")
    data = path.read_bytes()
    tag = data.index(bytes.fromhex("0301 0300 01000000 0100"))
    for compression in (34712, 50001):
        number = compression.to_bytes(2, "little")
        path.write_bytes(data[: tag + 8] + number + data[tag + 10 :])
        with pytest.raises(VideoError, match="of a kind that cannot be decoded"):
            read_one(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    shallow = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
    tag = (274, "H", 1, orientation, True)
    twins = write_twins(tmp_path, shallow, photometric="rgb", extratags=[tag])
    (_, at_8), (_, at_16) = map(read_one, twins)
    assert np.array_equal(at_16, at_8.astype(np.uint16) * 257)


def test_only_the_first_page(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for _ in range(3):
            writer.write(noise(3), photometric="rgb")
    info, got = read_one(tmp_path / "a.tif")
    assert np.array_equal(got, noise(3))
    assert info.notices == ("only the first of its 3 pictures is read",)


def test_12_bits_reach_white(tmp_path: Path) -> None:
    # Two samples in three bytes: 4095 and 0, 2048 and 1.
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.frombuffer(bytes.fromhex("fff000800001"), np.uint8).reshape(2, 3))
    data = bytearray(path.read_bytes())
    page = tifffile.TiffFile(path).pages[0].tags  # type: ignore[union-attr] # not a mere frame
    for tag, value in ((256, 2), (258, 12)):
        data[page[tag].valueoffset : page[tag].valueoffset + 2] = value.to_bytes(2, "little")
    path.write_bytes(data)
    info, got = read_one(path)
    assert got[..., 0].tolist() == [[65535, 0], [32776, 16]]
    assert (info.bits, info.source_bits) == (16, 12)


@pytest.mark.parametrize(
    ("dtype", "match"),
    [
        ("f4", r"samples of 32 bits \(floating-point numbers\), of unknown range"),
        ("f2", "samples of 16 bits .floating-point"),
        ("i2", "samples of 16 bits .signed"),
        ("u4", "samples of 32 bits .unsigned"),
    ],
)
@pytest.mark.parametrize("samples", [1, 3])
def test_samples_of_unknown_range(tmp_path: Path, dtype: str, match: str, samples: int) -> None:
    pixels = np.ones((16, 16, 3), dtype)
    photometric: Any = "rgb" if samples == 3 else "minisblack"
    stored = pixels if samples == 3 else pixels[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric)
    with pytest.raises(VideoError, match=match):
        open_clip(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("layout", [{"tile": (16, 16)}, {"rowsperstrip": 5}], ids=str)
def test_missing_parts_are_not_black(tmp_path: Path, layout: dict[str, Any], bits: int) -> None:
    path = tmp_path / "a.tif"
    pixels = noise(3) if bits == 16 else noise(3).astype(np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", **layout)
    data = bytearray(path.read_bytes())
    tags = tifffile.TiffFile(path).pages[0].tags  # type: ignore[union-attr] # not a mere frame
    offsets = tags[324 if "tile" in layout else 273]
    data[offsets.offset + 4 : offsets.offset + 8] = (offsets.count - 1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(VideoError, match=f"{offsets.count - 1} of {offsets.count}"):
        open_clip(path)


def test_colours_that_are_not_known(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="cielab")
    with pytest.raises(VideoError, match=r"colour space 8.*convert it to PNG"):
        open_clip(tmp_path / "a.tif")


def test_pillows_own_grey(tmp_path: Path) -> None:
    grey = noise(1)[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert np.array_equal(read_one(tmp_path / "a.tif")[1], np.repeat(grey[..., None], 3, axis=2))
