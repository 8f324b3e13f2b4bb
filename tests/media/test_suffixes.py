"""One table of suffixes, which datasets and comparisons share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.media.suffixes import SUFFIXES, kind_of
from wfvae_cli.metrics.pairs import pair_directories


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("video", "mp4 m4v mov mkv webm avi ts m2ts vob asf m2v h264 3g2 mjpeg y4m gif apng"),
        ("image", "png jpg jfif jpe heic avif webp tif jp2 pgm ppm exr dpx tga"),
    ],
)
def test_kinds(kind: str, names: str) -> None:
    for name in names.split():
        assert kind_of(f"a.b/c.{name}") == kind_of(Path(f"C.{name.upper()}")) == kind


def test_others_are_neither() -> None:
    for name in ("a.safetensors", "a.txt", "a.m3u8", "a.ffconcat", "a.sdp", "a.wav", "mp4", "a"):
        assert kind_of(name) is None


def test_no_suffix_is_of_two_kinds() -> None:
    assert not SUFFIXES["video"] & SUFFIXES["image"]
    assert all(s == s.lower() and s.startswith(".") for each in SUFFIXES.values() for s in each)


def test_what_this_program_writes_is_known() -> None:
    for name in ("mp4", "mov", "matroska", "webm", "avi", "mpegts", "nut", "yuv4mpegpipe", "gif"):
        for suffix in av.ContainerFormat(name, "w").extensions:
            assert kind_of(f"a.{suffix}") == "video" or suffix in ("ts", "m2t", "m2ts", "mts")
    Image.init()
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        assert suffix in Image.EXTENSION
        assert kind_of(f"a{suffix}") == "image"


def test_datasets_and_comparisons_take_the_same_files(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for suffix in {*SUFFIXES["video"], *SUFFIXES["image"], ".txt", ".m3u8"}:
            (tmp_path / folder / f"x{suffix}").touch()
    listed = {item.relative for item in find_inputs([str(tmp_path / "a")])}
    paired = {pair.name for pair in pair_directories(tmp_path / "a", tmp_path / "b").pairs}
    assert listed == paired == {f"x{s}" for each in SUFFIXES.values() for s in each}


def test_the_table_loads_nothing() -> None:
    code = (
        "import sys, wfvae_cli.media.suffixes; sys.exit(bool({'av', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
