"""Workers on a local Ray cluster of two CPUs: the bytes that one process gives, deaths survived.

Datasets and statistics share the cluster, which takes seconds to start.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import contents, write_clip
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.engine import Engine, LocalEngine, Worker
from wfvae_cli.dataset.items import Item, find_inputs
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.dataset.measure import measure
from wfvae_cli.dataset.measure_job import StatsJob
from wfvae_cli.dataset.ray_engine import RayEngine, _Handle
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.run import NoRunCallbacks, Summary, run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.models.options import DEFAULT_MODEL
from wfvae_cli.pipeline.job import NoCallbacks
from wfvae_cli.stats.collect import collect
from wfvae_cli.stats.draw import Source
from wfvae_cli.stats.report import StatsReport

ray = pytest.importorskip("ray", reason="the extra ray is not installed")


CLIPS = 12


class DeadlyWorker(Worker):
    """Dies of one file, as of a fault in a decoder's native code."""

    def work(self, tasks: Iterator[Task]) -> Iterator[ItemResult]:
        def checked() -> Iterator[Task]:
            for task in tasks:
                if task.item.relative == "03.mp4":
                    os.kill(os.getpid(), signal.SIGKILL)
                yield task

        return super().work(checked())


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    # Workers import neither this module nor its package: they get the class itself.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of very different lengths, so that short ones overtake long ones, and a broken one."""
    folder = tmp_path_factory.mktemp("source")
    for i in range(CLIPS):
        write_clip(folder / f"{i:02d}.mp4", 5 if i % 3 else 42, seed=i)
    (folder / "bad.mp4").write_text("no video")
    return folder


def run(
    source: Path, output: Path, engine: RayEngine | None, callbacks: NoRunCallbacks | None = None
) -> Summary:
    job = EncodeJob(OutputStore(output), EncodeConfig(batch=2), threads=1)
    return run_dataset(find_inputs([str(source)]), job, engine=engine, callbacks=callbacks)


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("local")
    run(source, folder, None)
    return contents(folder)


class DeadlyOnce(Worker):
    """Dies of one file every time and of another one once, as of faults in native code."""

    @property
    def capacity(self) -> int:
        return 2  # so that it never has both

    def work(self, tasks: Iterator[Task]) -> Iterator[ItemResult]:
        def checked() -> Iterator[Task]:
            for task in tasks:
                path = Path(task.item.path)
                if path.name in ("03.mp4", "07.mp4"):
                    before = path.with_suffix(".died")
                    again = before.exists()
                    before.touch()
                    if path.name == "03.mp4" or not again:
                        os.kill(os.getpid(), signal.SIGKILL)
                yield task

        return super().work(checked())


class Killer(NoRunCallbacks):
    """Kills one worker once the first outcome is there."""

    def __init__(self) -> None:
        self.killed = 0

    def settled(self, result: ItemResult) -> None:
        if not self.killed:
            victims = [p for p in psutil.process_iter(["cmdline"]) if _is_worker(p)]
            self.killed = len(victims[:1])
            for victim in victims[:1]:
                victim.kill()


class Recording(RayEngine):
    """Remembers how many files were given to workers at once."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers=workers)
        self.given: list[int] = []

    def _give(self, handle: _Handle, tasks: list[Task]) -> None:
        self.given.append(len(tasks))
        super()._give(handle, tasks)


def task_of(number: int) -> Task:
    name = f"{number}.mp4"
    return Task(Item(f"/{name}", name))


def _is_worker(process: psutil.Process) -> bool:
    return "ray::Actor" in " ".join(process.info["cmdline"] or [])


@pytest.mark.slow  # `test_a_file_that_kills_workers_twice_has_failed` kills, too
def test_a_killed_worker_changes_nothing(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    killer, engine = Killer(), Recording(workers=2)
    summary = run(source, tmp_path, engine, killer)
    assert killer.killed == 1
    assert engine.given[0] == 7, "half of the files are kept for the other one, which starts"
    assert (summary.done, summary.failed) == (12, 1)
    assert contents(tmp_path) == expected
    assert run(source, tmp_path, None).current == 12  # and another engine goes on from there


def test_a_worker_that_does_not_come_up_has_no_part() -> None:
    engine = RayEngine()
    engine._capacity, engine._waiting = 10, deque([task_of(i) for i in range(12)])
    up, starting = _Handle(actor=None, is_up=True), _Handle(actor=None)
    engine._handles = [up, starting]
    assert engine._share() == 6
    up.under_way = {"a": task_of(0), "b": task_of(1)}
    assert engine._share() == 7, "what it has counts"
    starting.spawned -= 100
    assert engine._share() == 10, "all, but no more than it can keep"


@pytest.mark.slow
def test_a_file_that_kills_workers_twice_has_failed(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    summary = run(source, tmp_path, RayEngine(workers=1, make=DeadlyWorker))
    assert (summary.done, summary.failed) == (11, 2)
    assert summary.failures == {"unreadable": 1, "killed workers": 1}
    last = last_results(tmp_path / "manifest.jsonl")
    assert "killed its worker twice" in (last["03.mp4"].error or "")
    assert contents(tmp_path) == {n: d for n, d in expected.items() if not n.startswith("03")}


def test_stopping_leaves_a_state_that_resumes(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    engine = RayEngine(workers=1)

    class Impatient(NoRunCallbacks):
        def settled(self, result: ItemResult) -> None:
            if result.status == "done":  # the damaged file may be the first to settle
                engine.stop()

    first = run(source, tmp_path, engine, Impatient())
    assert 1 <= first.done < 12
    run(source, tmp_path, None)
    assert contents(tmp_path) == expected


def test_connecting_keeps_the_handler_of_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own would end the driver with exit code 15 at SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(
        ray, "init", lambda **options: signal.signal(signal.SIGTERM, signal.SIG_IGN)
    )
    RayEngine()._connect()
    assert signal.getsignal(signal.SIGTERM) is before


def listed(folder: Path) -> list[Source]:
    return [Source(str(path), path.name) for path in sorted(folder.glob("*.mp4"))]


def measured(sources: Sequence[Source], engine: Engine) -> StatsReport:
    job = StatsJob(model=DEFAULT_MODEL, threads=1)
    with closing(engine):
        engine.start(job, NoCallbacks())
        return collect(sources, by=lambda chosen: measure(job, engine, chosen)).report


@pytest.mark.slow
def test_dead_workers_change_no_statistics(source: Path) -> None:
    sources = listed(source)
    done = measured(sources, RayEngine(workers=2, make=DeadlyOnce))
    assert (source / "07.died").exists()
    deadly, broken = done.stats.failed
    assert (deadly.name, broken.name) == ("03.mp4", "bad.mp4")
    assert deadly.reason.startswith("killed its worker twice")
    expected = measured([each for each in sources if each.name != "03.mp4"], LocalEngine())
    assert expected.stats.clips == CLIPS - 1
    expected.stats.fail(deadly.name, deadly.reason)
    assert done.to_json() == expected.to_json()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--limit", "5", "--sample-frames", "9", "--seed", "3"], id="sampled"),
        pytest.param(["--until", "60%", "--exclude", "bad*"], id="until"),
    ],
)
def test_the_statistics_of_the_command_are_the_same_bytes(
    source: Path, tmp_path: Path, options: Sequence[str]
) -> None:
    codes = []
    for engine in ("local", "ray"):
        answer = wfvae("stats", source, *options, "--engine", engine, "-o", tmp_path / engine)
        codes.append((answer.code, answer.stdout))
    assert codes[0] == codes[1]
    assert (tmp_path / "local").read_bytes() == (tmp_path / "ray").read_bytes()
    assert 0 < StatsReport.load(tmp_path / "ray").stats.clips < CLIPS


def test_statistics_of_latents_need_no_model_and_failures_are_told(
    source: Path, tmp_path: Path
) -> None:
    latents = tmp_path / "latents"
    clips = [source / f"{i:02d}.mp4" for i in range(4)]
    assert wfvae("encode", *clips, "-o", latents).code == 0
    (latents / "cut.safetensors").write_bytes(b"half")
    for engine in ("local", "ray"):
        answer = wfvae("stats", latents, "--engine", engine, "-o", tmp_path / engine)
        assert_refused(answer, 7, "cut.safetensors", "1 of 5 clips")
    assert (tmp_path / "local").read_bytes() == (tmp_path / "ray").read_bytes()
