"""Every task is given out once, whichever of its reader and its time limit is first."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from wfvae_cli.errors import TimeLimitError
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.pipeline.channel import ClosedError
from wfvae_cli.pipeline.chunks import FrameChunk
from wfvae_cli.pipeline.job import ClipSource, Finished, Heartbeat, Job, Sink
from wfvae_cli.pipeline.options import Limits
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.pipeline.prefetch import Clip, Prefetcher

STALL = 0.3


class Source(ClipSource):
    """Chunks of 5 frames; hangs before the one whose number is `hangs`."""

    info = ClipInfo(8, 8)

    def __init__(self, chunks: int, hangs: int | None, release: threading.Event) -> None:
        self._chunks, self._hangs, self._release = chunks, hangs, release

    def chunks(self, plan: ChunkPlan) -> Iterator[FrameChunk]:
        for number in range(self._chunks + 1):
            if number == self._hangs:
                self._release.wait(60)
            if number < self._chunks:
                frames = np.zeros((5, 8, 8, 3), np.uint8)
                yield FrameChunk(frames, range(5), last=number == self._chunks - 1)


class Reads(Job[str, ClipSource, None]):
    """Tasks such as `2 hangs 1`: of two chunks, hanging before the second."""

    halves: Halves = "encode"

    def __init__(self) -> None:
        self.release = threading.Event()

    @contextlib.contextmanager
    def open(self, task: str, heartbeat: Heartbeat) -> Iterator[ClipSource]:
        chunks, _, hangs = task.partition(" hangs ")
        yield Source(int(chunks), int(hangs) if hangs else None, self.release)

    def sink(self, task: str, source: ClipSource, plan: ChunkPlan) -> Sink[None]:
        raise NotImplementedError  # the pipeline's: a prefetcher only reads


@pytest.fixture
def job() -> Iterator[Reads]:
    made = Reads()
    yield made
    made.release.set()


def given_out(
    job: Reads, *tasks: str
) -> dict[str, list[Clip[str, ClipSource] | Finished[str, None]]]:
    """What one reader gives of each task, up to the end."""
    taken: dict[str, list[Clip[str, ClipSource] | Finished[str, None]]] = {t: [] for t in tasks}
    prefetcher = Prefetcher[str, ClipSource, None](
        job,
        iter(tasks),
        plan=lambda source: ChunkPlan(2, 1),
        check=lambda *given: None,
        readers=1,
        limits=Limits(stall=STALL),
    )
    until = time.monotonic() + 30
    with contextlib.suppress(ClosedError):
        while time.monotonic() < until:
            ready = prefetcher.take(0.05)
            if ready is not None:
                taken[ready.task].append(ready)
    assert time.monotonic() < until, "the end never came"
    return taken


def test_one_that_hangs_at_its_start_is_given_out_as_failed(job: Reads) -> None:
    taken = given_out(job, "2 hangs 0", "1")
    (failed,), (clip,) = taken.values()
    assert isinstance(failed, Finished)
    assert isinstance(failed.error, TimeLimitError)
    assert isinstance(clip, Clip)


def test_one_that_hangs_midway_raises_where_it_goes_on(job: Reads) -> None:
    (clip,), (following,) = given_out(job, "3 hangs 2", "1").values()
    assert isinstance(clip, Clip)
    assert isinstance(following, Clip), "another reader took the place of the one that hangs"
    assert not clip.reading.next_chunk().last
    with pytest.raises(TimeLimitError, match=r"3 hangs 2: .*--stall-limit"):
        clip.reading.next_chunk()


def test_one_that_hangs_after_its_last_chunk_is_complete(job: Reads) -> None:
    (clip,), (longer,), (following,) = given_out(job, "1 hangs 1", "2 hangs 2", "1").values()
    assert isinstance(clip, Clip)
    assert clip.is_whole
    assert isinstance(longer, Clip)
    assert longer.reading.next_chunk().last
    assert isinstance(following, Clip)
