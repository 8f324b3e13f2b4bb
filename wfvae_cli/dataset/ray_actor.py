"""A worker in a process that Ray started, and the files that it is given meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.pipeline.job import Profile


class Job(Protocol):
    """What a worker has to know, of which the engine reads where it is to run."""

    @property
    def device(self) -> str:
        """As of `--device`; anything but `cpu` asks for a GPU where there are any."""

    @property
    def threads(self) -> int:
        """Cores that a worker without a GPU computes with."""


class Worker(Protocol):
    """A worker as the engine sees it; its results may be subclasses of `ItemResult`."""

    @property
    def identity(self) -> ModelFingerprint:
        """What it computes with; the same for all workers of a run."""

    @property
    def capacity(self) -> int:
        """Items that it may keep before the first result."""

    @property
    def profile(self) -> Profile:
        """Where the time went."""

    def work(self, tasks: Iterator[Task]) -> Iterator[ItemResult]:
        """Give one result for every task."""

    def stop(self) -> None:
        """Begin nothing else."""


class Actor:
    """A worker in a process of its own; Ray calls its methods."""

    def __init__(self, make: Callable[[Any], Worker], job: Job) -> None:
        self._worker = make(job)
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()

    def identity(self) -> ModelFingerprint:
        """Forward to the worker."""
        return self._worker.identity

    def capacity(self) -> int:
        """Forward to the worker."""
        return self._worker.capacity

    def give(self, tasks: Sequence[Task | None]) -> None:
        """Take in more to work on; None ends `run`."""
        for task in tasks:
            self._tasks.put(task)

    def run(self) -> Iterator[ItemResult]:
        """Work on what is given, up to None."""
        # Ray sends values in. `yield from`, which UP028 asks for, would hand them down to iterators
        # that take none, however deep: the run would end in an AttributeError.
        for result in self._worker.work(iter(self._tasks.get, None)):  # noqa: UP028
            yield result

    def stop(self) -> None:
        """Forward to the worker."""
        self._worker.stop()

    def profile(self) -> Profile:
        """Forward to the worker."""
        return self._worker.profile
