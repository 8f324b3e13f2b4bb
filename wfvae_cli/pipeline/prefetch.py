"""Prefetch: opens and decodes the next clips in threads while the model works on others.

A reader that hangs cannot be ended, only abandoned: its thread and its memory stay, another reader
replaces it, and its file counts as failed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic

from wfvae_cli.errors import TimeLimitError
from wfvae_cli.pipeline.channel import Channel, ClosedError
from wfvae_cli.pipeline.job import Chunk, Finished, Job, Ready, SourceT, TaskT, ValueT
from wfvae_cli.pipeline.options import Limits
from wfvae_cli.pipeline.plan import ChunkPlan

_POLL = 0.1
"""Seconds between looks at whether a reader hangs."""
_PATIENCE = 2.0
"""Seconds that readers have to close their files at the end; one that hangs is left behind."""


class Reading(Generic[TaskT]):
    """A source that is being read, watched from another thread."""

    def __init__(self, task: TaskT, limits: Limits) -> None:
        self.task, self._limits = task, limits
        self.begun = self._alive = time.monotonic()
        self._waited = 0.0
        self._is_waiting = False
        self.more: Channel[Chunk] = Channel(1)
        """Chunks after the first one."""
        self.error: Exception | None = None
        """What its clip raises after the last of `more`, if that does not end it."""
        self.is_abandoned = False
        self.is_given_out = False
        """True from when its clip, or its result, is on its way to who takes it."""

    @property
    def seconds(self) -> float:
        """Seconds since it was begun."""
        return time.monotonic() - self.begun

    def beat(self) -> None:
        """Record a heartbeat.

        Raises:
            ClosedError: the source was given up.
        """
        if self.is_abandoned:
            raise ClosedError
        self._alive = time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Leave a block out of its time: the reader waits for the model."""
        begin = time.monotonic()
        self._is_waiting = True
        try:
            yield
        finally:
            self._alive = time.monotonic()
            self._waited += self._alive - begin
            self._is_waiting = False

    def overdue(self) -> TimeLimitError | None:
        """Return the error of a source that exceeded a time limit; None for one that did not."""
        if self._is_waiting:
            return None
        now, limit, stall = time.monotonic(), self._limits.time, self._limits.stall
        if stall is not None and now - self._alive > stall:
            return TimeLimitError(f"{self.task}: gave nothing for {stall:g} s (--stall-limit)")
        if limit is not None and now - self.begun - self._waited > limit:
            return TimeLimitError(
                f"{self.task}: took longer than {limit:g} s to read (--time-limit)"
            )
        return None

    def next_chunk(self) -> Chunk:
        """Wait for the next chunk after the first one.

        Raises:
            TimeLimitError: the reader hangs.
            InputError: the source is damaged.
        """
        while True:
            try:
                return self.more.get(_POLL)
            except TimeoutError:
                overdue = self.overdue()
                if overdue is not None:
                    raise overdue from None
            except ClosedError:
                assert self.error is not None, "a clip ends with a last chunk or an error"
                raise self.error from None


class Clip(Generic[TaskT, SourceT]):
    """A source that has been opened, and its first chunk decoded."""

    def __init__(
        self, source: SourceT, plan: ChunkPlan, first: Chunk, reading: Reading[TaskT]
    ) -> None:
        self.source, self.plan, self.first, self.reading = source, plan, first, reading

    @property
    def task(self) -> TaskT:
        """The task that the source belongs to."""
        return self.reading.task

    @property
    def is_whole(self) -> bool:
        """True where its first chunk is the only one."""
        return self.first.ends_task

    def drop(self) -> None:
        """Let the reader end early."""
        self.reading.more.close()


class Prefetcher(Generic[TaskT, SourceT, ValueT]):
    """The clips of a job in the order in which they get ready, a few at a time.

    Args:
        job: opens the sources.
        tasks: what to read, taken from in other threads; may block until there is more.
        plan: cuts an open clip into chunks.
        check: called with each clip's first chunk; raises where it cannot go on.
        readers: sources that are read at once.
        limits: time limits of one source.
    """

    def __init__(
        self,
        job: Job[TaskT, SourceT, ValueT],
        tasks: Iterator[TaskT],
        plan: Callable[[SourceT], ChunkPlan],
        check: Callable[[SourceT, ChunkPlan, Chunk], None],
        readers: int,
        limits: Limits,
    ) -> None:
        self._job, self._tasks, self._limits = job, tasks, limits
        self._plan, self._check = plan, check
        self._taking = threading.Lock()
        self._lock = threading.Lock()
        self._ready: Channel[Clip[TaskT, SourceT] | Finished[TaskT, ValueT]] = Channel(readers)
        self._active: dict[Reading[TaskT], threading.Thread] = {}
        self._live = 0
        self._is_stopped = False
        self.readers = 0
        self.grow(readers)

    def grow(self, readers: int) -> None:
        """Read so many sources at once, if it is not as many already."""
        while self.readers < readers:
            self.readers += 1
            self._start_reader()

    def take(
        self, patience: float = _POLL
    ) -> Clip[TaskT, SourceT] | Finished[TaskT, ValueT] | None:
        """Take what is ready next; None where nothing has been for `patience` seconds.

        Every task is given out once, as one of the two; a `Clip` may fail later.

        Raises:
            ClosedError: there is no more.
        """
        try:
            return self._ready.get(patience)
        except TimeoutError:
            return self._give_up_one()

    def abandon(self, clip: Clip[TaskT, SourceT], error: TimeLimitError) -> None:
        """Leave the reader of a clip behind, which hangs, as `error` says."""
        self._replace(clip.reading, error)

    def stop(self) -> None:
        """Begin no further source."""
        self._is_stopped = True

    def close(self) -> None:
        """Stop, and let readers close what they have open; those that hang are left behind."""
        self.stop()
        self._ready.close()
        with self._lock:
            active = dict(self._active)
            for reading in active:
                reading.is_abandoned = True
                reading.more.close()
        deadline = time.monotonic() + _PATIENCE
        for thread in active.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _give_up_one(self) -> Finished[TaskT, ValueT] | None:
        with self._lock:
            readings = list(self._active)
        for reading in readings:
            error = reading.overdue()
            if error is None or not self._replace(reading, error):
                continue
            if not reading.is_given_out:  # else the clip raises it where it goes on
                return Finished(reading.task, error=error, seconds=reading.seconds)
        return None

    def _replace(self, reading: Reading[TaskT], error: Exception) -> bool:
        """Put another reader in the place of one that hangs; False if it has ended meanwhile."""
        with self._lock:
            if self._active.pop(reading, None) is None:
                return False
            reading.is_abandoned = True
            reading.error = error
            self._live -= 1
        reading.more.close()
        self._start_reader()
        return True

    def _start_reader(self) -> None:
        with self._lock:
            self._live += 1
        threading.Thread(target=self._work, name="wfvae-read", daemon=True).start()

    def _work(self) -> None:
        while (reading := self._begin()) is not None:
            with contextlib.suppress(ClosedError):
                self._read(reading)
            with self._lock:
                if self._active.pop(reading, None) is None and reading.is_abandoned:
                    return  # it was abandoned, and another reader replaced it
        with self._lock:
            self._live -= 1
            ended = not self._live
        if ended:
            self._ready.close()

    def _begin(self) -> Reading[TaskT] | None:
        with self._taking:
            if self._is_stopped:
                return None
            try:
                task = next(self._tasks)
            except StopIteration:
                return None
        reading = Reading(task, self._limits)
        with self._lock:
            self._active[reading] = threading.current_thread()
        return reading

    def _read(self, reading: Reading[TaskT]) -> None:
        is_delivered = False
        try:
            with self._job.open(reading.task, reading.beat) as opened:
                if isinstance(opened, Ready):
                    ready = Finished(reading.task, opened.value, None, reading.seconds)
                    self._deliver(reading, ready)
                    return
                plan = self._plan(opened)
                for chunk in opened.chunks(plan):
                    reading.beat()
                    if chunk.last:
                        opened.verify()
                    if is_delivered:
                        with reading.waiting():
                            reading.more.put(chunk)
                        continue
                    self._check(opened, plan, chunk)
                    is_delivered = True
                    self._deliver(reading, Clip(opened, plan, chunk, reading))
        except ClosedError:
            raise
        except Exception as error:  # any failure is the result of this file alone
            reading.error = error
            if not is_delivered:
                failed = Finished[TaskT, ValueT](reading.task, None, error, reading.seconds)
                self._deliver(reading, failed)
        finally:
            reading.more.close()

    def _deliver(
        self, reading: Reading[TaskT], ready: Clip[TaskT, SourceT] | Finished[TaskT, ValueT]
    ) -> None:
        with self._lock:
            if reading.is_abandoned:
                raise ClosedError
            reading.is_given_out = True
        with reading.waiting():
            self._ready.put(ready)
