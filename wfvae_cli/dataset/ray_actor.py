"""A worker in a process that Ray started, as an actor that answers calls meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.engine import EngineJob, Worker
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.pipeline.job import Profile


class Actor:
    """A worker in a process of its own. Ray calls the methods, all in one event loop."""

    def __init__(self, make: Callable[[Any], Worker], job: EngineJob) -> None:
        # One thread for all that concerns the model: how many cores it computes with is a thread's.
        self._thread = ThreadPoolExecutor(1)
        self._worker = self._thread.submit(make, job).result()
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._answers: dict[str, Future[ItemResult | None]] = {}
        self._received: set[str] = set()
        self._awaited: set[str] | None = None
        self._is_stopped = False
        self._thread.submit(self._run)

    async def start(self) -> tuple[ModelFingerprint, int]:
        """Return the worker's fingerprint, and the number of calls that fill its pipeline."""
        return self._worker.fingerprint, self._worker.capacity

    async def submit(self, task: Task) -> ItemResult | None:
        """Work on a task; None where it was not begun because of `stop`."""
        if self._is_stopped:
            return None
        name = task.item.relative
        answer = self._answers[name] = Future()
        self._tasks.put(task)
        self._received.add(name)
        if self._awaited is not None:
            self._awaited.discard(name)
        self._end_if_due()
        return await asyncio.wrap_future(answer)

    async def flush(self, names: Sequence[str]) -> None:
        """Let the pipeline wait for no further task, once those of `names` have come."""
        self._awaited = {*names} - self._received  # Ray promises no order of calls
        self._end_if_due()

    async def stop(self) -> None:
        """Begin nothing else."""
        self._is_stopped = True
        self._worker.stop()
        self._tasks.put(None)

    async def profile(self) -> Profile:
        """Return the time per stage."""
        return self._worker.profile

    def _end_if_due(self) -> None:
        if self._awaited is not None and not self._awaited:
            self._awaited = None
            self._tasks.put(None)

    def _run(self) -> None:
        """Work on the tasks that arrive: one run of the pipeline up to every `flush`."""
        while not self._is_stopped:
            begun: set[str] = set()
            try:
                for result in self._worker.work(self._begin(begun)):
                    self._answers.pop(result.item).set_result(result)
                    begun.discard(result.item)
            except BaseException as error:  # handed over: it concerns all files
                for name in begun:
                    self._answers.pop(name).set_exception(error)
        for answer in self._answers.values():
            answer.set_result(None)

    def _begin(self, begun: set[str]) -> Iterator[Task]:
        for task in iter(self._tasks.get, None):
            begun.add(task.item.relative)
            yield task
