"""Statistics on a local Ray cluster of two CPUs: the bytes that one process gives."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_clip
from wfvae_cli.dataset.engine import Engine, LocalEngine, Worker
from wfvae_cli.dataset.measure import measure
from wfvae_cli.dataset.measure_job import StatsJob
from wfvae_cli.dataset.ray_engine import RayEngine
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.models.options import DEFAULT_MODEL
from wfvae_cli.pipeline.job import NoCallbacks
from wfvae_cli.stats.collect import collect
from wfvae_cli.stats.draw import Source
from wfvae_cli.stats.report import StatsReport

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

CLIPS = 12


class DeadlyWorker(Worker):
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


def listed(folder: Path) -> list[Source]:
    return [Source(str(path), path.name) for path in sorted(folder.glob("*.mp4"))]


def report(sources: Sequence[Source], engine: Engine) -> StatsReport:
    job = StatsJob(model=DEFAULT_MODEL, threads=1)
    with closing(engine):
        engine.start(job, NoCallbacks())
        return collect(sources, by=lambda chosen: measure(job, engine, chosen)).report


@pytest.mark.slow
def test_dead_workers_change_nothing(source: Path) -> None:
    sources = listed(source)
    done = report(sources, RayEngine(workers=2, make=DeadlyWorker))
    assert (source / "07.died").exists()
    deadly, broken = done.stats.failed
    assert (deadly.name, broken.name) == ("03.mp4", "bad.mp4")
    assert deadly.reason.startswith("killed its worker twice")
    expected = report([each for each in sources if each.name != "03.mp4"], LocalEngine())
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
def test_the_command_writes_the_same_bytes(
    source: Path, tmp_path: Path, options: Sequence[str]
) -> None:
    codes = []
    for engine in ("local", "ray"):
        answer = wfvae("stats", source, *options, "--engine", engine, "-o", tmp_path / engine)
        codes.append((answer.code, answer.stdout))
    assert codes[0] == codes[1]
    assert (tmp_path / "local").read_bytes() == (tmp_path / "ray").read_bytes()
    assert 0 < StatsReport.load(tmp_path / "ray").stats.clips < CLIPS


def test_latents_need_no_model_and_failures_are_told(source: Path, tmp_path: Path) -> None:
    latents = tmp_path / "latents"
    clips = [source / f"{i:02d}.mp4" for i in range(4)]
    assert wfvae("encode", *clips, "-o", latents).code == 0
    (latents / "cut.safetensors").write_bytes(b"half")
    for engine in ("local", "ray"):
        answer = wfvae("stats", latents, "--engine", engine, "-o", tmp_path / engine)
        assert_refused(answer, 7, "cut.safetensors", "1 of 5 clips")
    assert (tmp_path / "local").read_bytes() == (tmp_path / "ray").read_bytes()
