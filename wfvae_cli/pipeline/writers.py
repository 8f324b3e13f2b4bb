"""Finishes clips in threads while the model goes on with the next ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Generic

from wfvae_cli.pipeline.channel import Channel, ClosedError
from wfvae_cli.pipeline.job import Finished, Sink, Staged, TaskT, ValueT
from wfvae_cli.pipeline.prefetch import Reading

_POLL = 0.5
_PATIENCE = 2.0
"""Seconds that writers have to remove what is not complete when a run is abandoned."""


class Writing(Generic[TaskT, ValueT]):
    """One clip on its way out; the model's thread gives it chunk by chunk.

    Args:
        reading: of the clip.
        sink: where it goes; None where it failed before it could be opened.
    """

    def __init__(self, reading: Reading[TaskT], sink: Sink[ValueT] | None) -> None:
        self.reading, self.sink = reading, sink
        self._staged: Channel[tuple[Staged, bool]] = Channel(2)
        self._error: BaseException | None = None

    def put(self, staged: Staged, *, last: bool) -> None:
        """Hand a chunk over.

        Raises:
            ClosedError: the clip could not be written; its result says why.
        """
        self._staged.put((staged, last))

    def fail(self, error: BaseException) -> None:
        """End the clip early; nothing of it stays."""
        self._error = error
        self._staged.close()

    def run(self) -> Finished[TaskT, ValueT]:
        """Write what is handed over, up to the last chunk."""
        value, error = None, None
        try:
            for staged in self._taken():
                staged.write()
            assert self.sink is not None
            value = self.sink.finish()
        except BaseException as caught:  # handed over: nothing catches it in this thread
            error = caught
        finally:
            self._staged.close()
        try:
            if self.sink is not None:
                self.sink.close()
        except Exception as caught:
            error = error or caught
        return Finished(self.reading.task, value, error, self.reading.seconds)

    def _taken(self) -> Iterator[Staged]:
        while True:
            try:
                staged, last = self._staged.get(_POLL)
            except TimeoutError:
                continue
            except ClosedError:
                assert self._error is not None, "a clip ends with a last chunk or an error"
                raise self._error from self._error.__cause__
            yield staged
            if last:
                return


class Writers(Generic[TaskT, ValueT]):
    """At most `count` clips that are being written, each in a thread of its own."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = threading.Semaphore(count)
        self._under_way: dict[Writing[TaskT, ValueT], threading.Thread] = {}
        self._finished: SimpleQueue[Finished[TaskT, ValueT]] = SimpleQueue()

    def begin(self, reading: Reading[TaskT], sink: Sink[ValueT] | None) -> Writing[TaskT, ValueT]:
        """Start to write a clip, once there is a writer for it."""
        while not self._free.acquire(timeout=_POLL):
            pass  # waiting without a timeout would block Ctrl-C
        writing = Writing[TaskT, ValueT](reading, sink)
        thread = threading.Thread(
            target=self._run, args=(writing,), name="wfvae-write", daemon=True
        )
        self._under_way[writing] = thread
        thread.start()
        return writing

    def finished(self) -> Iterator[Finished[TaskT, ValueT]]:
        """Give the results since the last call, without waiting."""
        while True:
            try:
                yield self._finished.get_nowait()
            except Empty:
                return

    def drain(self) -> Iterator[Finished[TaskT, ValueT]]:
        """Wait for every clip that has been begun, and give the results that are left."""
        for _ in range(self._count):
            while not self._free.acquire(timeout=_POLL):
                pass
        self._free.release(self._count)
        yield from self.finished()

    def abort(self, error: BaseException) -> None:
        """End every clip that is under way; what is not complete is removed."""
        under_way = dict(self._under_way)
        for writing in under_way:
            writing.fail(error)
        deadline = time.monotonic() + _PATIENCE
        for thread in under_way.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, writing: Writing[TaskT, ValueT]) -> None:
        self._finished.put(writing.run())
        self._under_way.pop(writing, None)
        self._free.release()
