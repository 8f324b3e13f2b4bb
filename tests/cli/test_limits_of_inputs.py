"""What a file may take and open: memory for an image, and other files for a playlist."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.program import assert_refused, wfvae
from tests.media.conftest import write_clip
from wfvae_cli.dataset.job import DatasetJob
from wfvae_cli.media.options import DATASET_IMAGE_MEMORY


@pytest.mark.parametrize("command", ["encode", "roundtrip"])
def test_an_image_that_takes_too_much_memory(tmp_path: Path, command: str) -> None:
    image = tmp_path / "in" / "a.png"
    image.parent.mkdir()
    Image.new("RGB", (640, 480)).save(image)
    suffix = ".safetensors" if command == "encode" else ".png"
    limited = ("--max-image-memory", "1M")
    one = wfvae(command, image, "-o", tmp_path / f"z{suffix}", *limited)
    assert one.code == 3, one
    assert "the limit for one image (1 MiB)" in one.stderr
    many = wfvae(command, image.parent, "-o", tmp_path / "z", *limited)
    assert many.code == 7, many
    manifest = (tmp_path / "z" / "manifest.jsonl").read_text()
    assert "the limit for one image (1 MiB)" in manifest
    again = wfvae(command, image.parent, "-o", tmp_path / "z", "--max-image-memory", "1G")
    assert again.code == 0, again


def test_a_datasets_limit_is_fixed() -> None:
    assert DatasetJob.image_memory == DATASET_IMAGE_MEMORY


def test_sizes_that_are_none(tmp_path: Path) -> None:
    answer = wfvae("encode", "a.png", "-o", tmp_path / "z", "--max-image-memory", "much")
    assert answer.code == 2, answer
    assert "expected bytes such as 4G" in " ".join(answer.stderr.split())


def test_only_a_playlist_that_is_named_opens_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    clip = write_clip(tmp_path / "own.mkv", 5)
    shutil.copy(clip, folder / "own.mkv")
    script = folder / "list.ffconcat"
    script.write_text("ffconcat version 1.0\nfile own.mkv\nfile own.mkv\n")
    for command, suffix in (("encode", ".safetensors"), ("roundtrip", ".mkv")):
        named = wfvae(command, script, "-o", tmp_path / f"z{suffix}", "--json")
        assert named.code == 0, named
        assert '"frames": 10' in named.stdout
    shown = wfvae("info", script)
    assert shown.code == 0, shown
    for source in (folder / "*.ffconcat", _listed(tmp_path, script)):
        answer = wfvae("encode", source, "-o", tmp_path / "out", "--overwrite")
        assert answer.code in (3, 7), answer
        assert not list((tmp_path / "out").glob("*.safetensors"))


def _listed(folder: Path, path: Path) -> Path:
    manifest = folder / "list.txt"
    manifest.write_text(f"{path}\n")
    return manifest


def test_more_threads_than_any_machine_starts(clip: Path, tmp_path: Path) -> None:
    answer = wfvae("encode", clip, "-o", tmp_path / "z.safetensors", "--threads", "99999")
    assert_refused(answer, 2, "--threads", "1024")
