"""Clips on their way through a model, each at a chunk of its own, some of them side by side."""

from __future__ import annotations

from collections.abc import Hashable

from wfvae_cli.dataset.prefetch import Clip
from wfvae_cli.dataset.write_behind import Writing
from wfvae_cli.pipeline.plan import ChunkPlan

_MOST_HELD_BYTES = 1 << 30


class Lane:
    """One clip, and the chunk of it that is next.

    Args:
        clip: nothing of which has been taken yet.
        plan: how it was cut.
        size: clips that go through the model together with it: see `batch_size`.
    """

    def __init__(self, clip: Clip, plan: ChunkPlan, size: int) -> None:
        self.clip, self.size, self.tile = clip, size, plan.tile
        self.writing: Writing | None = None
        """None until the model has seen the first chunk."""
        self.stream = plan.stream()
        self._chunks = clip.chunks()
        self.advance()

    def advance(self) -> None:
        """Go to the next chunk; waits for the reader.

        Raises:
            TimeLimitError: the reader hangs.
            VideoError: the source is damaged.
        """
        self.chunk = next(self._chunks)
        self.stream.last = self.chunk.last

    @property
    def is_open(self) -> bool:
        """Whether it has, or had, more than one chunk: a reader works for it alone."""
        return not self.clip.is_whole

    @property
    def kind(self) -> Hashable:
        """What the chunks of one call of the model have in common."""
        stream, chunk = self.stream, self.chunk
        return self.size, stream.first, stream.last, chunk.shape, chunk.pixels.dtype.str


class Lanes:
    """Lanes that wait for others of their kind.

    Args:
        most_whole: clips of a single chunk that may wait.
    """

    def __init__(self, most_whole: int) -> None:
        self._most_whole = most_whole
        self._groups: dict[Hashable, list[Lane]] = {}
        self.open = 0
        """Lanes that a reader, a writer and the model's state are kept for."""
        self._whole = self._bytes = 0

    def add(self, lane: Lane) -> None:
        """Let a lane wait."""
        self._groups.setdefault(lane.kind, []).append(lane)
        self._count(lane, 1)

    def take_due(self, most_open: int) -> list[Lane]:
        """A full group, or one of whichever lanes there are too many; often empty.

        Args:
            most_open: open lanes that may wait before some of them go on.
        """
        for kind, lanes in self._groups.items():
            if len(lanes) >= lanes[0].size:
                return self._take(kind)
        if self.open >= most_open:
            return self.take_some(is_open=True)
        if self._whole >= self._most_whole or self._bytes > _MOST_HELD_BYTES:
            return self.take_some(is_open=False)
        return []

    def take_some(self, is_open: bool | None = None) -> list[Lane]:
        """A group of open lanes, of whole clips or of either; empty if there is none.

        Last chunks go first, since their lengths differ most: who waits for others like them
        keeps a lane from a clip that could go along with many. Then the fullest group.
        """
        groups = [
            (lanes[0].stream.last, len(lanes), kind)
            for kind, lanes in self._groups.items()
            if is_open is None or lanes[0].is_open == is_open
        ]
        return self._take(max(groups, key=lambda group: group[:2])[2]) if groups else []

    def _take(self, kind: Hashable) -> list[Lane]:
        lanes = self._groups.pop(kind)
        taken, left = lanes[: lanes[0].size], lanes[lanes[0].size :]
        if left:
            self._groups[kind] = left
        for lane in taken:
            self._count(lane, -1)
        return taken

    def _count(self, lane: Lane, change: int) -> None:
        if lane.is_open:
            self.open += change
        else:
            self._whole += change
            self._bytes += change * lane.chunk.pixels.nbytes
