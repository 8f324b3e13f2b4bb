"""One model and the clips that go through it: read ahead, batched, written behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch

from wfvae_cli.codec.batch import batch_size, encode_batch, fixed_plan
from wfvae_cli.codec.encode import describe, encode_pixels, is_constant_rate, stored_values
from wfvae_cli.dataset.channel import ClosedError
from wfvae_cli.dataset.inputs import Item
from wfvae_cli.dataset.layouts import LatentFiles, Layout
from wfvae_cli.dataset.musubi import MusubiFiles
from wfvae_cli.dataset.outcome import Outcome, TimeLimitError, failure
from wfvae_cli.dataset.place import Place
from wfvae_cli.dataset.read_ahead import Clip, Limits, ReadAhead, Task, Unchanged, Unread
from wfvae_cli.dataset.recipe import Identity, Recipe
from wfvae_cli.dataset.write_behind import Encoded, WriteBehind, Writing
from wfvae_cli.errors import DeviceError, WfvaeError
from wfvae_cli.models.load import DType, load_model
from wfvae_cli.nn.stream import Stream

_WRITERS = 3
_MOST_HELD_BYTES = 1 << 30


@dataclass(frozen=True)
class EncodeJob:
    """Everything that a worker has to know; fit to be sent to another machine."""

    place: Place
    recipe: Recipe = field(default_factory=Recipe)
    model: str = "wfvae-tiny"
    device: str = "auto"
    dtype: DType = "auto"
    compile: bool = False
    """Whether the model is compiled, which changes the rounding."""
    threads: int = 4
    """Cores that a model on the CPU computes with; rounding depends on it."""
    readers: int = 2
    """Sources that are opened and decoded at once."""
    limits: Limits = field(default_factory=Limits)
    profile: bool = False
    """Whether to wait for the device after every chunk, so that its time is known."""


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


class ClipWorker:
    """A model that is loaded, and encodes whatever it is given."""

    def __init__(self, job: EncodeJob, watcher: Watcher | None = None) -> None:
        """Load the model.

        Raises:
            WeightsError, DeviceError: it cannot be.
            UsageError: the model cannot be run as the recipe says.
        """
        self.job = job
        self.profile = Profile()
        self._watcher = watcher or Unwatched()
        self._model = load_model(
            job.model, device=job.device, dtype=job.dtype, task="encode", compile=job.compile
        )
        if self._model.device.type == "cpu":
            torch.set_num_threads(job.threads)
        fixed_plan(self._model, job.recipe.options.chunk, 64, 64)  # refuses before any file is read
        self.identity = Identity.of(self._model, job.threads)
        self._layout = make_layout(job.place, job.recipe)
        self._ahead: ReadAhead | None = None
        self._stopped = threading.Event()

    @property
    def capacity(self) -> int:
        """Items that it may keep before the first outcome: it must be given that many."""
        return 2 * self.job.readers + _WRITERS + 1 + self._most_held

    @property
    def _most_held(self) -> int:
        batch = self.job.recipe.batch
        return 256 if batch == "auto" else 4 * batch if batch > 1 else 0

    def work(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """Encode every task; the outcomes come in the order in which they are ready.

        Args:
            tasks: what to encode; it is taken from in other threads, and may block.

        Raises:
            OutputError: outputs cannot be written at all.
            DeviceError: the device is lost.
        """
        begin = time.perf_counter()
        ahead = ReadAhead(self._model, self.job.recipe, tasks, self.job.readers, self.job.limits)
        behind = WriteBehind(self._write, _WRITERS)
        self._ahead = ahead
        if self._stopped.is_set():
            ahead.stop()
        held = _Held(self._most_held)
        try:
            while True:
                with self.profile.timing("waited_for_input"):
                    ready = ahead.take()
                if ready is None:
                    break
                if isinstance(ready, Clip):
                    self._advance(ready, held, behind, ahead)
                else:
                    yield self._settled(ready)
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
            size = batch_size(self._model, self.job.recipe.batch, clip.first)
        if self.job.recipe.batch == 1 or not clip.is_whole:
            self._stream(clip, behind, ahead)
            return
        for clips, full in held.add(clip, size):
            self._together(clips, full, behind)

    def _settled(self, ready: Unread | Unchanged) -> Outcome:
        """The outcome of a source that the model never sees."""
        item = ready.task.item
        if isinstance(ready, Unread):
            return failure(item, ready.error, ready.seconds)
        found = self._layout.find(item)
        assert found is not None, "an output that was to be kept is gone"
        return Outcome(
            item.relative,
            item.path,
            "done",
            output=found.output,
            frames=found.frames,
            shape=found.shape,
            bytes=found.bytes,
            stamp=ready.stamp,
            fingerprint=self.job.recipe.fingerprint(item, self.identity),
        )

    def _stream(self, clip: Clip, behind: WriteBehind, ahead: ReadAhead) -> None:
        """Send one clip through the model chunk by chunk."""
        self._watcher.started(clip.task.item)
        with self.profile.timing("waited_for_output"):
            writing = behind.begin(clip)
        stream = Stream()
        try:
            chunks = clip.chunks()
            while not stream.last:
                with self.profile.timing("waited_for_input"):
                    chunk = next(chunks)
                stream.last = chunk.last
                with self.profile.timing("in_model"):
                    posterior = encode_pixels(self._model, chunk, stream)
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
                posteriors = encode_batch(self._model, [clip.first for clip in clips], size)
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
        if isinstance(error, WfvaeError) and self._model.device.type == "cuda":
            torch.cuda.empty_cache()  # after running out, the next clip needs what is not in use
        if "CUDA error" in str(error) and not isinstance(error, WfvaeError):
            raise DeviceError(f"the device failed and takes no more work: {error}") from error

    def _synchronise(self) -> None:
        if self.job.profile and self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)

    def _write(self, clip: Clip, encoded: Iterator[Encoded]) -> Outcome:
        """Write one clip, in a thread of its own."""
        item, recipe = clip.task.item, self.job.recipe
        options = recipe.options_of(item, self.identity, clip.source.sha256)
        metadata = describe(clip.info, self._model, options, item.path)
        output = self._layout.open(item, metadata, options)
        pts: list[int] = []
        try:
            for each in encoded:
                with torch.inference_mode():
                    latents, logvar = stored_values(each.posterior, options, output.latent_frames)
                    output.append(latents, logvar)
                pts.extend(each.pts)
            written = output.finish(len(pts), None if is_constant_rate(pts, clip.info) else pts)
        finally:
            output.close()
        return Outcome(
            item.relative,
            item.path,
            "done",
            output=written.output,
            frames=len(pts),
            shape=written.shape,
            seconds=round(clip.seconds, 3),
            bytes=written.bytes,
            stamp=clip.source.stamp,
            fingerprint=recipe.fingerprint(item, self.identity),
        )


class _Held:
    """Decoded whole clips that wait for others of their shape."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._batches: dict[tuple[object, ...], tuple[list[Clip], int]] = {}
        self._count = self._bytes = 0

    def add(self, clip: Clip, size: int) -> Iterator[tuple[list[Clip], int]]:
        """Take a clip in; give the batch that is full, or the fullest if too much is held."""
        pixels = clip.first.pixels
        key = (pixels.shape, pixels.dtype.str)
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


def make_layout(place: Place, recipe: Recipe) -> Layout:
    """How a recipe's outputs are named and written."""
    return LatentFiles(place) if recipe.layout == "wfvae" else MusubiFiles(place, recipe)
