"""Who takes the statistics of a dataset's clips: a worker in this process, or workers on Ray.

Every clip is measured by itself, which depends on nothing but the clip and the options. The
results are handed over in the order of the dataset, wherever they come from, so that merging them
gives the same bytes whatever the engine, the number of workers, or their deaths.
"""

from __future__ import annotations

import pickle
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType

import torch

from wfvae_cli.codec.statistics import stats_encoder
from wfvae_cli.dataset import remote
from wfvae_cli.dataset.inputs import Item
from wfvae_cli.dataset.outcome import Outcome
from wfvae_cli.dataset.ray_engine import RayEngine
from wfvae_cli.dataset.read_ahead import Task
from wfvae_cli.dataset.recipe import Identity, Recipe
from wfvae_cli.dataset.source import opened
from wfvae_cli.dataset.worker import Profile, Unwatched
from wfvae_cli.media.clip import Sampling
from wfvae_cli.models.load import DType, describe_checkpoint, load_model
from wfvae_cli.stats.accumulate import FailedClip
from wfvae_cli.stats.draw import Draw, Source
from wfvae_cli.stats.measure import Encoder, MeasuredClip, attempt, measure
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
    hwaccel: str = "none"
    """What decodes videos on the workers, as `open_clip` takes it."""


class StatsWorker:
    """Measures whatever clips it is given, in this process."""

    capacity = 2
    """One clip that it measures, and the next one."""

    def __init__(self, job: StatsJob) -> None:
        """Load the model, where one is needed.

        Raises:
            WeightsError, DeviceError: it cannot be.
            UsageError: the model cannot be run as the job says.
        """
        self.job = job
        self.profile = Profile()
        self.identity = Identity("", "", None)
        self._encoder: Encoder | None = None
        if job.encodes:
            assert job.model is not None, "videos and images need a model"
            model = load_model(job.model, device=job.device, dtype=job.dtype, task="encode")
            if model.device.type == "cpu":
                torch.set_num_threads(job.threads)
            self._encoder = stats_encoder(model, job.chunk)
            self.identity = Identity.of(model, job.threads)
        self._stopped = threading.Event()

    @property
    def model(self) -> ModelIdentity | None:
        """Whose latents are expected."""
        return _identify(self.job) if self._encoder is None else self._encoder.identity

    def measure(self, sources: Sequence[Source]) -> Iterator[MeasuredClip | FailedClip]:
        """Measure clips, in their order."""
        for source in sources:
            yield self._measure(source)

    def work(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """Measure clips for an engine: see `ray_engine.Worker`."""
        sampling_of = Recipe(sampling=self.job.sampling).sampling_of
        for task in tasks:
            if self._stopped.is_set():
                return
            item = task.item
            source = Source(item.path, item.relative, sampling_of(item), self.job.hwaccel)
            result = self._measure(source)
            if isinstance(result, FailedClip):
                yield Outcome(item.relative, item.path, "failed", error=result.reason)
            else:
                yield _Measured.of(item, result)

    def stop(self) -> None:
        """Begin no further clip. From any thread."""
        self._stopped.set()

    def _measure(self, source: Source) -> MeasuredClip | FailedClip:
        return attempt(source, fetched, lambda f: measure(f, self._encoder, self.job.draw))


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
        self._waiting: dict[str, Outcome] = {}
        self._engine = RayEngine(
            address=address,
            workers=workers,
            make=make,
            hold=lambda: len(self._waiting) >= _MOST_WAITING,
        )
        self.model = _identify(job)
        """Whose latents are expected."""
        self.identity = Identity("", "", None)

    def __enter__(self) -> StatsOnRay:
        try:
            self.identity = self._engine.start(self._job, Unwatched())
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
        tasks = [
            Task(Item(each.path, each.name, each.sampling.start, each.sampling.duration))
            for each in sources
        ]
        due = iter(sources)
        source = next(due, None)
        for outcome in self._engine.work(tasks):
            self._waiting[outcome.item] = outcome
            while source is not None and source.name in self._waiting:
                yield _result(self._waiting.pop(source.name))
                source = next(due, None)


@dataclass(frozen=True)
class _Measured(Outcome):
    """A clip's statistics on their way from a worker."""

    packed: bytes = b""
    """A `MeasuredClip`, most of which are counts of zero."""

    @classmethod
    def of(cls, item: Item, measured: MeasuredClip) -> _Measured:
        packed = zlib.compress(pickle.dumps(measured), level=1)
        return cls(item.relative, item.path, "done", packed=packed)


def _result(outcome: Outcome) -> MeasuredClip | FailedClip:
    if isinstance(outcome, _Measured):
        # Ray carries Python objects between its processes as pickles, too: this one is our own.
        measured: MeasuredClip = pickle.loads(zlib.decompress(outcome.packed))
        return measured
    return FailedClip(outcome.item, (outcome.error or "").removeprefix(f"{outcome.input}: "))


def _identify(job: StatsJob) -> ModelIdentity | None:
    if job.model is None:
        return None
    facts = describe_checkpoint(job.model)
    return ModelIdentity(job.model, facts["sha256"], facts["family"])


@contextmanager
def fetched(source: Source) -> Iterator[Source]:
    """A temporary copy of a remote file; a local one as it is.

    Raises:
        InputError: it cannot be had.
    """
    if not remote.is_url(source.path):
        yield source
        return
    with opened(Item(source.path, source.name), lambda: None) as file:
        yield replace(source, path=file.path)
