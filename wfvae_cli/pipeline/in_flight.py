"""Clips on their way through a model, each at a chunk of its own, those of one shape together."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic

from wfvae_cli.pipeline.batch import ClipStreams
from wfvae_cli.pipeline.job import SourceT, TaskT, ValueT
from wfvae_cli.pipeline.prefetch import Clip
from wfvae_cli.pipeline.writers import Writing

_MOST_HELD_BYTES = 1 << 30


class ClipInFlight(Generic[TaskT, SourceT, ValueT]):
    """One clip, and the chunk of it that is next.

    Args:
        clip: nothing of which has been taken yet.
        size: clips that go through the model together with it: see `batch_size`.
    """

    def __init__(self, clip: Clip[TaskT, SourceT], size: int) -> None:
        self.clip, self.size = clip, size
        self.writing: Writing[TaskT, ValueT] | None = None
        """None until the model has seen the first chunk."""
        self.streams = ClipStreams.of(clip.plan)
        self.chunk = clip.first

    def advance(self) -> None:
        """Go to the next chunk; waits for the reader.

        Raises:
            TimeLimitError: the reader hangs.
            InputError: the source is damaged.
        """
        if self.chunk.last:  # another stream of the same task begins
            self.streams = ClipStreams.of(self.clip.plan)
        self.chunk = self.clip.reading.next_chunk()

    @property
    def is_open(self) -> bool:
        """True for a clip of more than one chunk, which occupies a reader until its end."""
        return not self.clip.is_whole

    @property
    def kind(self) -> Hashable:
        """Batching key: clips whose next chunks have equal keys can share a call of the model."""
        return self.size, self.streams.first, self.chunk.last, self.chunk.kind


class Waiting(Generic[TaskT, SourceT, ValueT]):
    """Clips that wait for others of their kind.

    Args:
        most_whole: clips of a single chunk that may wait.
    """

    def __init__(self, most_whole: int) -> None:
        self._most_whole = most_whole
        self._groups: dict[Hashable, list[ClipInFlight[TaskT, SourceT, ValueT]]] = {}
        self.open = 0
        """Clips that a reader, a writer and the model's state are kept for."""
        self._whole = self._bytes = 0

    def add(self, clip: ClipInFlight[TaskT, SourceT, ValueT]) -> None:
        """Let a clip wait."""
        self._groups.setdefault(clip.kind, []).append(clip)
        self._count(clip, 1)

    def take_due(self, most_open: int) -> list[ClipInFlight[TaskT, SourceT, ValueT]]:
        """Take a full batch, or one of whichever clips there are too many; often empty.

        Args:
            most_open: open clips that may wait before some of them go on.
        """
        for kind, clips in self._groups.items():
            if len(clips) >= clips[0].size:
                return self._take(kind)
        if self.open >= most_open:
            return self.take_some(is_open=True)
        if self._whole >= self._most_whole or self._bytes > _MOST_HELD_BYTES:
            return self.take_some(is_open=False)
        return []

    def take_some(self, is_open: bool | None = None) -> list[ClipInFlight[TaskT, SourceT, ValueT]]:
        """Take a batch of open clips, of whole clips or of either; empty if there is none.

        Last chunks go first, since their lengths differ most: a clip that waits for others like
        it keeps its place from one that could go along with many. Then the fullest batch.
        """
        groups = [
            (clips[0].chunk.last, len(clips), kind)
            for kind, clips in self._groups.items()
            if is_open is None or any(clip.is_open == is_open for clip in clips)
        ]
        return self._take(max(groups, key=lambda group: group[:2])[2]) if groups else []

    def _take(self, kind: Hashable) -> list[ClipInFlight[TaskT, SourceT, ValueT]]:
        clips = self._groups.pop(kind)
        taken, left = clips[: clips[0].size], clips[clips[0].size :]
        if left:
            self._groups[kind] = left
        for clip in taken:
            self._count(clip, -1)
        return taken

    def _count(self, clip: ClipInFlight[TaskT, SourceT, ValueT], change: int) -> None:
        if clip.is_open:
            self.open += change
        else:
            self._whole += change
            self._bytes += change * clip.chunk.nbytes
