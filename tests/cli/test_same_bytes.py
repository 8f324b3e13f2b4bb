"""A clip alone and in a folder: the same latents, for every option."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.program import wfvae
from tests.dataset.clips import write_clip
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.pipeline import plan
from wfvae_cli.pipeline.plan import Memory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of several chunks among others, in a folder of its own."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "deep/clip.mp4", 37, 96, 64, seed=1)
    write_clip(folder / "other.mp4", 21, 96, 64, seed=2)
    write_clip(folder / "short.mp4", 5, 96, 64, seed=3)
    return folder


def both(folder: Path, output: Path, *options: str) -> list[torch.Tensor]:
    """The clip's latents, alone and in the folder."""
    alone, many = output / "alone.safetensors", output / "many"
    clip = folder / "deep/clip.mp4"
    for source, target in ((clip, alone), (folder, many)):
        answer = wfvae("encode", source, "-o", target, "--device", "cpu", *options)
        assert answer.code == 0, answer
    found = []
    for path in (alone, many / "deep/clip.mp4.safetensors"):
        with LatentFile(path) as file:
            found.append(file.read())
    return found


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--dtype", "bfloat16"),
        ("--posterior", "sample", "--seed", "7", "--start", "0.25"),
        ("--fps", "4", "--short-side", "48"),
        ("--tile", "64"),
        ("--chunk", "9"),
        ("--batch", "4"),
        ("--batch", "auto", "--size", "32x24"),
        ("--threads", "2"),
        ("--normalize", "--save-dtype", "float16"),
    ],
    ids=" ".join,
)
def test_alone_and_in_a_folder(
    folder: Path, tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that a small clip is cut where one of 512x288 is.
    monkeypatch.setattr(plan, "_HOST_BUDGET", plan._HOST_BUDGET // 24)
    before = torch.get_num_threads()
    try:
        alone, among = both(folder, tmp_path, *options)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, among)


@pytest.mark.parametrize("kib", [12_000, 4_000, 1_000])
def test_where_memory_is_short(
    folder: Path, tmp_path: Path, kib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Memory(free=kib << 10, host=2**40)
    monkeypatch.setattr(Memory, "now", lambda device: short)
    alone, among = both(folder, tmp_path)
    assert torch.equal(alone, among)
    with LatentFile(tmp_path / "alone.safetensors") as file:
        assert "chunks of" in file.metadata.extra["memory_was_short"]


def test_threads_do_not_depend_on_the_number_of_clips(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    both(folder, tmp_path)
    assert used == [4, 4]
