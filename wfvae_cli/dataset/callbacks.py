"""What a worker tells of its work: to a watcher as it goes on, and in a profile of its time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from wfvae_cli.dataset.items import Item


class Callbacks(Protocol):
    """Told what a worker does, in its thread."""

    def started(self, item: Item) -> None:
        """The model begins with an item."""

    def advanced(self, frames: int) -> None:
        """So many more frames have been through the model."""


class NoCallbacks:
    """A watcher that looks away."""

    def started(self, item: Item) -> None:
        """See `Callbacks`."""

    def advanced(self, frames: int) -> None:
        """See `Callbacks`."""


@dataclass
class Profile:
    """Where the time of the model's thread went, in seconds."""

    waited_for_input: float = 0.0
    in_model: float = 0.0
    waited_for_output: float = 0.0
    total: float = 0.0

    @contextlib.contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the time of a block to one of the three."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - begin)
