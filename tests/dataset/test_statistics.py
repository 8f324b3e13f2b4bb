"""Statistics on a local Ray cluster of two CPUs: the bytes that one process gives."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_clip, write_image
from wfvae_cli.dataset import statistics
from wfvae_cli.dataset.outcome import Outcome
from wfvae_cli.dataset.read_ahead import Task
from wfvae_cli.dataset.statistics import StatsJob, StatsOnRay, StatsWorker
from wfvae_cli.models.load import DEFAULT_MODEL
from wfvae_cli.stats.accumulate import FailedClip
from wfvae_cli.stats.collect import Measure, collect
from wfvae_cli.stats.draw import Draw, Source
from wfvae_cli.stats.measure import MeasuredClip
from wfvae_cli.stats.report import StatsReport

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

CLIPS = 12


class DeadlyWorker(StatsWorker):
    """Dies of one file, as of a fault in a decoder's native code."""

    def work(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
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
    write_image(folder / "still.png")
    (folder / "bad.mp4").write_text("no video")
    return folder


def listed(folder: Path) -> list[Source]:
    return [Source(str(path), path.name) for path in sorted(folder.iterdir())]


def report(sources: Sequence[Source], draw: Draw, by: Measure) -> StatsReport:
    return collect(sources, draw=draw, by=by).report


def local(sources: Sequence[Source], draw: Draw | None = None) -> StatsReport:
    job = StatsJob(DEFAULT_MODEL, threads=1, draw=draw or Draw())
    return report(sources, job.draw, StatsWorker(job).measure)


def names(result: StatsReport) -> list[str]:
    return [failed.name for failed in result.stats.failed]


def test_a_killed_worker_changes_nothing(source: Path) -> None:
    sources = listed(source)
    job = StatsJob(DEFAULT_MODEL, threads=1)
    killed = 0

    def measure(sources: Sequence[Source]) -> Iterator[MeasuredClip | FailedClip]:
        nonlocal killed
        for result in workers.measure(sources):
            if not killed:
                victims = [p for p in psutil.process_iter(["cmdline"]) if _is_worker(p)]
                killed = len(victims[:1])
                victims[0].kill()
            yield result

    with StatsOnRay(job, workers=2) as workers:
        done = report(sources, job.draw, measure)
    assert killed == 1
    assert done.stats.clips == CLIPS + 1
    assert names(done) == ["bad.mp4"]
    assert done.to_json() == local(sources).to_json()


def _is_worker(process: psutil.Process) -> bool:
    return "ray::_Actor" in " ".join(process.info["cmdline"] or [])


def test_a_file_that_kills_workers_twice_is_named(source: Path) -> None:
    sources = listed(source)
    job = StatsJob(DEFAULT_MODEL, threads=1)
    with StatsOnRay(job, workers=1, make=DeadlyWorker) as workers:
        done = report(sources, job.draw, workers.measure)
    assert names(done) == ["03.mp4", "bad.mp4"]
    assert done.stats.failed[0].reason.startswith("killed its worker twice")
    others = [each for each in sources if each.name != "03.mp4"]
    assert done.summary == local(others).summary


def test_results_that_wait_are_bounded(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first clip takes longest, and the second worker may get no more than this ahead of it.
    monkeypatch.setattr(statistics, "_MOST_WAITING", 1)
    sources = listed(source)
    job = StatsJob(DEFAULT_MODEL, threads=1)
    with StatsOnRay(job, workers=2) as workers:
        done = report(sources, job.draw, workers.measure)
    assert done.to_json() == local(sources).to_json()


@pytest.mark.parametrize(
    "options",
    [
        ["--limit", "5", "--sample-frames", "9", "--seed", "3"],
        ["--until", "60%", "--exclude", "bad*"],
    ],
    ids=["sampled", "until"],
)
def test_the_command_writes_the_same_bytes(
    source: Path, tmp_path: Path, options: Sequence[str]
) -> None:
    codes = []
    for engine in ("local", "ray"):
        answer = wfvae("stats", source, *options, "--engine", engine, "-o", tmp_path / engine)
        codes.append((answer.code, answer.stdout))
    assert codes[0] == codes[1]
    assert (tmp_path / "local").read_bytes() == (tmp_path / "ray").read_bytes()
    assert 0 < StatsReport.load(tmp_path / "ray").stats.clips < CLIPS + 1


def test_latents_need_no_model_and_failures_are_told(source: Path, tmp_path: Path) -> None:
    latents = tmp_path / "latents"
    clips = [source / f"{i:02d}.mp4" for i in range(4)]
    assert wfvae("encode", *clips, "-o", latents).code == 0
    (latents / "cut.safetensors").write_bytes(b"half")
    for engine in ("local", "ray"):
        answer = wfvae("stats", latents, "--engine", engine, "-o", tmp_path / engine)
        assert_refused(answer, 7, "cut.safetensors", "1 of 5 clips")
    assert (tmp_path / "local").read_bytes() == (tmp_path / "ray").read_bytes()
