"""Workers on Ray (https://docs.ray.io): one for each GPU, or for every few cores.

Ray places the workers, starts machines where it may, and notices when one dies; here is only who
gets which file, and what a death means. A worker that dies is replaced. The files that it had are
tried again one by one, so that one that kills its worker a second time is known, and has failed.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.engine import Worker as LocalWorker
from wfvae_cli.dataset.ray_actor import Actor, Job, Worker
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.errors import DeviceError, MissingExtraError, UsageError, WfvaeError
from wfvae_cli.pipeline.job import Callbacks, Profile

_FEED = "feed"
"""The actor's thread that takes files in while another one works."""
_POLL = 0.5
_PATIENCE = 60.0
"""Seconds that a part of the files is kept for a worker that starts."""
_MOST_STARTS = 3
"""Times that a worker may die before it can work, until the run is given up."""


@dataclass(eq=False)
class _Handle:
    """A worker as the driver sees it."""

    actor: Any
    starting: Any
    """Reference to its identity, until that is there."""
    spawned: float = field(default_factory=time.monotonic)
    stream: Any = None
    """Its results, while it works."""
    under_way: dict[str, Task] = field(default_factory=dict)
    """What it was given and has not answered for."""
    retries: deque[Task] = field(default_factory=deque)
    """What the worker before it died of, or with: to be tried one by one."""
    is_ended: bool = False
    """Whether it was told that nothing more comes in this stream."""


class RayEngine:
    """Works on a Ray cluster.

    Args:
        address: of the cluster, or `auto`; by default what RAY_ADDRESS says, else a cluster on
            this machine that ends with the run.
        workers: how many; by default one for each GPU, or for each `threads` cores.
        make: what makes a worker of the job, in its own process.
        hold: whether to give out nothing more for now; asked whenever a worker has room.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        workers: int | None = None,
        make: Callable[[Any], Worker] = LocalWorker,
        hold: Callable[[], bool] = lambda: False,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "ray", "--engine ray") from error
        self._ray: Any = ray
        self._address, self._wanted, self._make, self._hold = address, workers, make, hold
        self._is_ours = False
        self._handles: list[_Handle] = []
        self._waiting: deque[Task] = deque()
        self._deaths: dict[str, int] = {}
        self._failed_starts = 0
        self._stopped = self._told = False
        self._profile = Profile()

    def start(self, job: Job, callbacks: Callbacks[Task]) -> ModelFingerprint:
        """Start the first worker.

        Raises:
            DeviceError: there is no such cluster, or workers do not start.
        """
        self._job, self._callbacks = job, callbacks
        self._connect()
        self._count, self._resources = self._plan()
        first = self._spawn()
        self._identity = self._await(first)
        self._capacity = int(self._ray.get(first.actor.capacity.remote()))
        self._handles = [first]
        return self._identity

    def work(self, tasks: Sequence[Task]) -> Iterator[ItemResult]:
        """Work on every task, in any order.

        Raises:
            UsageError: the workers compute in different ways.
            DeviceError: workers die before they can work.
            WfvaeError: what a worker raised that concerns all files.
        """
        self._waiting = deque(tasks)
        while self._handles and len(self._handles) < min(self._count, len(tasks)):
            self._handles.append(self._spawn())
        while self._handles:
            if self._stopped and not self._told:
                self._tell_to_stop()
            by_reference = {
                handle.stream if handle.starting is None else handle.starting: handle
                for handle in self._handles
                if handle.starting is not None or self._go_on(handle)
            }
            if not by_reference:
                continue
            ready, _ = self._ray.wait(list(by_reference), num_returns=1, timeout=_POLL)
            if not ready:
                self._check_nodes()
            for reference in ready:
                yield from self._step(by_reference[reference])

    def stop(self) -> None:
        """Finish what has begun, and begin nothing else."""
        self._stopped = True

    def close(self) -> None:
        """End the workers, and the cluster if it is ours."""
        for handle in self._handles:
            self._ray.kill(handle.actor)
        self._handles = []
        if self._is_ours:
            self._ray.shutdown()

    @property
    def profile(self) -> Profile | None:
        """Where the time went, summed over the workers."""
        return self._profile

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        # `init` sets a handler of its own, which ends the driver with exit code 15.
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
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_terminate)
        self._is_ours = True

    def _check_nodes(self) -> None:
        """Refuse to wait for workers that no node is left to run.

        Raises:
            DeviceError: no node is alive.
        """
        if not any(node["Alive"] for node in self._ray.nodes()):
            raise DeviceError(
                "no node of the Ray cluster is alive: its raylet died, perhaps for want of memory; "
                "the same command goes on"
            )

    def _plan(self) -> tuple[int, dict[str, float]]:
        """How many workers, and what each of them is to have."""
        cluster = self._ray.cluster_resources()
        gpus, cores = int(cluster.get("GPU", 0)), cluster.get("CPU", 1.0)
        if self._job.device != "cpu" and gpus:
            return self._wanted or gpus, {"num_gpus": 1, "num_cpus": 1}
        count = self._wanted or max(1, int(cores // self._job.threads))
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        share = min(self._job.threads, max(nodes, default=1.0), max(1.0, cores // count))
        # A worker that asks for more than any machine has would wait for ever.
        return count, {"num_cpus": int(share) if cores >= count else cores / count}

    def _spawn(self) -> _Handle:
        remote = self._ray.remote(max_restarts=0, concurrency_groups={_FEED: 1}, **self._resources)(
            Actor
        )
        actor = remote.remote(self._make, self._job)
        return _Handle(actor, actor.identity.remote())

    def _await(self, handle: _Handle) -> ModelFingerprint:
        """The identity of a worker that starts."""
        errors = self._ray.exceptions
        try:
            identity: ModelFingerprint = self._ray.get(handle.starting)
        except errors.RayActorError as error:
            cause = getattr(error, "cause", None) or error
            raise DeviceError(f"a worker does not start: {_last_line(cause)}") from error
        handle.starting = None
        return identity

    def _go_on(self, handle: _Handle) -> bool:
        """Give a worker that is up what it can take; False where it has nothing left to do."""
        if handle.stream is None:
            if self._stopped or not (handle.retries or self._waiting):
                self._retire(handle)
                return False
            handle.stream = handle.actor.run.options(num_returns="streaming").remote()
            handle.is_ended = False
            if handle.retries:
                self._give(handle, [handle.retries.popleft()], end=True)
        if not handle.is_ended:
            room = 0 if self._hold() else max(0, self._share() - len(handle.under_way))
            taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._give(handle, taken, end=self._stopped or not self._waiting)
        return True

    def _share(self) -> int:
        """Items that each worker may have: all that it can keep, but no more than its part.

        Workers that have not come up after a while, for want of a machine, have none.
        """
        now = time.monotonic()
        count = sum(
            handle.starting is None or now - handle.spawned < _PATIENCE for handle in self._handles
        )
        left = len(self._waiting) + sum(len(handle.under_way) for handle in self._handles)
        return min(self._capacity, math.ceil(left / count))

    def _give(self, handle: _Handle, tasks: list[Task], *, end: bool) -> None:
        if not (tasks or end):
            return
        handle.under_way.update((task.item.relative, task) for task in tasks)
        handle.is_ended = end
        rest: list[Task | None] = [*tasks, None] if end else [*tasks]
        handle.actor.give.options(concurrency_group=_FEED).remote(rest)
        for task in tasks:
            self._callbacks.started(task)

    def _step(self, handle: _Handle) -> Iterator[ItemResult]:
        """Take the next thing that a worker has to say."""
        errors = self._ray.exceptions
        try:
            if handle.starting is not None:
                if self._await(handle) != self._identity:
                    raise UsageError(
                        "the workers compute in different ways, so that bytes would depend on who "
                        "works: say --device and --dtype, and use machines of one kind"
                    )
                return
            result: ItemResult = self._ray.get(next(handle.stream))
        except StopIteration:
            handle.stream = None
            handle.under_way.clear()
        except errors.RayTaskError as error:
            if isinstance(error.cause, WfvaeError):
                raise error.cause from error
            raise
        except (errors.RayActorError, errors.ObjectLostError, DeviceError) as error:
            yield from self._on_death(handle, error)
        else:
            handle.under_way.pop(result.item, None)
            self._failed_starts = 0
            self._callbacks.advanced(result.frames or 0)
            yield result

    def _on_death(self, handle: _Handle, error: Exception) -> Iterator[ItemResult]:
        """Replace a worker that died; its files are tried again one by one."""
        if handle.starting is not None:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_STARTS:
                raise DeviceError(f"workers die before they can work: {_last_line(error)}")
        self._handles.remove(handle)
        successor = self._spawn()
        for name, task in handle.under_way.items():
            self._deaths[name] = self._deaths.get(name, 0) + 1
            if self._deaths[name] < 2:
                successor.retries.append(task)
                continue
            yield ItemResult(
                name,
                task.item.path,
                "failed",
                error=f"{task.item.path}: killed its worker twice ({_last_line(error)})",
                kind="killed workers",
            )
        successor.retries.extend(handle.retries)
        self._handles.append(successor)

    def _retire(self, handle: _Handle) -> None:
        spent: Profile = self._ray.get(handle.actor.profile.remote())
        for each in fields(Profile):
            total = getattr(self._profile, each.name) + getattr(spent, each.name)
            setattr(self._profile, each.name, total)
        self._handles.remove(handle)
        self._ray.kill(handle.actor)

    def _tell_to_stop(self) -> None:
        self._told = True
        for handle in self._handles:
            handle.actor.stop.options(concurrency_group=_FEED).remote()
            if handle.stream is not None and not handle.is_ended:
                self._give(handle, [], end=True)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
