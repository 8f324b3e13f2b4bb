"""Measures a dataset's clips: with a worker in this process, or workers on Ray.

Every clip is measured by itself, which depends on nothing but the clip and the options. The
results are handed over in the order of the dataset, wherever they come from, so that merging them
gives the same bytes whatever the engine, the number of workers, or their deaths.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import torch

from wfvae_cli.dataset.config import ModelFingerprint, sampling_of
from wfvae_cli.dataset.engine import result_of
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.ray_engine import RayEngine
from wfvae_cli.dataset.reorder import failed_clip, in_order, ordered, task_of
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.source import at_hand, check_unchanged
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.models.load import describe_checkpoint, load_model
from wfvae_cli.models.options import DType
from wfvae_cli.pipeline.chunks import FrameChunk, FrameSource, convert_on
from wfvae_cli.pipeline.job import (
    Chunk,
    Heartbeat,
    Job,
    ModelOutput,
    NoCallbacks,
    PipelineOptions,
    Profile,
    Ready,
    Sink,
    Staged,
)
from wfvae_cli.pipeline.options import Limits
from wfvae_cli.pipeline.pipeline import Pipeline
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.stats.accumulate import ClipStats, FailedClip
from wfvae_cli.stats.draw import Draw, Source, open_window
from wfvae_cli.stats.measure import MeasuredClip, measure_latents
from wfvae_cli.stats.report import ModelIdentity
from wfvae_cli.strides import Strides

_MOST_WAITING = 1024
"""Results, some ten kilobytes each, that may wait for one that is due before them."""


@dataclass(frozen=True)
class StatsJob:
    """Everything that a worker has to know; fit to be sent to another machine."""

    model: str | None = None
    """What encodes, and whose latents are expected; None for those of the first clip."""
    encodes: bool = True
    """Whether there are videos or images, so that the model is needed itself."""
    device: str = "auto"
    dtype: DType = "auto"
    compile: bool = False
    chunk: int | None = None
    threads: int = 4
    """Cores that a model on the CPU computes with; rounding depends on it."""
    sampling: Sampling = field(default_factory=Sampling)
    """Of all videos and images; manifests name parts of their own."""
    draw: Draw = field(default_factory=Draw)
    readers: int = 2
    """Sources that are opened and decoded at once."""
    hwaccel: str = "none"
    """What decodes videos on the workers, as `open_clip` takes it."""
    limits: Limits = field(default_factory=Limits)


class StatsWorker:
    """Measures whatever clips it is given, in this process.

    Raises:
        WeightsError, DeviceError: the model that is needed cannot be loaded.
        UsageError: it cannot be run as the job says.
    """

    def __init__(self, job: StatsJob) -> None:
        self.identity = ModelFingerprint("", "", None)
        self._model: LoadedModel | None = None
        self._name = job.model
        if job.encodes:
            assert job.model is not None, "videos and images need a model"
            self._model = load_model(
                job.model,
                device=job.device,
                dtype=job.dtype,
                task="encode",
                compile=job.compile,
            )
            if self._model.device.type == "cpu":
                torch.set_num_threads(job.threads)
            self.identity = ModelFingerprint.of(self._model, job.threads)
        options = PipelineOptions(job.chunk, "off", 1, job.readers, job.limits)
        self._pipeline = Pipeline(self._model, _MeasureItems(job, self._model), options)

    @property
    def capacity(self) -> int:
        """Clips that it may keep before the first result."""
        return self._pipeline.capacity

    @property
    def profile(self) -> Profile:
        """Where the time of the model went."""
        return self._pipeline.profile

    @property
    def model(self) -> ModelIdentity | None:
        """Whose latents are expected."""
        return _identify(self._name) if self._model is None else _identity_of(self._model)

    def measure(self, sources: Sequence[Source]) -> Iterator[MeasuredClip | FailedClip]:
        """Measure clips, which have different names, and give the results in their order."""
        return map(_measured, in_order(sources, self._results))

    def work(self, tasks: Iterator[Task]) -> Iterator[ItemResult]:
        """Measure clips for an engine: see `ray_actor.Worker`."""
        return map(_packed, self._results(tasks))

    def stop(self) -> None:
        """Begin no further clip. From any thread."""
        self._pipeline.stop()

    def _results(self, tasks: Iterator[Task]) -> Generator[ItemResult, None, None]:
        """Give the results of clips in the order in which they get ready."""
        with contextlib.closing(self._pipeline.run(tasks)) as finished:
            for each in finished:
                yield result_of(each)


class _ItemFrames(FrameSource):
    """The frames of a clip's window."""

    def __init__(
        self,
        item: Item,
        stamp: str,
        window: tuple[ClipReader, str],
        strides: Strides,
        heartbeat: Heartbeat,
    ) -> None:
        reader, self.identity = window
        super().__init__(reader, strides, heartbeat)
        self._item, self._stamp = item, stamp

    def verify(self) -> None:
        """Check that nobody wrote to the file meanwhile."""
        check_unchanged(self._item, self._stamp)


class _MeasureItems(Job[Task, _ItemFrames, ItemResult]):
    """Encodes videos and images and measures their latents; reads those of latent files."""

    halves: Halves = "encode"

    def __init__(self, job: StatsJob, model: LoadedModel | None) -> None:
        self._job, self._model = job, model

    @contextlib.contextmanager
    def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[_ItemFrames | Ready[ItemResult]]:
        """Open a video or image for the model, or take the statistics of a latent file."""
        item, job = task.item, self._job
        with at_hand(item, heartbeat) as (path, stamp):
            source = Source(path, item.relative, sampling_of(job.sampling, item), job.hwaccel)
            if source.is_latents:
                measured = measure_latents(source, job.draw, heartbeat)
                check_unchanged(item, stamp)
                yield Ready(_Measured(item.relative, item.path, "done", clip=measured))
                return
            assert self._model is not None, "videos and images need a model"
            threads = max(1, (os.cpu_count() or 1) // job.readers)
            window = open_window(source, job.draw, threads=threads)
            with window[0]:
                convert_on(self._model.device, window[0])
                yield _ItemFrames(item, stamp, window, self._model.vae.strides, heartbeat)

    def sink(self, task: Task, source: _ItemFrames, plan: ChunkPlan) -> Sink[ItemResult]:
        """Begin a clip's statistics."""
        assert self._model is not None
        return _MeasureSink(task.item, source.identity, self._model)


class _MeasureSink(Sink[ItemResult]):
    """Takes the statistics of one clip's latents."""

    def __init__(self, item: Item, identity: str, model: LoadedModel) -> None:
        self._item, self._model = item, model
        self._stats = ClipStats(item.relative, identity)

    def stage(self, chunk: Chunk, output: ModelOutput) -> Staged:
        """Take the next latents; they are measured on the model's device."""
        assert isinstance(chunk, FrameChunk) and output.posterior is not None
        mean, logvar = output.posterior
        return Staged(len(chunk.pts), lambda: self._stats.update(mean[0], logvar[0]))

    def finish(self) -> ItemResult:
        """Give the clip's statistics."""
        identity, compute_dtype = _identity_of(self._model), self._model.compute_dtype
        measured = MeasuredClip(self._stats, identity, "mean", compute_dtype)
        return _Measured(self._item.relative, self._item.path, "done", clip=measured)


class StatsOnRay:
    """Measures clips with workers on Ray; a context, which ends them.

    Args:
        job: what they have to know.
        address, workers: as of `RayEngine`.
        make: what makes a worker, in its own process.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self,
        job: StatsJob,
        *,
        address: str | None = None,
        workers: int | None = None,
        make: Callable[[StatsJob], StatsWorker] = StatsWorker,
    ) -> None:
        self._job = job
        self._waiting: dict[str, ItemResult] = {}
        self._engine = RayEngine(
            address=address,
            workers=workers,
            make=make,
            hold=lambda: len(self._waiting) >= _MOST_WAITING,
        )
        self.model = _identify(job.model)
        """Whose latents are expected."""
        self.identity = ModelFingerprint("", "", None)

    def __enter__(self) -> StatsOnRay:
        try:
            self.identity = self._engine.start(self._job, NoCallbacks[Task]())
        except BaseException:
            self._engine.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.close()

    def measure(self, sources: Sequence[Source]) -> Iterator[MeasuredClip | FailedClip]:
        """Measure clips, which have different names, and give the results in their order; once."""
        results = self._engine.work([task_of(source) for source in sources])
        return map(_measured, ordered(sources, results, self._waiting))


@dataclass(frozen=True)
class _Measured(ItemResult):
    """A clip that is measured."""

    clip: MeasuredClip = field(kw_only=True)


@dataclass(frozen=True)
class _Packed(ItemResult):
    """A clip's statistics on their way from a worker."""

    data: bytes = field(kw_only=True)
    """A `MeasuredClip`, most of which are counts of zero."""


def _packed(result: ItemResult) -> ItemResult:
    if isinstance(result, _Measured):
        data = zlib.compress(pickle.dumps(result.clip), level=1)
        return _Packed(result.item, result.input, "done", data=data)
    return result


def _measured(result: ItemResult) -> MeasuredClip | FailedClip:
    if isinstance(result, _Measured):
        return result.clip
    if isinstance(result, _Packed):
        # Ray carries Python objects between its processes as pickles, too: this one is our own.
        measured: MeasuredClip = pickle.loads(zlib.decompress(result.data))
        return measured
    return failed_clip(result)


def _identity_of(model: LoadedModel) -> ModelIdentity:
    return ModelIdentity(model.name, model.sha256, model.vae.family)


def _identify(name: str | None) -> ModelIdentity | None:
    if name is None:
        return None
    facts = describe_checkpoint(name)
    return ModelIdentity(name, facts["sha256"], facts["family"])
