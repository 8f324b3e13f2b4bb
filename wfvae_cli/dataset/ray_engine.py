"""Workers on Ray (https://docs.ray.io): one actor for each GPU, or for every few cores.

Each file is one call of an actor, with as many calls under way as fill the worker's pipeline. Ray
places the actors and restarts those that die. The files that a dead one had are tried again one by
one, so that a file that kills its worker a second time is known, and has failed.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from queue import Empty, SimpleQueue
from typing import Any

from typing_extensions import override

from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.engine import Engine, EngineJob, Gate, Results, Worker
from wfvae_cli.dataset.ray_actor import Actor
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.errors import DeviceError, MissingExtraError, UsageError, WfvaeError
from wfvae_cli.pipeline.job import Callbacks, Profile

_POLL = 0.5
_PATIENCE = 60.0
"""Seconds that a part of the files is kept for a worker that starts."""
_MOST_STARTS = 3
"""Times that a worker may die while it starts, before the run is given up."""
_SILENCE = 20.0
"""Seconds without an answer of the cluster after which it is lost."""
_SHUTDOWN = 5.0
"""Seconds that Ray has to end the rest of such a cluster."""
_MOST_CALLS = 1 << 15
"""Concurrent calls of an actor: more than any pipeline's capacity."""


@dataclass(eq=False)
class _Handle:
    """A worker as the driver sees it."""

    actor: Any
    is_up: bool = False
    """True once it has answered since it was started, or restarted."""
    spawned: float = field(default_factory=time.monotonic)
    under_way: dict[str, Task] = field(default_factory=dict)
    """Tasks that it was given and has not answered for."""
    retries: deque[Task] = field(default_factory=deque)
    """The retry queue: tasks that it died of, or with, to be tried one by one."""
    is_flushed: bool = False
    """True once its pipeline was told that nothing follows."""


class RayEngine(Engine):
    """Works on a Ray cluster.

    Args:
        address: of the cluster, or `auto`; by default what RAY_ADDRESS says, else a cluster on
            this machine that ends with the run.
        workers: how many; by default one for each GPU, or for each `threads` cores.
        make: what makes a worker of the job, in its own process.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        workers: int | None = None,
        make: Callable[[Any], Worker] = Worker,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "ray", "--engine ray") from error
        self._ray: Any = ray
        self._address, self._wanted, self._make = address, workers, make
        self._is_ours = False
        self._handles: list[_Handle] = []
        self._waiting: deque[Task] = deque()
        self._deaths: dict[str, int] = {}
        self._answers: SimpleQueue[tuple[_Handle, Task | None, Future[Any]]] = SimpleQueue()
        self._fingerprint: ModelFingerprint | None = None
        self._capacity = 0
        self._is_stopped = self._is_told = False
        self._closed = threading.Event()
        self._last_seen = math.inf
        self._profile = Profile()

    @override
    def start(self, job: EngineJob, callbacks: Callbacks[Task]) -> ModelFingerprint:
        self._job, self._callbacks = job, callbacks
        self._connect()
        self._last_seen = time.monotonic()
        threading.Thread(target=self._watch, name="wfvae-ray", daemon=True).start()
        self._count, self._resources = self._plan()
        self._spawn()
        while self._fingerprint is None:
            for _ in self._settle_next():
                pass
        return self._fingerprint

    @override
    def work(self, tasks: Sequence[Task], gate: Gate | None = None) -> Results:
        """Work on every task, in any order.

        Raises:
            UsageError: the workers compute in different ways.
            DeviceError: workers die before they can work, or the cluster is lost.
            WfvaeError: what a worker raised that concerns all files.
        """
        self._waiting = deque(tasks)
        while len(self._handles) < min(self._count, len(tasks)):
            self._spawn()
        while any(handle.under_way for handle in self._handles) or not self._is_done:
            if self._is_stopped and not self._is_told:
                self._is_told = True
                for handle in self._handles:
                    self._call(handle, "stop")
            for handle in self._handles:
                if handle.is_up and not self._is_stopped:
                    self._feed(handle, gate is None or gate.is_open)
            yield from self._settle_next()
        self._sum_profiles()

    @override
    def stop(self) -> None:
        self._is_stopped = True

    @override
    def close(self) -> None:
        """End the workers, and the cluster if it is ours."""
        is_lost = self._is_lost
        self._closed.set()
        for handle in [] if is_lost else self._handles:
            self._ray.kill(handle.actor)
        self._handles = []
        if self._is_ours:
            ending = threading.Thread(target=self._ray.shutdown, name="wfvae-ray", daemon=True)
            ending.start()
            # Of a cluster that is lost, Ray waits for answers that nobody gives.
            ending.join(_SHUTDOWN if is_lost else None)

    @property
    @override
    def profile(self) -> Profile | None:
        """Time per stage, summed over the workers."""
        return self._profile

    @property
    def _is_done(self) -> bool:
        left = self._waiting or any(handle.retries for handle in self._handles)
        return self._is_stopped or not left

    @property
    def _is_lost(self) -> bool:
        return time.monotonic() - self._last_seen > _SILENCE

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        on_terminate = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if self._address is None else None,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DeviceError(f"no Ray cluster at {self._address}: {error}") from error
        finally:
            # Ray's own handlers end the driver with 15 or 1, and with a native trace.
            if threading.current_thread() is threading.main_thread() and on_terminate is not None:
                signal.signal(signal.SIGTERM, on_terminate)
        self._is_ours = True

    def _watch(self) -> None:
        """Note when the cluster was seen alive; in a thread, since asking may hang."""
        node_id = self._ray.get_runtime_context().get_node_id()
        while not self._closed.wait(_POLL * 4):
            try:
                nodes = self._ray.nodes()
            except Exception:
                continue
            is_alive = any(node["NodeID"] == node_id and node["Alive"] for node in nodes)
            self._last_seen = time.monotonic() if is_alive else -math.inf

    def _check_cluster(self) -> None:
        if self._is_lost:
            raise DeviceError(
                "the Ray cluster is lost: this machine's raylet or the head node died or does not "
                "answer; the same command goes on where it ended"
            )

    def _plan(self) -> tuple[int, dict[str, float]]:
        """Choose how many workers there are, and what each of them is to have."""
        cluster = self._ray.cluster_resources()
        gpus, cores = int(cluster.get("GPU", 0)), cluster.get("CPU", 1.0)
        if self._job.device != "cpu" and gpus:
            return self._wanted or gpus, {"num_gpus": 1, "num_cpus": 1}
        count = self._wanted or max(1, int(cores // self._job.threads))
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        share = min(self._job.threads, max(nodes, default=1.0), max(1.0, cores // count))
        # A worker that asks for more than any machine has would wait for ever.
        return count, {"num_cpus": int(share) if cores >= count else cores / count}

    def _spawn(self) -> None:
        # Ray's retries are for `start` alone: a call that it repeated by itself would meet the same
        # neighbours, and nobody could tell which of the files kills.
        actor = self._ray.remote(
            max_restarts=-1,
            max_task_retries=_MOST_STARTS - 1,
            max_concurrency=_MOST_CALLS,
            **self._resources,
        )(Actor)
        handle = _Handle(actor.remote(self._make, self._job))
        self._handles.append(handle)
        self._await(handle)

    def _await(self, handle: _Handle) -> None:
        """Wait, without blocking, until a worker is up."""
        handle.is_up = handle.is_flushed = False
        self._expect(handle, None, handle.actor.start.remote())

    def _call(self, handle: _Handle, method: str, *arguments: Any) -> Any:
        return getattr(handle.actor, method).options(max_task_retries=0).remote(*arguments)

    def _expect(self, handle: _Handle, task: Task | None, call: Any) -> None:
        call.future().add_done_callback(lambda answer: self._answers.put((handle, task, answer)))

    def _feed(self, handle: _Handle, may_begin: bool) -> None:
        """Submit tasks up to a worker's capacity; flush its pipeline where none are left."""
        if handle.retries:
            self._give(handle, [] if handle.under_way else [handle.retries.popleft()])
        elif may_begin:
            room = max(0, self._share() - len(handle.under_way))
            self._give(handle, [self._waiting.popleft() for _ in range(room) if self._waiting])
        none_follows = handle.retries or not may_begin or not self._waiting
        if none_follows and handle.under_way and not handle.is_flushed:
            handle.is_flushed = True
            self._call(handle, "flush", list(handle.under_way))

    def _give(self, handle: _Handle, tasks: list[Task]) -> None:
        for task in tasks:
            handle.is_flushed = False
            handle.under_way[task.item.relative] = task
            self._expect(handle, task, self._call(handle, "submit", task))
            self._callbacks.started(task)

    def _share(self) -> int:
        """Items that each worker may have: all that it can keep, but no more than its part.

        Workers that have not come up after a while, for want of a machine, have none.
        """
        now = time.monotonic()
        count = sum(handle.is_up or now - handle.spawned < _PATIENCE for handle in self._handles)
        left = len(self._waiting) + sum(len(handle.under_way) for handle in self._handles)
        return min(self._capacity, math.ceil(left / count))

    def _settle_next(self) -> Iterator[ItemResult]:
        """Wait a moment for the next answer of a worker, and act on it.

        The wait is Python's own, not Ray's: signals and a lost cluster end it.
        """
        try:
            handle, task, answer = self._answers.get(timeout=_POLL)
        except Empty:
            self._check_cluster()
            return
        errors, error = self._ray.exceptions, answer.exception()
        if task is None:
            self._on_start(handle, error, answer)
            return
        handle.under_way.pop(task.item.relative)
        if error is None:
            if (result := answer.result()) is not None:
                self._callbacks.advanced(result.frames or 0)
                yield result
            return
        cause = getattr(error, "cause", None) if isinstance(error, errors.RayTaskError) else None
        if isinstance(cause, DeviceError):
            if handle.is_up:
                self._ray.kill(handle.actor, no_restart=False)  # its device is lost, as if it died
        elif isinstance(cause, WfvaeError):
            raise cause from error
        elif not isinstance(error, (errors.RayActorError, errors.ObjectLostError)):
            raise error
        yield from self._on_death(handle, task, cause or error)

    def _on_start(self, handle: _Handle, error: Any, answer: Future[Any]) -> None:
        if error is not None:
            self._closed.wait(_POLL * 5)  # what a lost cluster looks like until it is known
            self._check_cluster()
            cause = getattr(error, "cause", None) or error
            raise DeviceError(f"a worker does not start: {_last_line(cause)}") from error
        fingerprint, self._capacity = answer.result()
        if self._fingerprint not in (None, fingerprint):
            raise UsageError(
                "the workers compute in different ways, so that bytes would depend on who works: "
                "say --device and --dtype, and use machines of one kind"
            )
        self._fingerprint = fingerprint
        handle.is_up = True

    def _on_death(self, handle: _Handle, task: Task, error: Any) -> Iterator[ItemResult]:
        """Queue a file that was open when a worker died, to be retried once and alone."""
        if handle.is_up:
            self._await(handle)
        name = task.item.relative
        self._deaths[name] = self._deaths.get(name, 0) + 1
        if self._deaths[name] < 2:
            handle.retries.append(task)
            return
        text = f"{task.item.path}: killed its worker twice ({_last_line(error)})"
        yield ItemResult(name, task.item.path, "failed", error=text, kind="killed workers")

    def _sum_profiles(self) -> None:
        calls = [self._call(handle, "profile") for handle in self._handles if handle.is_up]
        try:
            profiles: list[Profile] = self._ray.get(calls, timeout=_SILENCE)
        except self._ray.exceptions.RayError:  # nothing but a figure is lost with it
            return
        for each in fields(Profile):
            total = sum(getattr(profile, each.name) for profile in profiles)
            setattr(self._profile, each.name, total)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
