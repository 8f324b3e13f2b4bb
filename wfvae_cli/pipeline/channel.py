"""A bounded queue between two threads, which either end can close, with timeouts."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class ClosedError(Exception):
    """The channel was closed: no more items come, or none are taken."""


class Channel(Generic[T]):
    """At most `depth` items on their way from producers to a consumer."""

    def __init__(self, depth: int) -> None:
        self._items: deque[T] = deque()
        self._depth = depth
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> None:
        """Put an item when there is room.

        Raises:
            ClosedError: the channel was closed.
        """
        with self._changed:
            while len(self._items) >= self._depth and not self._closed:
                self._changed.wait()
            if self._closed:
                raise ClosedError
            self._items.append(item)
            self._changed.notify_all()

    def get(self, timeout: float) -> T:
        """Take the next item.

        Raises:
            TimeoutError: none came in `timeout` seconds.
            ClosedError: the channel was closed, and no items are left.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while not self._items:
                left = until - time.monotonic()
                if self._closed:
                    raise ClosedError
                if left <= 0:
                    raise TimeoutError
                self._changed.wait(left)
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Let go of both sides; what is in the queue can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
