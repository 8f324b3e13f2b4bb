"""One model and the clips that go through it: read ahead, batched, handed on behind it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator

import torch

from wfvae_cli.dataset.callbacks import Callbacks, NoCallbacks, Profile
from wfvae_cli.dataset.channel import ClosedError
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.lanes import Lane, Lanes
from wfvae_cli.dataset.prefetch import Clip, Limits, Prefetcher, Read, Reading, Task
from wfvae_cli.dataset.result import ItemResult, TimeLimitError
from wfvae_cli.dataset.source import check_unchanged
from wfvae_cli.dataset.write_behind import Encoded, Write, WriteBehind
from wfvae_cli.errors import DeviceError, WfvaeError
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.pipeline.batch import (
    MOST_SIDE_BY_SIDE,
    Batch,
    batch_size,
    check_memory,
    encode_batch,
    fixed_plan,
)
from wfvae_cli.pipeline.chunks import FrameChunk, convert_on, read_chunks
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.pipeline.tiles import Tile

_WRITERS = 3
_LANES_PER_PLACE = 2
"""Open clips for each place of a batch: while some are at last chunks that no other has, the rest
fills it."""
_BRIEFLY = 0.01
"""Seconds to wait for another clip while there are some that could go on."""


class Pipeline:
    """Sends clips through a model.

    Args:
        model: from `load_model`.
        read: what opens a source; its chunks are those of `chunks`.
        write: what becomes of a clip's posteriors, in a thread for every clip.
        readers: sources that are opened and decoded at once.
        limits: how long one may take.
        chunk: frames of a clip's first chunk, `1 + k*stride`; None suits the resolution.
        tile: see `fixed_plan`.
        batch: clips of one shape that go through the model together: see `batch_size`.
        watcher: told what the model does.
        is_timed: whether to wait for the device after every chunk, so that its time is known.

    Raises:
        UsageError: the model cannot be run in such chunks.
    """

    def __init__(
        self,
        model: LoadedModel,
        read: Read,
        write: Write,
        *,
        readers: int,
        limits: Limits,
        chunk: int | None = None,
        tile: Tile = "auto",
        batch: Batch = 1,
        watcher: Callbacks | None = None,
        is_timed: bool = False,
    ) -> None:
        fixed_plan(model, chunk, 64, 64, tile)  # refuses before any file is read
        self.profile = Profile()
        self.decoder_threads = max(1, (os.cpu_count() or 1) // readers)
        """Of each reader."""
        self.model, self._read, self._write = model, read, write
        self._readers, self._limits = readers, limits
        self._chunk, self._tile, self._batch = chunk, tile, batch
        self._watcher = watcher or NoCallbacks()
        self._is_timed = is_timed
        self._ahead: Prefetcher | None = None
        self._stopped = threading.Event()

    @property
    def capacity(self) -> int:
        """Items that it may keep before the first outcome: it must be given that many."""
        return 2 * self._most_readers + self._writers + 1 + self._most_held

    @property
    def _most_readers(self) -> int:
        if self._batch == 1:
            return self._readers
        return max(self._readers, _LANES_PER_PLACE * MOST_SIDE_BY_SIDE)

    @property
    def _writers(self) -> int:
        """More than clips that can be open at once: each keeps its writer up to its end."""
        return _WRITERS + (0 if self._batch == 1 else self._most_readers)

    @property
    def _most_held(self) -> int:
        return 256 if self._batch == "auto" else 4 * self._batch if self._batch > 1 else 0

    def plan(self, info: ClipInfo) -> ChunkPlan:
        """How a clip goes through the model."""
        return fixed_plan(self.model, self._chunk, info.width, info.height, self._tile)

    def chunks(
        self, reader: ClipReader, item: Item, marked: str, reading: Reading
    ) -> Iterator[FrameChunk]:
        """The chunks of an open clip, for `read` to give.

        Args:
            reader: of the clip.
            item: what it is of.
            marked: the item's `stamp` before it was opened.
            reading: told that there is life in it.

        Raises:
            VideoError: the clip is damaged, or somebody wrote to it meanwhile.
            DeviceError: this machine has not the memory for a chunk.
        """
        plan = self.plan(reader.info)
        convert_on(self.model.device, reader)
        frames = _watched(reader, reading)
        for number, chunk in enumerate(read_chunks(frames, self.model.vae.strides, plan)):
            if number == 0:
                info = reader.info
                check_memory(self.model, chunk.shape[0], info.width, info.height, plan.tile)
            if chunk.last:
                check_unchanged(item, marked)
            yield chunk

    def work(self, tasks: Iterator[Task]) -> Generator[ItemResult, None, None]:
        """Work on every task; the outcomes come in the order in which they are ready.

        Args:
            tasks: what to work on; it is taken from in other threads, and may block.

        Raises:
            OutputError: outputs cannot be written at all.
            DeviceError: the device is lost.
        """
        begin = time.perf_counter()
        ahead = Prefetcher(self._read, tasks, self._readers, self._limits)
        behind = WriteBehind(self._write, self._writers)
        self._ahead = ahead
        if self._stopped.is_set():
            ahead.stop()
        lanes = Lanes(self._most_held)
        try:
            while True:
                try:
                    chosen = self._choose(lanes, ahead)
                except ClosedError:
                    break
                if isinstance(chosen, ItemResult):
                    yield chosen
                else:
                    self._step(chosen, lanes, behind, ahead)
                yield from behind.finished()
            with self.profile.timing("waited_for_output"):
                left = list(behind.drain())
            yield from left
        except BaseException as error:
            behind.abort(error)
            raise
        finally:
            ahead.close()
            self.profile.total += time.perf_counter() - begin

    def stop(self) -> None:
        """Finish what the model has begun, and begin nothing else. From any thread."""
        self._stopped.set()
        if self._ahead is not None:
            self._ahead.stop()

    def _choose(self, lanes: Lanes, ahead: Prefetcher) -> list[Lane] | ItemResult:
        """Whose chunks go through the model next, or an outcome that came without it.

        There is no lane where one has only begun to wait, or there was nothing for a moment.

        Raises:
            ClosedError: every clip has been through.
        """
        due = lanes.take_due(ahead.readers)
        if due:
            return due
        try:
            with self.profile.timing("waited_for_input"):
                ready = ahead.take(_BRIEFLY) if lanes.open else ahead.take()
        except ClosedError:
            due = lanes.take_some()
            if due:
                return due
            raise
        if isinstance(ready, Clip):
            self._admit(ready, lanes, ahead)
            return []
        return ready or lanes.take_some(is_open=True)

    def _admit(self, clip: Clip, lanes: Lanes, ahead: Prefetcher) -> None:
        """Let a clip wait for others of its shape, of which there may be none."""
        size = batch_size(self.model, self._batch, clip.first)
        lane = Lane(clip, self.plan(clip.facts.info), size)
        if lane.is_open:
            ahead.grow(_LANES_PER_PLACE * size)
        lanes.add(lane)

    def _step(self, due: list[Lane], lanes: Lanes, behind: WriteBehind, ahead: Prefetcher) -> None:
        """Send the next chunks of `due` through the model together, and let them wait anew."""
        if self._stopped.is_set():
            for lane in due:
                if lane.writing is None:
                    lane.clip.drop()
            due = [lane for lane in due if lane.writing is not None]
        if not due:
            return
        for lane in due:
            if lane.writing is None:
                self._watcher.started(lane.clip.task.item)
        try:
            with self.profile.timing("in_model"):
                posteriors = self._encode(due)
                self._synchronise()
        except Exception as error:
            self._failed(due, behind, error)
            return
        for lane, posterior in zip(due, posteriors, strict=True):
            if self._hand_on(lane, posterior, behind) and self._move_on(lane, behind, ahead):
                lanes.add(lane)

    def _encode(self, due: list[Lane]) -> list[Posterior]:
        chunks, streams = [lane.chunk for lane in due], [lane.stream for lane in due]
        size, tile = due[0].size, due[0].tile
        posteriors, streams = encode_batch(self.model, chunks, streams, size, tile)
        for lane, stream in zip(due, streams, strict=True):
            lane.stream = stream
        return posteriors

    def _hand_on(self, lane: Lane, posterior: Posterior, behind: WriteBehind) -> bool:
        """Let what the model made of a lane's chunk be written; whether there is more to come."""
        chunk = lane.chunk
        try:
            with self.profile.timing("waited_for_output"):
                if lane.writing is None:
                    lane.writing = behind.begin(lane.clip)
                lane.writing.give(Encoded(posterior, chunk.pts, chunk.last))
        except ClosedError:  # it cannot be written, and its outcome says why
            lane.clip.drop()
            return False
        self._watcher.advanced(len(chunk.pts))
        return not chunk.last

    def _move_on(self, lane: Lane, behind: WriteBehind, ahead: Prefetcher) -> bool:
        """Wait for a lane's next chunk; whether there is one."""
        try:
            with self.profile.timing("waited_for_input"):
                lane.advance()
        except Exception as error:
            if isinstance(error, TimeLimitError):
                ahead.abandon(lane.clip)
            self._failed([lane], behind, error)
            return False
        return True

    def _failed(self, lanes: list[Lane], behind: WriteBehind, error: Exception) -> None:
        """Record what the model, or reading on, came to; a lost device ends the run."""
        for lane in lanes:
            lane.clip.drop()
            (lane.writing or behind.begin(lane.clip)).fail(error)
        if isinstance(error, WfvaeError) and self.model.device.type == "cuda":
            torch.cuda.empty_cache()  # after running out, the next clip needs what is not in use
        if "CUDA error" in str(error) and not isinstance(error, WfvaeError):
            raise DeviceError(f"the device failed and takes no more work: {error}") from error

    def _synchronise(self) -> None:
        if self._is_timed and self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)


def _watched(reader: ClipReader, reading: Reading) -> Iterator[Frame]:
    """Frames as they come, each a sign of life, as is that there may be some."""
    reading.touch()
    for frame in reader:
        reading.touch()
        yield frame
