"""Measuring the clips of a dataset: statistics of latents, or of their frames' subbands.

Every clip is measured by itself, which depends on nothing but the clip and the job.
"""

from __future__ import annotations

import contextlib
import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from typing_extensions import override

from wfvae_cli.dataset.config import ModelFingerprint, sampling_of
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.source import at_hand, check_unchanged
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.models.options import DType
from wfvae_cli.pipeline.chunks import FrameChunk, FrameSource, convert_on
from wfvae_cli.pipeline.job import (
    Chunk,
    Heartbeat,
    Job,
    ModelOutput,
    PipelineOptions,
    Ready,
    Sink,
    Staged,
)
from wfvae_cli.pipeline.options import Limits
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.stats.accumulate import ClipStats
from wfvae_cli.stats.draw import Draw, Source, open_window
from wfvae_cli.stats.measure import (
    MeasuredClip,
    analyse_clip,
    measure_latents,
)
from wfvae_cli.stats.report import ExpectedModel, ModelIdentity
from wfvae_cli.stats.subband_clip import Kind, SubbandClip
from wfvae_cli.strides import Strides

AnyClip = MeasuredClip | SubbandClip
"""The statistics of a clip."""

_MANY_VALUES = 1 << 20
"""Values of stored latents below which reading them is as fast as reading a journal."""


@dataclass(frozen=True)
class Packed(ItemResult):
    """The result of a clip that was measured elsewhere, or waits for one before it."""

    data: bytes = field(kw_only=True)
    """Compressed statistics: some ten kilobytes in place of a megabyte."""


@dataclass(frozen=True)
class Measured(ItemResult):
    """The result of a clip that was measured; what is sent to another process is a `Packed`."""

    clip: AnyClip = field(kw_only=True)
    is_kept: bool = field(default=True, kw_only=True)
    """True where a journal is to keep it; False where it takes no longer to measure it again."""

    def packed(self) -> Packed:
        """Compress the statistics."""
        data = self.clip.pack()
        return Packed(self.item, self.input, "done", stamp=self.stamp, data=data)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a `Packed`."""
        return copy.copy, (self.packed(),)


@dataclass(frozen=True, kw_only=True)
class MeasureJob(ABC):
    """Options of measuring clips; fit to be sent to another machine."""

    model: str | None = None
    """Name of what encodes videos and images; None where there are none."""
    device: str = "cpu"
    dtype: DType = "auto"
    compile: bool = False
    threads: int = 1
    """Cores that a model on the CPU computes with; rounding depends on it."""
    chunk: int | None = None
    draw: Draw = field(default_factory=Draw)
    sampling: Sampling = field(default_factory=Sampling)
    """Sampling of all videos and images; manifests name parts of their own."""
    readers: int = 2
    """Sources that are opened and decoded at once."""
    hwaccel: str = "none"
    """Decoder of videos on the workers, as `open_clip` takes it."""
    limits: Limits = field(default_factory=Limits)
    halves: ClassVar[Halves] = "encode"

    @property
    def pipeline_options(self) -> PipelineOptions:
        """Options of the pipeline: clips go one by one and untiled, as the model sees them."""
        return PipelineOptions(self.chunk, "off", 1, self.readers, self.limits)

    def deciding(self, fingerprint: ModelFingerprint) -> dict[str, Any]:
        """Return every option that decides a clip's statistics."""
        decisive = (
            self.chunk,
            self.draw.sample_frames,
            self.draw.seed,
            self.sampling,
            self.hwaccel,
        )
        return {"job": repr(decisive), "model": repr(fingerprint)}

    @abstractmethod
    def clip_job(
        self, model: LoadedModel | None, fingerprint: ModelFingerprint
    ) -> Job[Task, Any, ItemResult]:
        """Make the pipeline's job: what it does with each item."""

    @abstractmethod
    def unpack(self, data: bytes) -> AnyClip:
        """Decompress the statistics of a clip."""

    def source_of(self, item: Item, path: str) -> Source:
        """Describe an item to those that measure; `path` is where it is at hand."""
        sampling = sampling_of(self.sampling, item)
        return Source(path, item.relative, sampling, self.hwaccel, item.begin, item.size)


@dataclass(frozen=True, kw_only=True)
class StatsJob(MeasureJob):
    """Take the statistics of latents: those of videos and images are encoded for it."""

    expected: ExpectedModel | None = None
    """The model whose latents are expected; None for that of the first clip."""

    @override
    def deciding(self, fingerprint: ModelFingerprint) -> dict[str, Any]:
        return {**super().deciding(fingerprint), "expected": repr(self.expected)}

    @override
    def clip_job(
        self, model: LoadedModel | None, fingerprint: ModelFingerprint
    ) -> Job[Task, Any, ItemResult]:
        return _MeasureItems(self, model)

    @override
    def unpack(self, data: bytes) -> MeasuredClip:
        return MeasuredClip.unpack(data)


@dataclass(frozen=True, kw_only=True)
class SubbandJob(MeasureJob):
    """Analyse the Haar subbands of frames as they are read; no model takes part."""

    kind: Kind
    levels: int = 3

    @override
    def deciding(self, fingerprint: ModelFingerprint) -> dict[str, Any]:
        return {**super().deciding(fingerprint), "subbands": [self.kind, self.levels]}

    @override
    def clip_job(
        self, model: LoadedModel | None, fingerprint: ModelFingerprint
    ) -> Job[Task, Any, ItemResult]:
        return _AnalyseItems(self)

    @override
    def unpack(self, data: bytes) -> SubbandClip:
        return SubbandClip.unpack(data)


class _MeasureItems(Job[Task, "_ItemFrames", ItemResult]):
    """Encodes videos and images and measures their latents; reads those that are stored."""

    halves: Halves = "encode"

    def __init__(self, job: StatsJob, model: LoadedModel | None) -> None:
        self._job, self._model = job, model

    @override
    @contextlib.contextmanager
    def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[_ItemFrames | Ready[ItemResult]]:
        item, job = task.item, self._job
        with at_hand(item, heartbeat) as (path, stamp):
            source = job.source_of(item, path)
            if source.is_latents:
                clip = measure_latents(source, job.draw, heartbeat, job.expected)
                check_unchanged(item, stamp)
                yield Ready(_measured(item, stamp, clip, is_kept=clip.values >= _MANY_VALUES))
                return
            assert self._model is not None, "videos and images need a model"
            threads = max(1, (os.cpu_count() or 1) // job.readers)
            reader, identity = open_window(source, job.draw, threads=threads)
            with reader:
                convert_on(self._model.device, reader)
                strides = self._model.vae.strides
                yield _ItemFrames(item, stamp, identity, reader, strides, heartbeat)

    @override
    def sink(self, task: Task, source: _ItemFrames, plan: ChunkPlan) -> Sink[ItemResult]:
        assert self._model is not None
        return _MeasureSink(source, self._model)


class _ItemFrames(FrameSource):
    """The frames of a clip's window."""

    def __init__(
        self,
        item: Item,
        stamp: str,
        identity: str,
        reader: ClipReader,
        strides: Strides,
        heartbeat: Heartbeat,
    ) -> None:
        super().__init__(reader, strides, heartbeat)
        self.item, self.stamp, self.identity = item, stamp, identity

    @override
    def verify(self) -> None:
        check_unchanged(self.item, self.stamp)


class _MeasureSink(Sink[ItemResult]):
    """Takes the statistics of one clip's latents."""

    def __init__(self, source: _ItemFrames, model: LoadedModel) -> None:
        self._source, self._model = source, model
        self._stats = ClipStats(source.item.relative, source.identity)

    @override
    def stage(self, chunk: Chunk, output: ModelOutput) -> Staged:
        assert isinstance(chunk, FrameChunk) and output.posterior is not None
        mean, logvar = output.posterior
        return Staged(len(chunk.pts), lambda: self._stats.update(mean[0], logvar[0]))

    @override
    def finish(self) -> ItemResult:
        model = self._model
        identity = ModelIdentity(model.name, model.sha256, model.vae.family)
        clip = MeasuredClip.of(self._stats, identity, "mean", model.compute_dtype)
        return _measured(self._source.item, self._source.stamp, clip)


class _AnalyseItems(Job[Task, FrameSource, ItemResult]):
    """Analyses frames as they are read."""

    halves: Halves = "encode"

    def __init__(self, job: SubbandJob) -> None:
        self._job = job

    @override
    @contextlib.contextmanager
    def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[Ready[ItemResult]]:
        item, job = task.item, self._job
        with at_hand(item, heartbeat) as (path, stamp):
            source = job.source_of(item, path)
            clip = analyse_clip(source, job.kind, job.levels, job.draw, heartbeat)
            check_unchanged(item, stamp)
        yield Ready(_measured(item, stamp, clip))

    @override
    def sink(self, task: Task, source: FrameSource, plan: ChunkPlan) -> Sink[ItemResult]:
        """Raise `NotImplementedError`: every clip is ready once it is open."""
        raise NotImplementedError


def _measured(item: Item, stamp: str, clip: AnyClip, *, is_kept: bool = True) -> Measured:
    return Measured(item.relative, item.path, "done", stamp=stamp, clip=clip, is_kept=is_kept)
