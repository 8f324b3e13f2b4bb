"""Engines: where a dataset's items are worked on."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.isolation import Isolation
from wfvae_cli.dataset.job import DatasetJob
from wfvae_cli.dataset.result import ItemResult, Task, failure
from wfvae_cli.errors import OutputError
from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline.job import Callbacks, Finished, Profile
from wfvae_cli.pipeline.pipeline import Pipeline

_ABOUT_NAME = (
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
)


class Engine(Protocol):
    """Where items are worked on."""

    def start(self, job: DatasetJob, callbacks: Callbacks[Task]) -> ModelFingerprint:
        """Load the model where it will run."""

    def work(self, tasks: Sequence[Task]) -> Iterator[ItemResult]:
        """Work on every task, in any order."""

    def stop(self) -> None:
        """Finish what has begun, and begin nothing else. Callable from a signal handler."""

    def close(self) -> None:
        """Let go of the workers."""

    @property
    def profile(self) -> Profile | None:
        """Where the time went, once the work is done; None where nobody knows."""


class Worker:
    """A model that is loaded, and a pipeline through it.

    Raises:
        WeightsError, DeviceError: the model cannot be loaded.
        UsageError: it cannot be run as the job says.
    """

    def __init__(self, job: DatasetJob, callbacks: Callbacks[Task] | None = None) -> None:
        self.job = job
        model = load_model(
            job.model, device=job.device, dtype=job.dtype, task=job.halves, compile=job.compile
        )
        if model.device.type == "cpu":
            torch.set_num_threads(job.threads)
        self.identity = ModelFingerprint.of(model, job.threads)
        clip_job = job.clip_job(model, self.identity)
        self._pipeline: Pipeline[Task, Any, ItemResult] = Pipeline(
            model, clip_job, job.pipeline_options, callbacks
        )

    @property
    def capacity(self) -> int:
        """Items that it may keep before the first result: it must be given that many."""
        return self._pipeline.capacity

    @property
    def profile(self) -> Profile:
        """Where the time went."""
        return self._pipeline.profile

    def work(self, tasks: Iterator[Task]) -> Iterator[ItemResult]:
        """Work on every task.

        Raises:
            OutputError: outputs cannot be written at all.
            DeviceError: the device is lost.
        """
        for finished in self._pipeline.run(tasks):
            yield result_of(finished)

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
    """Tell whether only this output cannot be written; on a full disk no other can, either."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _ABOUT_NAME


class LocalEngine:
    """One worker, in this process.

    Args:
        isolation: what is known of crashes before, and who is told which items are open.
    """

    def __init__(self, isolation: Isolation | None = None) -> None:
        self._isolation = isolation or Isolation()
        self._worker: Worker | None = None
        self._is_stopped = False

    def start(self, job: DatasetJob, callbacks: Callbacks[Task]) -> ModelFingerprint:
        """Load the model."""
        self._worker = Worker(job, callbacks)
        if self._is_stopped:
            self._worker.stop()
        return self._worker.identity

    def work(self, tasks: Sequence[Task]) -> Iterator[ItemResult]:
        """Work on every task, on those that may have crashed a process before one by one."""
        assert self._worker is not None, "start comes first"
        failed, alone, rest = self._isolation.sort(tasks)
        yield from failed
        for group in (*([task] for task in alone), rest):
            for result in self._worker.work(self._isolation.begin(group)):
                self._isolation.end(result)
                yield result

    def stop(self) -> None:
        """Finish what has begun, and begin nothing else."""
        self._is_stopped = True
        if self._worker is not None:
            self._worker.stop()

    def close(self) -> None:
        """Do nothing: the worker ends with its work."""

    @property
    def profile(self) -> Profile | None:
        """Where the time went."""
        return None if self._worker is None else self._worker.profile
