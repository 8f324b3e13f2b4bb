"""Writes clips in threads while the model goes on with the next ones."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from wfvae_cli.dataset.channel import Channel, ClosedError
from wfvae_cli.dataset.prefetch import Clip
from wfvae_cli.dataset.result import ItemResult, failure
from wfvae_cli.errors import OutputError
from wfvae_cli.models.base import Posterior

_POLL = 0.5
_ABOUT_NAME = (
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
)


@dataclass(frozen=True)
class Encoded:
    """What the model made of one chunk."""

    posterior: Posterior
    """BCTHW with B = 1."""
    pts: Sequence[int]
    last: bool


Write = Callable[[Clip, Iterator[Encoded]], ItemResult]
"""Writes one clip. Raising means that the clip failed, and left nothing behind."""


class Writing:
    """One clip on its way out; the model's thread gives it chunk by chunk."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self._chunks: Channel[Encoded] = Channel(2)
        self._error: BaseException | None = None

    def give(self, encoded: Encoded) -> None:
        """Hand a chunk over.

        Raises:
            ClosedError: the clip could not be written; its outcome says why.
        """
        self._chunks.put(encoded)

    def fail(self, error: BaseException) -> None:
        """End the clip early; its file is not written."""
        self._error = error
        self._chunks.close()

    def chunks(self) -> Iterator[Encoded]:
        """What was given, up to the last chunk; raises what `fail` was told."""
        while True:
            try:
                encoded = self._chunks.get(_POLL)
            except TimeoutError:
                continue
            except ClosedError:
                assert self._error is not None, "a clip ends with a last chunk or an error"
                raise self._error from None
            yield encoded
            if encoded.last:
                return

    def leave(self) -> None:
        """Take no more chunks."""
        self._chunks.close()


class WriteBehind:
    """At most `writers` clips that are being written, each in a thread of its own.

    Args:
        write: called in a thread for every clip.
        writers: how many at once.
    """

    def __init__(self, write: Write, writers: int) -> None:
        self._write = write
        self._writers = writers
        self._free = threading.Semaphore(writers)
        self._under_way: set[Writing] = set()
        self._outcomes: SimpleQueue[ItemResult | OutputError] = SimpleQueue()

    def begin(self, clip: Clip) -> Writing:
        """Start to write a clip, once there is a writer for it."""
        self._free.acquire()
        writing = Writing(clip)
        self._under_way.add(writing)
        threading.Thread(target=self._run, args=(writing,), name="wfvae-write", daemon=True).start()
        return writing

    def finished(self) -> Iterator[ItemResult]:
        """The outcomes since the last call, without waiting.

        Raises:
            OutputError: a clip could not be written, and neither will others be.
        """
        while True:
            try:
                outcome = self._outcomes.get_nowait()
            except Empty:
                return
            if isinstance(outcome, OutputError):
                raise outcome
            yield outcome

    def drain(self) -> Iterator[ItemResult]:
        """Wait for every clip that has been begun, and give the outcomes that are left."""
        for _ in range(self._writers):
            self._free.acquire()
        self._free.release(self._writers)
        yield from self.finished()

    def abort(self, error: BaseException) -> None:
        """End every clip that is under way; what was not complete is removed."""
        for writing in list(self._under_way):
            writing.fail(error)

    def _run(self, writing: Writing) -> None:
        try:
            self._outcomes.put(self._write(writing.clip, writing.chunks()))
        except BaseException as error:  # handed over: a thread has nobody to raise to
            if isinstance(error, OutputError) and not _is_about_name(error):
                self._outcomes.put(error)
            elif isinstance(error, Exception):
                self._outcomes.put(failure(writing.clip.task.item, error, writing.clip.seconds))
        finally:
            writing.leave()
            self._under_way.discard(writing)
            self._free.release()


def _is_about_name(error: OutputError) -> bool:
    """Whether only this output cannot be written; on a full disk no other can, either."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _ABOUT_NAME
