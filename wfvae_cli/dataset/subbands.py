"""Takes the statistics of the frames' subbands over a dataset, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from wfvae_cli.dataset.config import sampling_of
from wfvae_cli.dataset.engine import result_of
from wfvae_cli.dataset.reorder import failed_clip, in_order
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.source import at_hand, check_unchanged
from wfvae_cli.media.options import Sampling
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.pipeline.job import ClipSource, Heartbeat, Job, PipelineOptions, Ready, Sink
from wfvae_cli.pipeline.options import Limits
from wfvae_cli.pipeline.pipeline import Pipeline
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.stats.accumulate import FailedClip
from wfvae_cli.stats.collect_subbands import analyse_clip
from wfvae_cli.stats.draw import Draw, Source
from wfvae_cli.stats.subband_clip import Kind, SubbandClip


@dataclass(frozen=True)
class SubbandAnalysis:
    """Analyses clips, several at once."""

    kind: Kind
    levels: int
    draw: Draw = field(default_factory=Draw)
    sampling: Sampling = field(default_factory=Sampling)
    """Of all clips; manifests name parts of their own."""
    readers: int = 2
    hwaccel: str = "none"
    """What decodes videos, as `open_clip` takes it."""
    limits: Limits = field(default_factory=Limits)

    def analyse(self, sources: Sequence[Source]) -> Iterator[SubbandClip | FailedClip]:
        """Analyse clips, which have different names, and give the results in their order."""
        for result in in_order(sources, self._results):
            yield result.clip if isinstance(result, _Analysed) else failed_clip(result)

    def _results(self, tasks: Iterator[Task]) -> Generator[ItemResult, None, None]:
        options = PipelineOptions(readers=self.readers, limits=self.limits)
        pipeline = Pipeline(None, _AnalyseItems(self), options)
        with contextlib.closing(pipeline.run(tasks)) as finished:
            for each in finished:
                yield result_of(each)


class _AnalyseItems(Job[Task, ClipSource, ItemResult]):
    """Analyses frames as they are read; no model takes part."""

    halves: Halves = "encode"

    def __init__(self, analysis: SubbandAnalysis) -> None:
        self._analysis = analysis

    @contextlib.contextmanager
    def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[Ready[ItemResult]]:
        """Read and analyse a clip."""
        item, a = task.item, self._analysis
        with at_hand(item, heartbeat) as (path, stamp):
            source = Source(path, item.relative, sampling_of(a.sampling, item), a.hwaccel)
            clip = analyse_clip(source, a.kind, a.levels, a.draw, heartbeat)
            check_unchanged(item, stamp)
        yield Ready(_Analysed(item.relative, item.path, "done", clip=clip))

    def sink(self, task: Task, source: ClipSource, plan: ChunkPlan) -> Sink[ItemResult]:
        """Never called: every clip is ready once it is open."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Analysed(ItemResult):
    """A clip that is analysed."""

    clip: SubbandClip = field(kw_only=True)
