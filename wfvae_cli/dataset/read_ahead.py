"""Opens and decodes the next clips in threads while the model works on others.

A reader that hangs cannot be ended, only left behind: its thread keeps what it holds, another one
takes its place, and its file has failed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from wfvae_cli.codec.batch import check_memory, fixed_plan
from wfvae_cli.codec.chunks import FrameChunk, read_chunks
from wfvae_cli.dataset.channel import Channel, ClosedError
from wfvae_cli.dataset.inputs import Item
from wfvae_cli.dataset.outcome import ChangedError, TimeLimitError
from wfvae_cli.dataset.recipe import Recipe
from wfvae_cli.dataset.source import Source, opened, stamp
from wfvae_cli.errors import WfvaeError
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.models.base import LoadedModel

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
    """An item that is to be encoded."""

    item: Item
    made_of: str | None = None
    """SHA-256 of the source of an output that is there, made with these options: if the source
    still has it, there is nothing to do."""


class Clip:
    """A source that has been opened, and its first chunk decoded."""

    def __init__(
        self, task: Task, info: ClipInfo, source: Source, first: FrameChunk, reading: _Reading
    ) -> None:
        self.task = task
        self.info = info
        self.source = source
        self.first = first
        self._reading = reading

    @property
    def is_whole(self) -> bool:
        """Whether its first chunk is all of it."""
        return self.first.last

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return time.monotonic() - self._reading.begun

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


@dataclass(frozen=True)
class Unread:
    """A source of which no chunk could be had."""

    task: Task
    error: Exception
    seconds: float


@dataclass(frozen=True)
class Unchanged:
    """A source whose output is up to date."""

    task: Task
    stamp: str


Ready = Clip | Unread | Unchanged


class _Reading:
    """One source on its way, watched from another thread."""

    def __init__(self, task: Task, limits: Limits) -> None:
        self.task, self._limits = task, limits
        self.begun = self._alive = time.monotonic()
        self._waited = 0.0
        self._waiting = False
        self.more: Channel[FrameChunk] = Channel(1)
        self.error: Exception | None = None
        self.is_abandoned = False

    def touch(self) -> None:
        """Give a sign of life."""
        self._alive = time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Do not count a block: the reader waits for the model."""
        begin = time.monotonic()
        self._waiting = True
        try:
            yield
        finally:
            self._waited += time.monotonic() - begin
            self.touch()
            self._waiting = False

    def watched(self, reader: ClipReader) -> Iterator[Frame]:
        """Frames as they come, each a sign of life."""
        for frame in reader:
            if self.is_abandoned:
                raise ClosedError
            self.touch()
            yield frame

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


class ReadAhead:
    """The clips of a dataset in the order in which they get ready, a few at a time.

    Args:
        model: what they are for.
        recipe: which frames, and how they are cut.
        tasks: what to read; may block until there is more.
        readers: sources that are read at once.
        limits: how long one may take.
    """

    def __init__(
        self,
        model: LoadedModel,
        recipe: Recipe,
        tasks: Iterator[Task],
        readers: int,
        limits: Limits,
    ) -> None:
        self._model, self._recipe, self._limits = model, recipe, limits
        self._tasks = tasks
        self._decoder_threads = max(1, (os.cpu_count() or 1) // readers)
        self._taking = threading.Lock()
        self._lock = threading.Lock()
        self._ready: Channel[Ready] = Channel(readers)
        self._active: set[_Reading] = set()
        self._live = 0
        self._stopped = False
        for _ in range(readers):
            self._start_reader()

    def take(self) -> Ready | None:
        """What is ready next, waiting for it; None at the end.

        Every source is given out once, as one of the three; a `Clip` may fail later.
        """
        while True:
            try:
                return self._ready.get(_POLL)
            except TimeoutError:
                late = self._give_up_one()
                if late is not None:
                    return late
            except ClosedError:
                return None

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

    def _give_up_one(self) -> Unread | None:
        with self._lock:
            readings = list(self._active)
        for reading in readings:
            error = reading.overdue()
            if error is not None and self._replace(reading):
                return Unread(reading.task, error, time.monotonic() - reading.begun)
        return None

    def _replace(self, reading: _Reading) -> bool:
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
            reading = _Reading(task, self._limits)
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

    def _read(self, reading: _Reading) -> None:
        task, delivered, path = reading.task, False, reading.task.item.path
        try:
            with opened(task.item, reading.touch) as source:
                path = source.path
                if source.sha256 == task.made_of:
                    self._deliver(reading, Unchanged(task, source.stamp))
                    return
                for info, chunk in self._decode(reading, source):
                    if not delivered:
                        delivered = True
                        self._deliver(reading, Clip(task, info, source, chunk, reading))
                    else:
                        with reading.waiting():
                            reading.more.put(chunk)
        except ClosedError:
            raise
        except Exception as error:  # any failure is this file's own, and told as such
            reading.error = error = _renamed(error, path, task.item.path)
            if not delivered:
                seconds = time.monotonic() - reading.begun
                self._deliver(reading, Unread(task, error, seconds))
        finally:
            reading.more.close()

    def _decode(self, reading: _Reading, source: Source) -> Iterator[tuple[ClipInfo, FrameChunk]]:
        item, recipe = reading.task.item, self._recipe
        sampling = recipe.sampling_of(item)
        with open_clip(source.path, sampling, threads=self._decoder_threads) as reader:
            reading.touch()
            info = reader.info
            options, size = recipe.options, (info.width, info.height)
            plan = fixed_plan(self._model, options.chunk, *size, options.tile)
            strides = self._model.vae.strides
            for number, chunk in enumerate(read_chunks(reading.watched(reader), strides, plan)):
                if number == 0:
                    check_memory(self._model, len(chunk.pixels), *size, plan.tile)
                if chunk.last and not item.is_url and stamp(item.path) != source.stamp:
                    raise ChangedError(f"{item.path}: changed while it was read")
                yield info, chunk

    def _deliver(self, reading: _Reading, ready: Ready) -> None:
        if reading.is_abandoned:
            raise ClosedError
        with reading.waiting():
            self._ready.put(ready)


def _renamed(error: Exception, copy: str, path: str) -> Exception:
    """An error that names the source, and not its temporary copy."""
    if copy == path or not isinstance(error, WfvaeError):
        return error
    return type(error)(str(error).replace(copy, path))
