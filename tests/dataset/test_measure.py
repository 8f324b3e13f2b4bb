"""Statistics of clips in the order of the dataset, few of them ahead of it, and kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.dataset.clips import write_clip
from wfvae_cli.dataset import measure as module
from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.engine import Engine, EngineJob, Gate, LocalEngine, Results
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.measure import Journal, measure
from wfvae_cli.dataset.measure_job import SubbandJob
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.errors import OutputError
from wfvae_cli.pipeline.job import Callbacks, NoCallbacks, Profile
from wfvae_cli.stats.accumulate import FailedClip
from wfvae_cli.stats.draw import Source
from wfvae_cli.stats.subband_clip import SubbandClip

SOURCES = [Source(f"/data/{i}.mp4", f"{i}.mp4") for i in range(20)]
JOB = SubbandJob(kind="video", levels=2)


class Late(Engine):
    """Has the first result last: of the others, as many as the gate lets begin."""

    def __init__(self) -> None:
        self.ahead, self.is_closed = 0, False

    def start(self, job: EngineJob, callbacks: Callbacks[Task]) -> ModelFingerprint:
        return ModelFingerprint("", "", None)

    def work(self, tasks: Sequence[Task], gate: Gate | None = None) -> Results:
        assert gate is not None
        first, *others = tasks
        try:
            while others and gate.is_open:
                self.ahead += 1
                yield failed(others.pop(0))
            yield failed(first)
            yield from map(failed, others)
        finally:
            self.is_closed = True

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def profile(self) -> Profile | None:
        return None


def failed(task: Task) -> ItemResult:
    return ItemResult(task.item.relative, task.item.path, "failed", error=f"{task}: no frames")


@pytest.mark.parametrize("most", [1, 5, 19, 100])
def test_the_order_is_the_datasets_and_few_wait(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", most)
    engine = Late()
    clips = list(measure(JOB, engine, SOURCES))
    assert clips == [FailedClip(source.name, "no frames") for source in SOURCES]
    assert engine.ahead == min(most, 19)
    assert engine.is_closed


def test_whoever_has_seen_enough_ends_the_work() -> None:
    engine = Late()
    clips = measure(JOB, engine, SOURCES)
    assert next(clips).name == "0.mp4"
    assert not engine.is_closed
    with closing(clips):
        pass
    assert engine.is_closed


def test_whoever_waits_at_a_gate_is_let_go() -> None:
    gate, begun = Gate(), list[Task]()
    gate.let(go_on=False)
    waiting = threading.Thread(target=lambda: begun.extend(gate.through([task])))
    task = Task(Item("/data/a.mp4", "a.mp4"))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    gate.end()
    waiting.join(10)
    assert not waiting.is_alive()
    assert begun == []


@pytest.fixture
def clips(tmp_path: Path) -> list[Source]:
    paths = [write_clip(tmp_path / f"{i}.mp4", 5, seed=i) for i in range(4)]
    return [Source(str(path), path.name) for path in paths]


class Counting(LocalEngine):
    """Remembers what it was given."""

    def work(self, tasks: Sequence[Task], gate: Gate | None = None) -> Results:
        self.names = [task.item.relative for task in tasks]
        return super().work(tasks, gate)


def run(
    clips: Sequence[Source], path: Path, job: SubbandJob, count: int
) -> tuple[list[bytes], int]:
    """Packed results of the first clips, and how many were measured for all of them."""
    engine = Counting()
    fingerprint = engine.start(job, NoCallbacks())
    journal = Journal(path, job.deciding(fingerprint))
    results = measure(job, engine, clips, journal)
    done = [clip for clip, _ in zip(results, range(count), strict=False)]
    with closing(results):
        journal.close(remove=False)
    assert all(isinstance(clip, SubbandClip) for clip in done)
    return [clip.pack() for clip in done], len(engine.names)


def test_a_journal_goes_on_with_what_is_left(clips: list[Source], tmp_path: Path) -> None:
    path = tmp_path / "stats.json.part"
    whole, measured = run(clips, tmp_path / "other.part", JOB, 4)
    assert measured == 4
    run(clips, path, JOB, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    path.write_bytes(b"".join(lines[:3]) + lines[3][:-9])  # killed in the third line
    assert run(clips, path, JOB, 4) == (whole, 2)
    assert run(clips, path, JOB, 4) == (whole, 0)
    assert path.read_bytes().splitlines()[1:3] == [line.strip() for line in lines[1:3]]


def test_a_journal_is_of_one_job_and_of_files_as_they_were(
    clips: list[Source], tmp_path: Path
) -> None:
    path = tmp_path / "stats.json.part"
    run(clips, path, JOB, 4)
    other = SubbandJob(kind="video", levels=1)
    assert run(clips, path, other, 4)[1] == 4
    write_clip(Path(clips[2].path), 9, seed=7)
    expected, _ = run(clips, tmp_path / "other.part", other, 4)
    assert run(clips, path, other, 4) == (expected, 1)
    path.write_text("a user's own")
    with pytest.raises(OutputError, match="holds no results of wfvae stats"):
        run(clips, path, other, 4)
    assert path.read_text() == "a user's own"
