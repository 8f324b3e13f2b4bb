"""Tar shards of windows and buckets: what a run that is continued finds in them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.cli.program import Answer, wfvae
from tests.dataset.clips import write_clip, write_image
from tests.models.checkpoints import write_wan

webdataset = pytest.importorskip("webdataset", reason="the extra webdataset is not installed")

MEMBER = {"webdataset": "safetensors", "energon": "pth"}
"""Suffix of the member that holds the latents, by format."""


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wan(tmp_path_factory.mktemp("models") / "wan")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A clip of three windows, one of one, one that is too short, and an image."""
    write_clip(tmp_path / "in/long.mp4", 25, 32, 32)
    write_clip(tmp_path / "in/once.mp4", 10, 32, 32, seed=1)
    write_clip(tmp_path / "in/short.mp4", 4, 32, 32, seed=2)
    write_image(tmp_path / "in/still.png", 32, 32)
    return tmp_path / "in"


def encode(source: Path, form: str, wan: Path, *more: str) -> Answer:
    output = source.parent / "out"
    parts = ("--buckets", "32x32x9,32x32x1", "--windows", "slide:9:8")
    options = (*parts, "--format", form, "--shard-clips", "2", *more)
    return wfvae("encode", source, "-o", output, "--model", wan, *options)


@pytest.mark.parametrize("form", MEMBER)
def test_verify_finds_what_is_damaged_or_missing(form: str, source: Path, wan: Path) -> None:
    assert "3 done, 1 skipped" in encode(source, form, wan).stderr
    shard = source.parent / "out/latents-000000-000.tar"
    sound = shard.read_bytes()
    assert "0 done" in encode(source, form, wan, "--verify").stderr
    with tarfile.open(shard) as tar:
        members = [member for member in tar if member.name.endswith(MEMBER[form])]
    assert len(members) == 2  # the third is in the next shard
    last = members[1]
    at = last.offset_data + last.size // 2
    if form == "webdataset":
        at = last.offset_data + last.size - 8
    shard.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
    assert "2 done" in encode(source, form, wan, "--verify").stderr
    assert shard.read_bytes() == sound
    begin = sound.index(last.name.encode(), last.offset)
    header = bytearray(sound[begin : begin + tarfile.BLOCKSIZE])
    header[:4] = b"tall"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    shard.write_bytes(sound[:begin] + bytes(header) + sound[begin + tarfile.BLOCKSIZE :])
    assert "2 done" in encode(source, form, wan, "--verify").stderr
    assert shard.read_bytes() == sound


@pytest.mark.parametrize("form", MEMBER)
def test_a_run_that_is_continued_counts_alike(form: str, source: Path, wan: Path) -> None:
    def table(answer: Answer) -> list[str]:
        return [line for line in answer.stderr.splitlines() if line.startswith("32x32x")]

    first, again = encode(source, form, wan), encode(source, form, wan)
    assert table(again) == table(first) == ["32x32x1      1       1", "32x32x9      4      36"]
    assert "0 done, 1 skipped, 3 already up to date" in again.stderr
    assert "fits no bucket" in again.stderr
    write_clip(source / "short.mp4", 9, 32, 32, seed=3)  # and fits now
    assert "1 done, 3 already up to date" in encode(source, form, wan).stderr
