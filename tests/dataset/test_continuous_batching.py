"""Clips of several chunks that share calls of the model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dataset.broken import KINDS
from tests.dataset.clips import contents, write_clip, write_image
from tests.dataset.conftest import run
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.engine import LocalEngine
from wfvae_cli.dataset.items import Item, find_inputs
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.run import NoRunCallbacks, run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import DeviceError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline import pipeline
from wfvae_cli.pipeline.batch import run_batch
from wfvae_cli.pipeline.chunks import FrameChunk, FrameSource
from wfvae_cli.pipeline.job import Chunk, Heartbeat, Job, ModelOutput, PipelineOptions, Sink, Staged
from wfvae_cli.pipeline.options import EncodeOptions, Limits
from wfvae_cli.pipeline.pipeline import Pipeline
from wfvae_cli.pipeline.plan import ChunkPlan

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
        calls.append(len(given[2]))
        return run_batch(*given)

    monkeypatch.setattr(pipeline, "run_batch", counted)
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
        _, _, chunks, streams, *_ = given
        if not failed and len(chunks) > 1 and not streams[0].first:
            failed.append(len(chunks))
            raise DeviceError("out of memory")
        return run_batch(*given)

    monkeypatch.setattr(pipeline, "run_batch", failing)
    summary = run(long, tmp_path, BATCH)
    assert (summary.done, summary.failed) == (12 - failed[0], failed[0])
    assert len(contents(tmp_path)) == summary.done


def test_stopping_finishes_those_that_have_begun(long: Path, tmp_path: Path) -> None:
    engine = LocalEngine()

    class Impatient(NoRunCallbacks):
        def settled(self, result: ItemResult) -> None:
            engine.stop()

    job = EncodeJob(OutputStore(tmp_path), BATCH, threads=1, readers=1)
    first = run_dataset(find_inputs([str(long)]), job, engine=engine, callbacks=Impatient())
    assert 1 <= first.done < 12
    assert first.failed == 0
    assert len(contents(tmp_path)) == first.done
    assert run(long, tmp_path, BATCH).done == 12 - first.done


def test_one_that_hangs_midway_fails_alone(long: Path) -> None:
    release = threading.Event()

    class Hanging(FrameSource):
        def __init__(self, item: Item, reader: ClipReader, heartbeat: Heartbeat) -> None:
            super().__init__(reader, model.vae.strides, heartbeat)
            self._item = item

        def chunks(self, plan: ChunkPlan) -> Iterator[FrameChunk]:
            for number, chunk in enumerate(super().chunks(plan)):
                if self._item.relative == "3.mp4" and number == 1:
                    release.wait(60)
                yield chunk

    class Counter(Sink[int]):
        frames = 0

        def stage(self, chunk: Chunk, output: ModelOutput) -> Staged:
            assert isinstance(chunk, FrameChunk)
            self.frames += len(chunk.pts)
            return Staged(len(chunk.pts), lambda: None)

        def finish(self) -> int:
            return self.frames

    class Count(Job[Task, FrameSource, int]):
        halves: Halves = "encode"

        @contextlib.contextmanager
        def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[FrameSource]:
            with open_clip(task.item.path) as reader:
                yield Hanging(task.item, reader, heartbeat)

        def sink(self, task: Task, source: FrameSource, plan: ChunkPlan) -> Sink[int]:
            return Counter()

    model, limits = load_model(device="cpu"), Limits(stall=1.5)
    options = PipelineOptions(readers=2, limits=limits, chunk=9, batch=4)
    tested = Pipeline(model, Count(), options)
    items = find_inputs([str(long / f"{i}.mp4") for i in range(len(LENGTHS))])
    results = {each.task.item.relative: each for each in tested.run(map(Task, items))}
    release.set()
    error = results.pop("3.mp4").error
    assert "--stall-limit" in str(error)
    assert {item: each.value for item, each in results.items()} == {
        f"{i}.mp4": frames for i, frames in enumerate(LENGTHS) if i != 3
    }
