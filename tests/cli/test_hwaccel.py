"""`--hwaccel` on the commands that read videos, on a machine that has no device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.program import assert_refused, wfvae
from wfvae_cli.media import hwaccel

NOTE = "no hardware decoder (cuda): this FFmpeg was built without it"


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hwaccel, "hwdevices_available", list)
    hwaccel._usable.cache_clear()
    yield
    hwaccel._usable.cache_clear()


def test_without_the_device_encode_says_so_and_gives_the_same_bytes(
    tmp_path: Path, clip: Path, latents: Path
) -> None:
    answer = wfvae("encode", clip, "-o", tmp_path / "z.safetensors", "--hwaccel", "cuda")
    assert answer.code == 0
    assert NOTE in " ".join(answer.stderr.split())
    assert (tmp_path / "z.safetensors").read_bytes() == latents.read_bytes()


@pytest.mark.parametrize(
    "command", [("encode", "-o", "latents", "--shard", "0/1"), ("roundtrip",), ("stats",)]
)
def test_other_readers_say_so_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: Path, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = command
    answer = wfvae(name, clip, *options, "--hwaccel", "cuda", "--frames", "5")
    assert answer.code == 0, answer
    assert NOTE in " ".join(answer.stderr.split())


@pytest.mark.parametrize("command", ["encode", "roundtrip", "stats"])
def test_an_unknown_device_is_refused(tmp_path: Path, clip: Path, command: str) -> None:
    answer = wfvae(command, clip, "-o", tmp_path / "out", "--hwaccel", "cudda")
    assert_refused(answer, 2, "one of none, auto,", "got 'cudda'")
    assert not (tmp_path / "out").exists()
