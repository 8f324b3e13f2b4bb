"""Stages of a pipeline in threads of their own, over bounded queues.

The model runs in the caller's thread, so that Ctrl-C reaches it between two operations; reading
and writing run beside it. An error in any stage surfaces in the caller and stops the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL = 0.05  # seconds between looks at whether the other side has stopped
_PATIENCE = 2.0  # seconds that a stage may take to notice; one that hangs in a read is left behind


class _End:
    """What a stage puts last: why it ended."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Clock:
    """Seconds that the caller spent waiting for a stage."""

    def __init__(self) -> None:
        self.waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of a block as waiting."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - begin


class _Channel(Generic[T]):
    """A bounded queue that either side can leave."""

    def __init__(self, depth: int) -> None:
        self._queue: Queue[T | _End] = Queue(depth)
        self.closed = threading.Event()

    def put(self, item: T | _End) -> bool:
        """Put an item when there is room; False once the other side has left."""
        while not self.closed.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
            except Full:
                continue
            return True
        return False

    def get(self) -> T | _End:
        """The next item; an `_End` once the other side has left."""
        while not self.closed.is_set():
            try:
                return self._queue.get(timeout=_POLL)
            except Empty:
                continue
        return _End()


@contextmanager
def produced(
    items: Iterable[T], *, depth: int = 1, clock: Clock | None = None
) -> Iterator[Iterator[T]]:
    """Run `items` in a thread, at most `depth` items ahead of who takes them.

    Yields:
        The items in order. What `items` raises is raised to the taker.
    """
    channel: _Channel[T] = _Channel(depth)
    clock = clock or Clock()

    def work() -> None:
        try:
            for item in items:
                if not channel.put(item):
                    return
            channel.put(_End())
        except BaseException as error:  # handed over, and raised where the items are taken
            channel.put(_End(error))

    def take() -> Iterator[T]:
        while True:
            with clock.waiting():
                item = channel.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    thread = threading.Thread(target=work, name="wfvae-read", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        channel.closed.set()
        thread.join(_PATIENCE)


@contextmanager
def consumed(
    consume: Callable[[T], None], *, depth: int = 1, clock: Clock | None = None
) -> Iterator[Callable[[T], None]]:
    """Run `consume` in a thread, at most `depth` items behind who gives them.

    Yields:
        A function that hands an item over. It raises what `consume` raised for an earlier one,
        as does leaving the block, which waits for the items still under way. A block left by an
        exception drops them.
    """
    channel: _Channel[T] = _Channel(depth)
    clock = clock or Clock()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not isinstance(item := channel.get(), _End):
                consume(item)
        except BaseException as error:  # raised to the giver, at the next item or at the end
            failed.append(error)
        finally:
            channel.closed.set()

    def give(item: T) -> None:
        with clock.waiting():
            taken = channel.put(item)
        if not taken and failed:
            raise failed[0]

    thread = threading.Thread(target=work, name="wfvae-write", daemon=True)
    thread.start()
    try:
        yield give
    except BaseException:
        channel.closed.set()
        thread.join(_PATIENCE)
        raise
    channel.put(_End())
    with clock.waiting():
        while thread.is_alive():  # a join without a limit would not let Ctrl-C through
            thread.join(_POLL)
    if failed:
        raise failed[0]
