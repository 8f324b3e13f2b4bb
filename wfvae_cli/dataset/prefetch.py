"""Opens and decodes the next clips in threads while the model works on others.

A reader that hangs cannot be ended, only left behind: its thread keeps what it holds, another one
takes its place, and its file has failed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from wfvae_cli.dataset.channel import Channel, ClosedError
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.result import ItemResult, TimeLimitError, failure
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.pipeline.chunks import FrameChunk

_POLL = 0.1
"""Seconds between looks at whether a reader hangs."""


@dataclass(frozen=True)
class Limits:
    """How long a file may take before it counts as failed."""

    time: float | None = None
    """Seconds that reading and decoding it may take; its waiting for the model is not counted."""
    stall: float | None = 300.0
    """Seconds without any sign of life."""


@dataclass(frozen=True)
class Task:
    """An item that is to be worked on."""

    item: Item
    made_of: str | None = None
    """SHA-256 of the source of an output that is there, made with these options: if the source
    still has it, there is nothing to do."""


@dataclass(frozen=True)
class Facts:
    """What is known of a source once its first frame is decoded."""

    info: ClipInfo
    stamp: str
    """Size and time of change of the file: see `source.stamp`."""
    identity: str
    """What tells its content from that of other clips."""


class Clip:
    """A source that has been opened, and its first chunk decoded."""

    def __init__(self, task: Task, facts: Facts, first: FrameChunk, reading: Reading) -> None:
        self.task = task
        self.facts = facts
        self.first = first
        self._reading = reading

    @property
    def is_whole(self) -> bool:
        """Whether its first chunk is all of it."""
        return self.first.last

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return self._reading.seconds

    def chunks(self) -> Iterator[FrameChunk]:
        """Every chunk, as it is decoded; once.

        Raises:
            TimeLimitError: the reader hangs.
            VideoError: the source is damaged.
        """
        chunk = self.first
        yield chunk
        while not chunk.last:
            chunk = self._reading.next_chunk()
            yield chunk

    def drop(self) -> None:
        """Let the reader end early."""
        self._reading.more.close()


class Reading:
    """One source on its way, watched from another thread."""

    def __init__(self, task: Task, limits: Limits) -> None:
        self.task, self._limits = task, limits
        self.begun = self._alive = time.monotonic()
        self._waited = 0.0
        self._waiting = False
        self.more: Channel[FrameChunk] = Channel(1)
        self.error: Exception | None = None
        self.is_abandoned = False

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return time.monotonic() - self.begun

    def touch(self) -> None:
        """Give a sign of life.

        Raises:
            ClosedError: it was given up, and nobody waits for it.
        """
        if self.is_abandoned:
            raise ClosedError
        self._alive = time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Do not count a block: the reader waits for the model."""
        begin = time.monotonic()
        self._waiting = True
        try:
            yield
        finally:
            self._alive = time.monotonic()
            self._waited += self._alive - begin
            self._waiting = False

    def overdue(self) -> TimeLimitError | None:
        """Why this source should be given up, if it should."""
        if self._waiting:
            return None
        now, path = time.monotonic(), self.task.item.path
        limit, stall = self._limits.time, self._limits.stall
        if stall is not None and now - self._alive > stall:
            return TimeLimitError(f"{path}: gave nothing for {stall:g} s (--stall-limit)")
        if limit is not None and now - self.begun - self._waited > limit:
            return TimeLimitError(f"{path}: took longer than {limit:g} s to read (--time-limit)")
        return None

    def next_chunk(self) -> FrameChunk:
        """The next chunk after the first one; see `Clip.chunks`."""
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


Pieces = Generator[tuple[Facts, FrameChunk] | ItemResult, None, None]
Read = Callable[[Task, Reading], Pieces]
"""Reads a source in a reader's thread, with a `touch` for every sign of life: gives the chunks of
its frames up to the last one, or else the outcome of a source that the model need not see."""


class Prefetcher:
    """The clips of a dataset in the order in which they get ready, a few at a time.

    Args:
        read: what reads a source.
        tasks: what to read; may block until there is more.
        readers: sources that are read at once.
        limits: how long one may take.
    """

    def __init__(self, read: Read, tasks: Iterator[Task], readers: int, limits: Limits) -> None:
        self._read_source, self._tasks, self._limits = read, tasks, limits
        self._taking = threading.Lock()
        self._lock = threading.Lock()
        self._ready: Channel[Clip | ItemResult] = Channel(readers)
        self._active: set[Reading] = set()
        self._live = 0
        self._stopped = False
        self.readers = 0
        self.grow(readers)

    def grow(self, readers: int) -> None:
        """Read so many sources at once, if it is not as many already."""
        while self.readers < readers:
            self.readers += 1
            self._start_reader()

    def take(self, patience: float = _POLL) -> Clip | ItemResult | None:
        """What is ready next; None where nothing has been for `patience` seconds.

        Every source is given out once, as one of the two; a `Clip` may fail later.

        Raises:
            ClosedError: there is no more.
        """
        try:
            return self._ready.get(patience)
        except TimeoutError:
            return self._give_up_one()

    def abandon(self, clip: Clip) -> None:
        """Leave the reader of a clip behind, which hangs."""
        self._replace(clip._reading)

    def stop(self) -> None:
        """Begin no further source."""
        self._stopped = True

    def close(self) -> None:
        """Stop, and leave everything that is under way."""
        self.stop()
        self._ready.close()
        with self._lock:
            for reading in self._active:
                reading.is_abandoned = True
                reading.more.close()

    def _give_up_one(self) -> ItemResult | None:
        with self._lock:
            readings = list(self._active)
        for reading in readings:
            error = reading.overdue()
            if error is not None and self._replace(reading):
                return failure(reading.task.item, error, reading.seconds)
        return None

    def _replace(self, reading: Reading) -> bool:
        """Put another reader in the place of one that hangs; False if it has ended meanwhile."""
        with self._lock:
            if reading not in self._active:
                return False
            self._active.discard(reading)
            reading.is_abandoned = True
            self._live -= 1
        reading.more.close()
        self._start_reader()
        return True

    def _start_reader(self) -> None:
        with self._lock:
            self._live += 1
        threading.Thread(target=self._work, name="wfvae-read", daemon=True).start()

    def _work(self) -> None:
        while (task := self._next_task()) is not None:
            reading = Reading(task, self._limits)
            with self._lock:
                self._active.add(reading)
            with contextlib.suppress(ClosedError):
                self._read(reading)
            with self._lock:
                if reading.is_abandoned:  # another reader has this one's place
                    return
                self._active.discard(reading)
        with self._lock:
            self._live -= 1
            ended = not self._live
        if ended:
            self._ready.close()

    def _next_task(self) -> Task | None:
        with self._taking:
            return None if self._stopped else next(self._tasks, None)

    def _read(self, reading: Reading) -> None:
        delivered = False
        try:
            with contextlib.closing(self._read_source(reading.task, reading)) as pieces:
                for piece in pieces:
                    if delivered:
                        assert isinstance(piece, tuple), "an outcome comes alone"
                        with reading.waiting():
                            reading.more.put(piece[1])
                        continue
                    delivered = True
                    if isinstance(piece, tuple):
                        self._deliver(reading, Clip(reading.task, *piece, reading))
                    else:
                        self._deliver(reading, piece)
        except ClosedError:
            raise
        except Exception as error:  # any failure is this file's own, and told as such
            reading.error = error
            if not delivered:
                self._deliver(reading, failure(reading.task.item, error, reading.seconds))
        finally:
            reading.more.close()

    def _deliver(self, reading: Reading, ready: Clip | ItemResult) -> None:
        if reading.is_abandoned:
            raise ClosedError
        with reading.waiting():
            self._ready.put(ready)


def settled(
    read: Read, tasks: Iterator[Task], readers: int, limits: Limits
) -> Generator[ItemResult, None, None]:
    """The outcomes of sources that no model need see, as they get ready: see `Prefetcher`."""
    ahead = Prefetcher(read, tasks, readers, limits)
    try:
        while True:
            ready = ahead.take()
            assert not isinstance(ready, Clip), "there is nobody to take frames"
            if ready is not None:
                yield ready
    except ClosedError:
        return
    finally:
        ahead.close()
