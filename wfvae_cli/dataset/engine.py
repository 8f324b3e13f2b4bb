"""Engines: where a dataset's items are worked on."""

from __future__ import annotations

import contextlib
import errno
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from typing_extensions import override

from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.isolation import Isolation
from wfvae_cli.dataset.result import ItemResult, Task, failure
from wfvae_cli.errors import OutputError
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.models.load import load_model
from wfvae_cli.models.options import DType
from wfvae_cli.pipeline.job import Callbacks, Finished, Job, PipelineOptions, Profile
from wfvae_cli.pipeline.pipeline import Pipeline

_ABOUT_NAME = (
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
)


Results = Generator[ItemResult, None, None]


class EngineJob(Protocol):
    """A job as a worker sees it; fit to be sent to another machine."""

    @property
    def model(self) -> str | None:
        """Name of the model; None where the items need none."""

    @property
    def device(self) -> str:
        """Device, as of `--device`; anything but `cpu` asks for a GPU where there are any."""

    @property
    def dtype(self) -> DType:
        """Dtype that the model computes in."""

    @property
    def compile(self) -> bool:
        """True where the model is compiled."""

    @property
    def threads(self) -> int:
        """Cores that a model on the CPU computes with."""

    @property
    def halves(self) -> Halves:
        """Halves of the model that are needed."""

    @property
    def pipeline_options(self) -> PipelineOptions:
        """Options of the pipeline."""

    def clip_job(self, model: Any, fingerprint: ModelFingerprint) -> Job[Task, Any, ItemResult]:
        """Make the pipeline's job: what it does with each item."""


class Gate:
    """Backpressure: holds tasks back while too many results wait for an earlier one."""

    def __init__(self) -> None:
        self._may_begin = threading.Event()
        self._may_begin.set()
        self._is_ended = False

    @property
    def is_open(self) -> bool:
        """True where another task may begin."""
        return self._may_begin.is_set()

    def let(self, go_on: bool) -> None:
        """Open or shut the gate."""
        if go_on:
            self._may_begin.set()
        else:
            self._may_begin.clear()

    def end(self) -> None:
        """Release all waiting threads; no further task begins."""
        self._is_ended = True
        self._may_begin.set()

    def through(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Yield tasks while the gate is open, and wait while it is shut."""
        for task in tasks:
            self._may_begin.wait()
            if self._is_ended:
                return
            yield task


class Engine(ABC):
    """The interface of engines."""

    @abstractmethod
    def start(self, job: EngineJob, callbacks: Callbacks[Task]) -> ModelFingerprint:
        """Load the model where it will run.

        Raises:
            WeightsError, DeviceError: it cannot be loaded there.
        """

    @abstractmethod
    def work(self, tasks: Sequence[Task], gate: Gate | None = None) -> Results:
        """Work on every task, in any order.

        Args:
            tasks: their items have different names.
            gate: holds tasks back; without one they begin as soon as there is room.
        """

    @abstractmethod
    def stop(self) -> None:
        """Finish what has begun, and begin nothing else. Callable from a signal handler."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the workers."""

    @property
    @abstractmethod
    def profile(self) -> Profile | None:
        """Time per stage, once the work is done; None where it was not measured."""


class Worker:
    """A model that is loaded, and a pipeline through it.

    Raises:
        WeightsError, DeviceError: the model cannot be loaded.
        UsageError: it cannot be run as the job says.
    """

    def __init__(self, job: EngineJob, callbacks: Callbacks[Task] | None = None) -> None:
        self.job = job
        self.fingerprint = ModelFingerprint("", "", None)
        model = None
        if job.model is not None:
            model = load_model(
                job.model, device=job.device, dtype=job.dtype, task=job.halves, compile=job.compile
            )
            if model.device.type == "cpu":
                torch.set_num_threads(job.threads)
            self.fingerprint = ModelFingerprint.of(model, job.threads)
        clip_job = job.clip_job(model, self.fingerprint)
        self._pipeline: Pipeline[Task, Any, ItemResult] = Pipeline(
            model, clip_job, job.pipeline_options, callbacks
        )

    @property
    def capacity(self) -> int:
        """Items that the pipeline may hold before the first result: it must be given that many."""
        return self._pipeline.capacity

    @property
    def profile(self) -> Profile:
        """Time per stage."""
        return self._pipeline.profile

    def work(self, tasks: Iterator[Task]) -> Iterator[ItemResult]:
        """Work on every task.

        Raises:
            OutputError: outputs cannot be written at all.
            DeviceError: the device is lost.
        """
        with contextlib.closing(self._pipeline.run(tasks)) as finished:
            yield from map(result_of, finished)

    def stop(self) -> None:
        """Finish what the model has begun, and begin nothing else. From any thread."""
        self._pipeline.stop()


def result_of(finished: Finished[Task, ItemResult]) -> ItemResult:
    """Record how a task ended.

    Raises:
        OutputError: it could not be written, and neither will others be.
        BaseException: what is no fault of its file.
    """
    error, seconds = finished.error, round(finished.seconds, 3)
    if error is None:
        assert finished.value is not None
        return replace(finished.value, seconds=seconds)
    if isinstance(error, OutputError) and not _is_about_name(error):
        raise error
    if not isinstance(error, Exception):
        raise error
    return failure(finished.task.item, error, seconds)


def _is_about_name(error: OutputError) -> bool:
    """Return True where only this output cannot be written; on a full disk no other can, either."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _ABOUT_NAME


class LocalEngine(Engine):
    """One worker, in this process.

    Args:
        isolation: what is known of crashes before, and who is told which items are open.
    """

    def __init__(self, isolation: Isolation | None = None) -> None:
        self._isolation = isolation or Isolation()
        self._worker: Worker | None = None
        self._is_stopped = False

    @override
    def start(self, job: EngineJob, callbacks: Callbacks[Task]) -> ModelFingerprint:
        self._worker = Worker(job, callbacks)
        if self._is_stopped:
            self._worker.stop()
        return self._worker.fingerprint

    @override
    def work(self, tasks: Sequence[Task], gate: Gate | None = None) -> Results:
        """Work on every task, on those that may have crashed a process before one by one."""
        assert self._worker is not None, "start comes first"
        gate = gate or Gate()
        failed, alone, rest = self._isolation.sort(tasks)
        yield from failed
        for group in (*([task] for task in alone), rest):
            for result in self._worker.work(self._isolation.begin(gate.through(group))):
                self._isolation.end(result)
                yield result

    @override
    def stop(self) -> None:
        self._is_stopped = True
        if self._worker is not None:
            self._worker.stop()

    @override
    def close(self) -> None:
        """Do nothing: the worker ends with its work."""

    @property
    @override
    def profile(self) -> Profile | None:
        return None if self._worker is None else self._worker.profile
