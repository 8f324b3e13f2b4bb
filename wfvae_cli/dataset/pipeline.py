"""One model and the clips that go through it: read ahead, batched, handed on behind it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from wfvae_cli.codec.batch import Batch, batch_size, check_memory, encode_batch, fixed_plan
from wfvae_cli.codec.chunks import FrameChunk, convert_on, read_chunks
from wfvae_cli.codec.encode import encode_pixels
from wfvae_cli.codec.plan import ChunkPlan
from wfvae_cli.codec.tiles import Tile
from wfvae_cli.dataset.channel import ClosedError
from wfvae_cli.dataset.inputs import Item
from wfvae_cli.dataset.outcome import Outcome, TimeLimitError
from wfvae_cli.dataset.read_ahead import Clip, Limits, Read, ReadAhead, Reading, Task
from wfvae_cli.dataset.source import check_unchanged
from wfvae_cli.dataset.write_behind import Encoded, Write, WriteBehind, Writing
from wfvae_cli.errors import DeviceError, WfvaeError
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.models.base import LoadedModel

_WRITERS = 3
_MOST_HELD_BYTES = 1 << 30


class Watcher(Protocol):
    """Told what a worker does, in its thread."""

    def started(self, item: Item) -> None:
        """The model begins with an item."""

    def advanced(self, frames: int) -> None:
        """So many more frames have been through the model."""


class Unwatched:
    """A watcher that looks away."""

    def started(self, item: Item) -> None:
        """See `Watcher`."""

    def advanced(self, frames: int) -> None:
        """See `Watcher`."""


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
        batch: short clips of one shape that go through the model together.
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
        watcher: Watcher | None = None,
        is_timed: bool = False,
    ) -> None:
        fixed_plan(model, chunk, 64, 64, tile)  # refuses before any file is read
        self.profile = Profile()
        self.decoder_threads = max(1, (os.cpu_count() or 1) // readers)
        """Of each reader."""
        self.model, self._read, self._write = model, read, write
        self._readers, self._limits = readers, limits
        self._chunk, self._tile, self._batch = chunk, tile, batch
        self._watcher = watcher or Unwatched()
        self._is_timed = is_timed
        self._ahead: ReadAhead | None = None
        self._stopped = threading.Event()

    @property
    def capacity(self) -> int:
        """Items that it may keep before the first outcome: it must be given that many."""
        return 2 * self._readers + _WRITERS + 1 + self._most_held

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

    def work(self, tasks: Iterator[Task]) -> Generator[Outcome, None, None]:
        """Work on every task; the outcomes come in the order in which they are ready.

        Args:
            tasks: what to work on; it is taken from in other threads, and may block.

        Raises:
            OutputError: outputs cannot be written at all.
            DeviceError: the device is lost.
        """
        begin = time.perf_counter()
        ahead = ReadAhead(self._read, tasks, self._readers, self._limits)
        behind = WriteBehind(self._write, _WRITERS)
        self._ahead = ahead
        if self._stopped.is_set():
            ahead.stop()
        held = _Held(self._most_held)
        try:
            while True:
                try:
                    with self.profile.timing("waited_for_input"):
                        ready = ahead.take()
                except ClosedError:
                    break
                if isinstance(ready, Clip):
                    self._advance(ready, held, behind, ahead)
                elif ready is not None:
                    yield ready
                yield from behind.finished()
            for clips, size in held.rest():
                self._together(clips, size, behind)
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

    def _advance(self, clip: Clip, held: _Held, behind: WriteBehind, ahead: ReadAhead) -> None:
        """Encode a clip, or keep it until its batch is full."""
        if self._stopped.is_set():
            clip.drop()
            return
        size = 1
        if clip.is_whole:
            size = batch_size(self.model, self._batch, clip.first)
        if self._batch == 1 or not clip.is_whole:
            self._stream(clip, behind, ahead)
            return
        for clips, full in held.add(clip, size):
            self._together(clips, full, behind)

    def _stream(self, clip: Clip, behind: WriteBehind, ahead: ReadAhead) -> None:
        """Send one clip through the model chunk by chunk."""
        self._watcher.started(clip.task.item)
        with self.profile.timing("waited_for_output"):
            writing = behind.begin(clip)
        plan = self.plan(clip.facts.info)
        stream = plan.stream()
        try:
            chunks = clip.chunks()
            while not stream.last:
                with self.profile.timing("waited_for_input"):
                    chunk = next(chunks)
                stream.last = chunk.last
                with self.profile.timing("in_model"):
                    posterior = encode_pixels(self.model, chunk, stream, plan.tile)
                    self._synchronise()
                with self.profile.timing("waited_for_output"):
                    writing.give(Encoded(posterior, chunk.pts, chunk.last))
                self._watcher.advanced(len(chunk.pts))
        except ClosedError:  # it cannot be written, and its outcome says why
            clip.drop()
        except TimeLimitError as error:
            ahead.abandon(clip)
            writing.fail(error)
        except Exception as error:
            clip.drop()
            self._failed([writing], error)

    def _together(self, clips: list[Clip], size: int, behind: WriteBehind) -> None:
        """Send whole clips of one shape through the model at once."""
        if self._stopped.is_set():
            return
        for clip in clips:
            self._watcher.started(clip.task.item)
        try:
            with self.profile.timing("in_model"):
                posteriors = encode_batch(self.model, [clip.first for clip in clips], size)
                self._synchronise()
        except Exception as error:
            self._failed([behind.begin(clip) for clip in clips], error)
            return
        for clip, posterior in zip(clips, posteriors, strict=True):
            with self.profile.timing("waited_for_output"):
                writing = behind.begin(clip)
                with contextlib.suppress(ClosedError):
                    writing.give(Encoded(posterior, clip.first.pts, last=True))
            self._watcher.advanced(len(clip.first.pts))

    def _failed(self, writings: list[Writing], error: Exception) -> None:
        """Record what the model, or reading on, came to; a lost device ends the run."""
        for writing in writings:
            writing.fail(error)
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


class _Held:
    """Decoded whole clips that wait for others of their shape."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._batches: dict[tuple[object, ...], tuple[list[Clip], int]] = {}
        self._count = self._bytes = 0

    def add(self, clip: Clip, size: int) -> Iterator[tuple[list[Clip], int]]:
        """Take a clip in; give the batch that is full, or the fullest if too much is held."""
        pixels = clip.first.pixels
        key = (clip.first.shape, pixels.dtype.str)
        clips, _ = self._batches.setdefault(key, ([], size))
        clips.append(clip)
        self._count, self._bytes = self._count + 1, self._bytes + pixels.nbytes
        if len(clips) == size:
            yield self._take(key)
        elif self._count >= self._most or self._bytes > _MOST_HELD_BYTES:
            yield self._take(max(self._batches, key=lambda k: len(self._batches[k][0])))

    def rest(self) -> Iterator[tuple[list[Clip], int]]:
        """Give every batch, full or not."""
        for key in list(self._batches):
            yield self._take(key)

    def _take(self, key: tuple[object, ...]) -> tuple[list[Clip], int]:
        clips, size = self._batches.pop(key)
        self._count -= len(clips)
        self._bytes -= sum(clip.first.pixels.nbytes for clip in clips)
        return clips, size
