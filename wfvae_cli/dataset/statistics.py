"""Who takes the statistics of a dataset's clips: a worker in this process, or workers on Ray.

Every clip is measured by itself, which depends on nothing but the clip and the options. The
results are handed over in the order of the dataset, wherever they come from, so that merging them
gives the same bytes whatever the engine, the number of workers, or their deaths.
"""

from __future__ import annotations

import itertools
import pickle
import threading
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import torch

from wfvae_cli.dataset.callbacks import NoCallbacks, Profile
from wfvae_cli.dataset.config import EncodeConfig, ModelFingerprint
from wfvae_cli.dataset.pipeline import Pipeline
from wfvae_cli.dataset.prefetch import Clip, Facts, Limits, Pieces, Reading, Task, settled
from wfvae_cli.dataset.ray_engine import RayEngine
from wfvae_cli.dataset.reorder import failed_clip, in_order, ordered, task_of
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.source import at_hand, check_unchanged
from wfvae_cli.dataset.write_behind import Encoded
from wfvae_cli.media.options import Sampling
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.load import describe_checkpoint, load_model
from wfvae_cli.models.options import DType
from wfvae_cli.stats.accumulate import ClipStats, FailedClip
from wfvae_cli.stats.draw import Draw, Source, open_window
from wfvae_cli.stats.measure import MeasuredClip, measure_latents
from wfvae_cli.stats.report import ModelIdentity

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
    """Measures whatever clips it is given, in this process."""

    def __init__(self, job: StatsJob) -> None:
        """Load the model, where one is needed.

        Raises:
            WeightsError, DeviceError: it cannot be.
            UsageError: the model cannot be run as the job says.
        """
        self.job = job
        self.identity = ModelFingerprint("", "", None)
        self._recipe = EncodeConfig(sampling=job.sampling)
        self._stopped = threading.Event()
        self._pipeline: Pipeline | None = None
        if job.encodes:
            assert job.model is not None, "videos and images need a model"
            model = load_model(job.model, device=job.device, dtype=job.dtype, task="encode")
            if model.device.type == "cpu":
                torch.set_num_threads(job.threads)
            self.identity = ModelFingerprint.of(model, job.threads)
            self._pipeline = Pipeline(
                model,
                self._read,
                self._measure,
                readers=job.readers,
                limits=job.limits,
                chunk=job.chunk,
            )

    @property
    def capacity(self) -> int:
        """Clips that it may keep before the first result."""
        return 2 * self.job.readers if self._pipeline is None else self._pipeline.capacity

    @property
    def profile(self) -> Profile:
        """Where the time of the model went."""
        return Profile() if self._pipeline is None else self._pipeline.profile

    @property
    def model(self) -> ModelIdentity | None:
        """Whose latents are expected."""
        return _identify(self.job) if self._pipeline is None else _identity_of(self._pipeline.model)

    def measure(self, sources: Sequence[Source]) -> Iterator[MeasuredClip | FailedClip]:
        """Measure clips, which have different names, and give the results in their order."""
        return map(_measured, in_order(sources, self._outcomes))

    def work(self, tasks: Iterator[Task]) -> Iterator[ItemResult]:
        """Measure clips for an engine: see `ray_engine.Worker`."""
        return map(_packed, self._outcomes(tasks))

    def stop(self) -> None:
        """Begin no further clip. From any thread."""
        self._stopped.set()
        if self._pipeline is not None:
            self._pipeline.stop()

    def _outcomes(self, tasks: Iterator[Task]) -> Generator[ItemResult, None, None]:
        """What becomes of clips, in the order in which they get ready."""
        if self._pipeline is not None:
            return self._pipeline.work(tasks)
        begun = itertools.takewhile(lambda task: not self._stopped.is_set(), tasks)
        return settled(self._read, begun, self.job.readers, self.job.limits)

    def _read(self, task: Task, reading: Reading) -> Pieces:
        """Open a video or image for the model, or take the statistics of a latent file."""
        item, draw = task.item, self.job.draw
        with at_hand(item, reading.touch) as (path, marked):
            sampling = self._recipe.sampling_of(item)
            source = Source(path, item.relative, sampling, self.job.hwaccel)
            if source.is_latents:
                measured = measure_latents(source, draw, reading.touch)
                check_unchanged(item, marked)
                yield _Measured(item.relative, item.path, "done", clip=measured)
                return
            assert self._pipeline is not None, "videos and images need a model"
            threads = self._pipeline.decoder_threads
            reader, identity = open_window(source, draw, threads=threads)
            with reader:
                facts = Facts(reader.info, marked, identity)
                for chunk in self._pipeline.chunks(reader, item, marked, reading):
                    yield facts, chunk

    def _measure(self, clip: Clip, encoded: Iterator[Encoded]) -> ItemResult:
        """Take the statistics of one clip, in a thread of its own."""
        assert self._pipeline is not None
        item, model = clip.task.item, self._pipeline.model
        stats = ClipStats(item.relative, clip.facts.identity)
        for each in encoded:
            stats.update(each.posterior.mean[0], each.posterior.logvar[0])
        measured = MeasuredClip(stats, _identity_of(model), "mean", model.compute_dtype)
        return _Measured(item.relative, item.path, "done", clip=measured)


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
        self.model = _identify(job)
        """Whose latents are expected."""
        self.identity = ModelFingerprint("", "", None)

    def __enter__(self) -> StatsOnRay:
        try:
            self.identity = self._engine.start(self._job, NoCallbacks())
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
        outcomes = self._engine.work([task_of(source) for source in sources])
        return map(_measured, ordered(sources, outcomes, self._waiting))


@dataclass(frozen=True)
class _Measured(ItemResult):
    """A clip that is measured."""

    clip: MeasuredClip = field(kw_only=True)


@dataclass(frozen=True)
class _Packed(ItemResult):
    """A clip's statistics on their way from a worker."""

    data: bytes = field(kw_only=True)
    """A `MeasuredClip`, most of which are counts of zero."""


def _packed(outcome: ItemResult) -> ItemResult:
    if isinstance(outcome, _Measured):
        data = zlib.compress(pickle.dumps(outcome.clip), level=1)
        return _Packed(outcome.item, outcome.input, "done", data=data)
    return outcome


def _measured(outcome: ItemResult) -> MeasuredClip | FailedClip:
    if isinstance(outcome, _Measured):
        return outcome.clip
    if isinstance(outcome, _Packed):
        # Ray carries Python objects between its processes as pickles, too: this one is our own.
        measured: MeasuredClip = pickle.loads(zlib.decompress(outcome.data))
        return measured
    return failed_clip(outcome)


def _identity_of(model: LoadedModel) -> ModelIdentity:
    return ModelIdentity(model.name, model.sha256, model.vae.family)


def _identify(job: StatsJob) -> ModelIdentity | None:
    if job.model is None:
        return None
    facts = describe_checkpoint(job.model)
    return ModelIdentity(job.model, facts["sha256"], facts["family"])
