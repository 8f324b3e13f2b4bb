"""What runs in a process that Ray started: a worker, and the files that it is given meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from wfvae_cli.dataset.callbacks import Profile
from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.prefetch import Task
from wfvae_cli.dataset.result import ItemResult


class Job(Protocol):
    """What a worker has to know, of which the engine reads where it is to run."""

    @property
    def device(self) -> str:
        """As of `--device`; anything but `cpu` asks for a GPU where there are any."""

    @property
    def threads(self) -> int:
        """Cores that a worker without a GPU computes with."""


class Worker(Protocol):
    """What `ClipWorker` is to the engine; another one may answer with kinds of `ItemResult`."""

    @property
    def identity(self) -> ModelFingerprint:
        """What it computes with; the same for all workers of a run."""

    @property
    def capacity(self) -> int:
        """Items that it may keep before the first outcome."""

    @property
    def profile(self) -> Profile:
        """Where the time went."""

    def work(self, tasks: Iterator[Task]) -> Iterator[ItemResult]:
        """Give one outcome for every task."""

    def stop(self) -> None:
        """Begin nothing else."""


class Actor:
    """A worker in a process of its own; Ray calls its methods."""

    def __init__(self, make: Callable[[Any], Worker], job: Job) -> None:
        self._worker = make(job)
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()

    def identity(self) -> ModelFingerprint:
        """See `Worker`."""
        return self._worker.identity

    def capacity(self) -> int:
        """See `Worker`."""
        return self._worker.capacity

    def give(self, tasks: Sequence[Task | None]) -> None:
        """Take in more to work on; None ends `run`."""
        for task in tasks:
            self._tasks.put(task)

    def run(self) -> Iterator[ItemResult]:
        """Work on what is given, up to None."""
        # Ray sends values in. `yield from`, which UP028 asks for, would hand them down to iterators
        # that take none, however deep: the run would end in an AttributeError.
        for outcome in self._worker.work(iter(self._tasks.get, None)):  # noqa: UP028
            yield outcome

    def stop(self) -> None:
        """See `Worker`."""
        self._worker.stop()

    def profile(self) -> Profile:
        """See `Worker`."""
        return self._worker.profile
