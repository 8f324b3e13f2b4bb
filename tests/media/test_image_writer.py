from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media.outputs import info_for, names, pictures, probe, write
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.media.clip import Colour, Frame
from wfvae_cli.media.colour import SRGB
from wfvae_cli.media.image_writer import is_image, is_pattern
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.reader import open_clip
from wfvae_cli.media.writer import open_writer


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".tiff"])
@pytest.mark.parametrize("size", [(64, 48), (9, 11)])
def test_lossless_images(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    info = info_for(*size)
    sent = pictures(info, 1, noise=True)
    path = tmp_path / f"a{suffix}"
    write(path, info, sent)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), sent[0])
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits(tmp_path: Path, suffix: str) -> None:
    info = info_for(33, 21, deep=True)
    sent = pictures(info, 1, noise=True)
    path = tmp_path / f"a{suffix}"
    assert write(path, info, sent) == ()
    np.testing.assert_array_equal(probe(path, deep=True).frames[0], sent[0])


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("primaries", "transfer", "labelled"),
    [
        ("bt2020", "smpte2084", True),
        ("smpte432", "iec61966-2-1", True),
        ("bt709", "bt709", False),
        ("bt2020", "unknown", False),
    ],
)
def test_colours_beyond_srgb_are_labelled_in_png(
    tmp_path: Path, primaries: str, transfer: str, labelled: bool, deep: bool
) -> None:
    colour = Colour("gbr", "pc", primaries, transfer)
    info = replace(info_for(deep=deep), colour=colour)
    sent = pictures(info, 1, noise=True)
    write(tmp_path / "a.png", info, sent)
    with open_clip(tmp_path / "a.png") as reader:
        (frame,) = reader
        assert reader.info.colour == (colour if labelled else SRGB)
    np.testing.assert_array_equal(frame.pixels, sent[0])


@pytest.mark.parametrize(("suffix", "worst"), [(".jpg", 3), (".jpeg", 3), (".webp", 5)])
def test_lossy_images_look_alike(tmp_path: Path, suffix: str, worst: float) -> None:
    info = info_for()
    sent = pictures(info, 1)
    write(tmp_path / f"a{suffix}", info, sent)
    with Image.open(tmp_path / f"a{suffix}") as image:
        error = np.abs(np.asarray(image).astype(float) - sent[0])
    assert error.mean() < worst / 2


def test_deep_clips_are_rounded_where_the_format_is_shallow(tmp_path: Path) -> None:
    info = info_for(deep=True)
    sent = pictures(info, 1, noise=True)
    (notice,) = write(tmp_path / "a.bmp", info, sent)
    assert "8 bits" in notice
    with Image.open(tmp_path / "a.bmp") as image:
        error = np.asarray(image).astype(float) - sent[0] / 257
    assert np.abs(error).max() <= 0.5


def test_more_than_one_frame_is_an_error(tmp_path: Path) -> None:
    info = info_for()
    with pytest.raises(UsageError, match=r"holds one frame.*a%05d\.png.*--frames 1"):
        write(tmp_path / "a.png", info, pictures(info, 2))
    assert names(tmp_path) == []


def test_no_frame_is_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "a%d.png"):
        with pytest.raises(OutputError, match="no frames"):
            write(tmp_path / name, info_for(), [])
    assert names(tmp_path) == []


def test_video_options_have_no_meaning(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is an image: --codec"):
        open_writer(tmp_path / "a.png", info_for(), VideoOptions(crf=18))


def test_sides_that_a_format_cannot_hold(tmp_path: Path) -> None:
    info = info_for(16400, 8)
    with pytest.raises(UsageError, match=r"WEBP holds at most 16383 .* 16400x8; use \.png"):
        write(tmp_path / "a.webp", info, pictures(info, 1))
    assert names(tmp_path) == []


def test_pattern(tmp_path: Path) -> None:
    info = info_for()
    sent = pictures(info, 11)
    write(tmp_path / "f_%03d.png", info, sent)
    assert names(tmp_path) == [f"f_{i:03d}.png" for i in range(1, 12)]
    for i, pixels in enumerate(sent):
        with Image.open(tmp_path / f"f_{i + 1:03d}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_pattern_is_whole_or_absent(tmp_path: Path) -> None:
    info = info_for()
    target = tmp_path / "f%d.png"
    with pytest.raises(KeyboardInterrupt), open_writer(target, info) as writer:
        for i, pixels in enumerate(pictures(info, 3)):
            writer.write(Frame(pixels, i))
        assert [name for name in names(tmp_path) if not name.startswith(".")] == []
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_pattern_replaces_a_series_as_a_whole(tmp_path: Path) -> None:
    info = info_for()
    target = tmp_path / "f%02d.png"
    write(target, info, pictures(info, 5))
    (tmp_path / "f.png").touch()
    (tmp_path / "f1x.png").touch()
    with pytest.raises(OutputError, match=r"f01\.png exists already \(5 files fit f%02d\.png\)"):
        open_writer(target, info)
    write(target, info, pictures(info, 3), overwrite=True)
    assert names(tmp_path) == ["f.png", "f01.png", "f02.png", "f03.png", "f1x.png"]


def test_pattern_needs_its_directory(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist; create it"):
        open_writer(tmp_path / "no" / "f%d.png", info_for())


def test_sound_is_told_to_be_left_out(tmp_path: Path) -> None:
    info = info_for()
    for name in ("a.png", "a%d.png"):
        with open_writer(tmp_path / name, info, audio_from=tmp_path / "a.mp4") as writer:
            assert "cannot hold sound" in writer.notices[0]
            writer.write(Frame(pictures(info, 1)[0], 0))


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("a%05d.png", True),
        ("a%d.jpg", True),
        ("a.png", False),
        ("%d%d.png", False),
        ("%d.mp4", False),
    ],
)
def test_what_is_a_pattern(name: str, pattern: bool) -> None:
    assert is_pattern(name) == pattern


def test_what_is_an_image() -> None:
    assert is_image("a.JPG")
    assert not is_image("a.mp4")
    assert not is_image("png")
