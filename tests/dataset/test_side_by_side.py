"""Clips of several chunks that go through the model side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dataset.broken import KINDS
from tests.dataset.clips import contents, write_clip, write_image
from tests.dataset.conftest import run
from wfvae_cli.dataset import pipeline
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.pipeline import Pipeline
from wfvae_cli.dataset.prefetch import Clip, Facts, Limits, Pieces, Reading, Task
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.run import LocalEngine, Unobserved, encode_dataset
from wfvae_cli.dataset.source import stamp
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.dataset.worker import EncodeJob
from wfvae_cli.dataset.write_behind import Encoded
from wfvae_cli.errors import DeviceError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline.batch import encode_batch
from wfvae_cli.pipeline.encode import EncodeOptions

OPTIONS = EncodeOptions(posterior="sample", seed=3, chunk=9)
BATCH = EncodeConfig(OPTIONS, batch=4)
LENGTHS = [9, 17, 18, 25, 25, 25, 27, 33, 41]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of one to five chunks, most of one size, and a still."""
    folder = tmp_path_factory.mktemp("long")
    for i, frames in enumerate(LENGTHS):
        write_clip(folder / f"{i}.mp4", frames, seed=i)
    for i in (1, 2):
        write_clip(folder / f"tall{i}.mp4", 20, width=24, height=32, seed=20 + i)
    write_image(folder / "still.png", seed=30)
    return folder


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips shared each call of the model."""
    calls: list[int] = []

    def counted(*given: Any) -> object:
        calls.append(len(given[1]))
        return encode_batch(*given)

    monkeypatch.setattr(pipeline, "encode_batch", counted)
    return calls


@pytest.mark.parametrize("readers", [1, 3])
def test_they_equal_single_clips_to_rounding(
    long: Path, tmp_path: Path, shares: list[int], readers: int
) -> None:
    assert run(long, tmp_path / "one", EncodeConfig(OPTIONS)).done == 12
    assert set(shares) == {1}
    shares.clear()
    assert run(long, tmp_path / "four", BATCH, readers=readers).done == 12
    assert max(shares) == 4, "readers are added until a batch is full"
    for name in contents(tmp_path / "one"):
        with (
            LatentFile(tmp_path / "one" / name) as one,
            LatentFile(tmp_path / "four" / name) as four,
        ):
            assert one.metadata.frames == four.metadata.frames
            torch.testing.assert_close(four.read(), one.read(), rtol=0, atol=1e-5)


def test_neighbours_change_no_byte(long: Path, tmp_path: Path) -> None:
    run(long, tmp_path / "all", BATCH, readers=1)
    run(long, tmp_path / "left", BATCH, readers=3)
    for name in ("3", "4", "8", "tall1"):
        (tmp_path / "left" / f"{name}.mp4.safetensors").unlink()
    run(long, tmp_path / "left", BATCH)
    assert contents(tmp_path / "all") == contents(tmp_path / "left")


def test_one_that_breaks_midway_fails_alone(long: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for path in long.iterdir():
        (folder / path.name).symlink_to(path)
    KINDS["truncated.mp4"](folder / "truncated.mp4")
    summary = run(folder, tmp_path / "out", BATCH)
    assert (summary.done, summary.failed) == (12, 1)
    run(long, tmp_path / "expected", BATCH)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_a_call_that_fails_fails_its_clips_only(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[int] = []

    def failing(*given: Any) -> object:
        _, chunks, streams, *_ = given
        if not failed and len(chunks) > 1 and not streams[0].first:
            failed.append(len(chunks))
            raise DeviceError("out of memory")
        return encode_batch(*given)

    monkeypatch.setattr(pipeline, "encode_batch", failing)
    summary = run(long, tmp_path, BATCH)
    assert (summary.done, summary.failed) == (12 - failed[0], failed[0])
    assert len(contents(tmp_path)) == summary.done


def test_stopping_finishes_those_that_have_begun(long: Path, tmp_path: Path) -> None:
    engine = LocalEngine()

    class Impatient(Unobserved):
        def settled(self, outcome: ItemResult) -> None:
            engine.stop()

    job = EncodeJob(OutputStore(tmp_path), BATCH, threads=1, readers=1)
    first = encode_dataset(find_inputs([str(long)]), job, engine=engine, observer=Impatient())
    assert 1 <= first.done < 12
    assert first.failed == 0
    assert len(contents(tmp_path)) == first.done
    assert run(long, tmp_path, BATCH).done == 12 - first.done


def test_one_that_hangs_midway_fails_alone(long: Path) -> None:
    release = threading.Event()

    def read(task: Task, reading: Reading) -> Pieces:
        item, marked = task.item, stamp(task.item.path)
        with open_clip(item.path, Sampling()) as reader:
            for number, chunk in enumerate(tested.chunks(reader, item, marked, reading)):
                if item.relative == "3.mp4" and number == 1:
                    release.wait(60)
                yield Facts(reader.info, marked, ""), chunk

    def write(clip: Clip, encoded: Iterator[Encoded]) -> ItemResult:
        frames = sum(len(each.pts) for each in encoded)
        return ItemResult(clip.task.item.relative, clip.task.item.path, "done", frames=frames)

    model, limits = load_model(device="cpu"), Limits(stall=0.5)
    tested = Pipeline(model, read, write, readers=2, limits=limits, chunk=9, batch=4)
    items = find_inputs([str(long / f"{i}.mp4") for i in range(len(LENGTHS))])
    outcomes = {each.item: each for each in tested.work(map(Task, items))}
    release.set()
    error = outcomes.pop("3.mp4").error
    assert error is not None
    assert "--stall-limit" in error
    assert {item: each.frames for item, each in outcomes.items()} == {
        f"{i}.mp4": frames for i, frames in enumerate(LENGTHS) if i != 3
    }
