"""Interfaces between the pipeline and what is done with each clip."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from wfvae_cli.models.base import Posterior, Task
from wfvae_cli.pipeline.options import Batch, Limits, Tile
from wfvae_cli.pipeline.plan import ChunkPlan

TaskT = TypeVar("TaskT")
ValueT = TypeVar("ValueT")
GivenT = TypeVar("GivenT", contravariant=True)

Heartbeat = Callable[[], None]
"""Heartbeat callback, called by a reader as it makes progress, so that a stall is noticed."""


class Chunk(Protocol):
    """Frames, or latents, that go through the model together."""

    @property
    def last(self) -> bool:
        """True where it ends its stream, so that the model flushes the frames that it held back."""

    @property
    def ends_task(self) -> bool:
        """True for the last chunk of the task, which may hold several streams in succession."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width in pixels, padding included."""

    @property
    def kind(self) -> Hashable:
        """Equal for chunks that fit into one batch."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes on the host."""

    def to_tensor(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Bring it to a device as the model takes it: BCTHW with B = 1."""


class ClipSource(ABC):
    """An open clip, in a reader's thread."""

    width: int
    height: int

    @abstractmethod
    def chunks(self, plan: ChunkPlan) -> Iterator[Chunk]:
        """Read the clip, cut as `plan` says; at least one chunk, and the last one is marked.

        A clip may give several streams of equal size in turn, such as windows of it: each ends
        with a `last` chunk, and the last of these ends the task.
        """

    def verify(self) -> None:
        """Check that the source did not change meanwhile; called before the last chunk goes on.

        Raises:
            InputError: the source was written to meanwhile.
        """
        return


SourceT = TypeVar("SourceT", bound=ClipSource)


@dataclass(frozen=True)
class ModelOutput:
    """Output of the model for one clip's chunk, on the model's device."""

    posterior: Posterior | None = None
    """BCTHW with B = 1; None where the encoder took no part."""
    frames: Tensor | None = None
    """1CTHW in about [-1, 1], padded; None where the decoder took no part."""
    seconds: float = 0.0
    """Model time in seconds; on an accelerator only where `PipelineOptions.is_timed`."""


@dataclass(frozen=True)
class Staged:
    """Pending write of one chunk that the model is done with."""

    frames: int
    """Number of the clip's frames that this write completes."""
    write: Callable[[], None]
    """Run in the clip's writer thread, chunk after chunk."""


class Sink(ABC, Generic[ValueT]):
    """Destination of one clip's chunks."""

    @abstractmethod
    def stage(self, chunk: Chunk, output: ModelOutput) -> Staged:
        """Take the next chunk, in the model's thread: start copies from the device, no more."""

    @abstractmethod
    def finish(self) -> ValueT:
        """Complete the clip after its last chunk, in the writer's thread."""

    def close(self) -> None:
        """Remove what is not complete; called once, after `finish` or instead of it."""
        return


@dataclass(frozen=True)
class Ready(Generic[ValueT]):
    """The result of a task that needs no model."""

    value: ValueT


class Job(ABC, Generic[TaskT, SourceT, ValueT]):
    """The work on each clip: opening it, the halves of the model it passes, and its sink."""

    halves: Task
    """Halves of the model that chunks go through: `encode`, `decode`, or `both` in turn."""

    @abstractmethod
    def open(
        self, task: TaskT, heartbeat: Heartbeat
    ) -> AbstractContextManager[SourceT | Ready[ValueT]]:
        """Open a task's clip in a reader's thread; or give its result, where no model is needed.

        Raises:
            InputError: it cannot be read.
        """

    @abstractmethod
    def sink(self, task: TaskT, source: SourceT, plan: ChunkPlan) -> Sink[ValueT]:
        """Open what a clip goes into, when the model begins with it."""


@dataclass(frozen=True)
class Finished(Generic[TaskT, ValueT]):
    """The end of a task: a value, or the error that it came to."""

    task: TaskT
    value: ValueT | None = None
    error: BaseException | None = None
    seconds: float = 0.0
    """Seconds from opening it to its last byte, waiting included."""


@dataclass(frozen=True)
class PipelineOptions:
    """Options of the pipeline, for all clips of a run."""

    chunk: int | None = None
    """Frames of a clip's first chunk, `1 + k*stride`; None suits the resolution."""
    tile: Tile = "auto"
    batch: Batch = 1
    readers: int = 1
    """Sources that are opened and decoded at once."""
    limits: Limits = field(default_factory=lambda: Limits(stall=None))
    is_timed: bool = False
    """True to synchronise with the device after every chunk, so that its time is known."""


class Callbacks(Protocol[GivenT]):
    """Progress callbacks of the pipeline, called in its thread."""

    def started(self, task: GivenT) -> None:
        """Called when the model begins with a clip."""

    def advanced(self, frames: int) -> None:
        """Called when `frames` more frames are through the model."""


class NoCallbacks(Generic[TaskT]):
    """Callbacks that do nothing."""

    def started(self, task: TaskT) -> None:
        """Do nothing."""

    def advanced(self, frames: int) -> None:
        """Do nothing."""


@dataclass
class Profile:
    """Time of the model's thread by activity, in seconds."""

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
