"""Latents to clips."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import torch
from torch import Tensor

from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.media.clip import ClipInfo, Colour, Frame
from wfvae_cli.media.clip_writer import ClipWriter
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.writer import open_writer
from wfvae_cli.models.base import LoadedModel, Task
from wfvae_cli.pipeline.chunks import PendingPixels
from wfvae_cli.pipeline.encode import Progress
from wfvae_cli.pipeline.job import (
    Chunk,
    ClipSource,
    Heartbeat,
    Job,
    ModelOutput,
    PipelineOptions,
    Sink,
    Staged,
)
from wfvae_cli.pipeline.options import Batch, DecodedPart, Tile
from wfvae_cli.pipeline.pipeline import run_one
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.pipeline.staging import upload

log = logging.getLogger("wfvae")

ValueT = TypeVar("ValueT")
_ALL = DecodedPart()


@dataclass(frozen=True)
class DecodedClip:
    """Result of `decode_clip`."""

    source: str
    target: str
    frames: int
    width: int
    height: int
    tile: int | None
    """Pixels of the side of the tiles that were decoded; None where the picture was whole."""
    seconds: float = 0.0
    waited_for_output: float = 0.0
    """Seconds of these that the model waited for the file's encoder."""


@dataclass(frozen=True)
class LatentChunk:
    """Latents that go through the decoder together."""

    latents: Tensor
    """float32 `[Z, t, H', W']`, not normalised."""
    last: bool
    shape: tuple[int, int, int]
    """Frames, height and width in pixels, padding included."""

    @property
    def ends_task(self) -> bool:
        """True for the last chunk of the task."""
        return self.last

    @property
    def kind(self) -> Hashable:
        """Equal for chunks that fit into one batch."""
        return tuple(self.latents.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes on the host."""
        return self.latents.nbytes

    def to_tensor(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Bring it to a device in float32; the model converts it."""
        return upload(self.latents[None], device)


class LatentSource(ClipSource):
    """The latents of an open file.

    Args:
        file: of latents.
        heartbeat: called for every chunk.
    """

    def __init__(self, file: LatentFile, heartbeat: Heartbeat = lambda: None) -> None:
        self.file, self._heartbeat = file, heartbeat
        self.is_enough = threading.Event()
        """Set when the frames that are wanted are decoded."""
        self.width, self.height = file.metadata.width, file.metadata.height
        # Read now: a short clip's file is closed before its sink is made.
        self.pts = file.pts

    def chunks(self, plan: ChunkPlan) -> Iterator[LatentChunk]:
        """Read raw latents, cut as `plan` says."""
        total, metadata = self.file.latent_frames, self.file.metadata
        strides = metadata.strides
        for begin, end in plan.cuts(total):
            self._heartbeat()
            latents = self.file.read(begin, end).float()
            if metadata.normalization is not None:
                latents = metadata.normalization.undo(latents)
            _, count, height, width = latents.shape
            frames = strides.frames_of(count) if begin == 0 else count * strides.time
            shape = frames, height * strides.height, width * strides.width
            # Frames that are decoded do not change with what follows, so any later chunk may be
            # the last one.
            last = end == total or self.is_enough.is_set()
            yield LatentChunk(latents, last, shape)
            if last:
                return


class DecodeSink(Sink[ValueT], Generic[ValueT]):
    """Writes the frames of one clip.

    Args:
        target: the output to write.
        source: the clip's latents.
        part: which frames to write.
        conclude: makes the clip's result of its number of frames.
        video: codec and container.
        overwrite: whether `target` may exist.
        audio_from: a file whose sound track is copied in.
    """

    def __init__(
        self,
        target: str | Path,
        source: LatentSource,
        conclude: Callable[[int], ValueT],
        *,
        part: DecodedPart = _ALL,
        video: VideoOptions,
        overwrite: bool,
        audio_from: str | Path | None = None,
    ) -> None:
        file = source.file
        self.target, self._metadata, self._conclude = target, file.metadata, conclude
        self._is_enough = source.is_enough
        info = clip_info(file.metadata, variable=source.pts is not None)
        frames = file.metadata.frames
        self._pts: Sequence[int] = range(frames) if source.pts is None else source.pts.tolist()
        self._wanted = range(frames)
        if part != _ALL:
            self._wanted = part.of([pts * info.time_base for pts in self._pts], file.name)
            offset = self._pts[self._wanted.start]
            self._pts = [pts - offset for pts in self._pts]
            start = info.start + offset * info.time_base
            info = replace(info, start=start, frames=len(self._wanted))
        self._done = 0
        writer = open_writer(target, info, video, overwrite=overwrite, audio_from=audio_from)
        self._output = WriterContext(writer)
        if file.metadata.last_duration is not None:
            writer.end = self._pts[-1] + round(file.metadata.last_duration / info.time_base)

    def stage(self, chunk: Chunk, output: ModelOutput) -> Staged:
        """Start to bring the frames to the host."""
        assert output.frames is not None
        meta, writer = self._metadata, self._output.writer
        pending = PendingPixels(output.frames, meta.height, meta.width, meta.bits, writer.planes)
        count = min(len(pending), meta.frames - self._done)
        first = max(0, self._wanted.start - self._done)
        end = max(first, min(count, self._wanted.stop - self._done))
        pts = self._pts[self._done + first : self._done + end]
        self._done += count
        if self._done >= self._wanted.stop:
            self._is_enough.set()
        return Staged(end - first, lambda: self._write(pending, first, pts))

    def _write(self, pending: PendingPixels, first: int, pts: Sequence[int]) -> None:
        writer = self._output.writer
        # Padding has no pts.
        for picture, time_of_frame in zip(pending.wait()[first:], pts, strict=False):
            if writer.planes is None:
                writer.write(Frame(picture, time_of_frame))
            else:
                writer.write_planes(picture, time_of_frame)

    def finish(self) -> ValueT:
        """Complete the file."""
        self._output.finish()
        return self._conclude(len(self._wanted))

    def close(self) -> None:
        """Remove what is not complete."""
        self._output.close()


class WriterContext:
    """A clip writer that is finished or abandoned by a call, in whichever thread."""

    def __init__(self, writer: ClipWriter) -> None:
        self._stack = contextlib.ExitStack()
        self.writer = self._stack.enter_context(writer)
        for notice in writer.notices:
            log.info(notice)

    def finish(self) -> None:
        """Complete the file."""
        self._stack.close()

    def close(self) -> None:
        """Remove the file, unless it is complete."""
        error = _AbandonedError()
        self._stack.__exit__(type(error), error, None)


class _AbandonedError(Exception):
    """Tells a writer that its clip is not complete."""


class _DecodeFile(Job[str, LatentSource, DecodedClip]):
    """Decodes one open latent file."""

    halves: Task = "decode"

    def __init__(
        self,
        file: LatentFile,
        target: str | Path,
        *,
        part: DecodedPart,
        video: VideoOptions,
        overwrite: bool,
        audio_from: str | Path | None,
    ) -> None:
        self._file, self._target, self._part = file, target, part
        self._video, self._overwrite, self._audio_from = video, overwrite, audio_from

    @contextlib.contextmanager
    def open(self, task: str, heartbeat: Heartbeat) -> Iterator[LatentSource]:
        """Give the file that is open already."""
        yield LatentSource(self._file)

    def sink(self, task: str, source: LatentSource, plan: ChunkPlan) -> Sink[DecodedClip]:
        """Open the video or image."""

        def conclude(frames: int) -> DecodedClip:
            size = source.width, source.height
            return DecodedClip(task, str(self._target), frames, *size, plan.tile)

        return DecodeSink(
            self._target,
            source,
            conclude,
            part=self._part,
            video=self._video,
            overwrite=self._overwrite,
            audio_from=self._audio_from,
        )


def decode_clip(
    source: str | Path | BinaryIO | LatentFile,
    target: str | Path,
    model: LoadedModel,
    *,
    part: DecodedPart = _ALL,
    video: VideoOptions | None = None,
    audio_from: str | Path | None = None,
    chunk: int | None = None,
    tile: Tile = "auto",
    batch: Batch = 1,
    force: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DecodedClip:
    """Decode a latent file into a video, image or frames, in memory that does not grow.

    Args:
        source: path of a latent file, a binary stream, or an open file.
        target: output: a video or image by its suffix, a `%05d` pattern, `-` for stdout.
        model: the model that made the latents.
        part: which frames to write; all by default.
        video: codec and container.
        audio_from: a file whose sound track is copied in.
        chunk: frames of the first chunk, `1 + k*stride`; None suits the resolution.
        tile: pixels of a tile's side, where the picture goes through in tiles: see `tiles.py`.
        batch: size of the batches that the clip is decoded in: see `encode_clip`.
        force: decode latents of other weights all the same.
        overwrite: whether `target` may exist.
        progress: called after every chunk.

    Raises:
        LatentError: the file is damaged, or made by other weights.
        OutputError: the target cannot be written.
        DeviceError: out of memory.
    """
    begin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_opened(source))
        check_made_by(file, model, force=force)
        job = _DecodeFile(
            file,
            target,
            part=part,
            video=video or VideoOptions(),
            overwrite=overwrite,
            audio_from=audio_from,
        )
        options = PipelineOptions(chunk, tile, batch)
        done, profile = run_one(model, job, file.name, options, progress)
    seconds = time.perf_counter() - begin
    return replace(done, seconds=seconds, waited_for_output=profile.waited_for_output)


def _opened(
    source: str | Path | BinaryIO | LatentFile,
) -> contextlib.AbstractContextManager[LatentFile]:
    """Open a file, and close it afterwards; one that is open already stays so."""
    if isinstance(source, LatentFile):
        return contextlib.nullcontext(source)
    return LatentFile(source)


def check_made_by(file: LatentFile, model: LoadedModel, *, force: bool) -> None:
    """Refuse latents that this model did not make.

    Raises:
        LatentError: other channels or family; or, unless `force`, other weights.
    """
    metadata = file.metadata
    made_by = f"{file.name}: made by {metadata.model!r} ({metadata.family}, {metadata.channels} "
    made_by += f"channels, strides {metadata.strides})"
    vae = model.vae
    if (metadata.family, metadata.channels, metadata.strides) != (
        vae.family,
        vae.latent_channels,
        vae.strides,
    ):
        raise LatentError(
            f"{made_by}, but {model.name!r} is {vae.family} with {vae.latent_channels} channels "
            f"and strides {vae.strides}: give the model that made it with --model"
        )
    if metadata.model_sha256 != model.sha256 and not force:
        raise LatentError(
            f"{made_by} from weights {metadata.model_sha256[:12]}…, but {model.name!r} has "
            f"weights {model.sha256[:12]}…: give the model that made it with --model, or --force"
        )


def clip_info(metadata: LatentMetadata, *, variable: bool) -> ClipInfo:
    """Describe the clip that a latent file holds; a constant rate gives the time base."""
    rate = metadata.frame_rate
    time_base = metadata.time_base if variable or rate is None else Fraction(1) / rate
    return ClipInfo(
        width=metadata.width,
        height=metadata.height,
        bits=metadata.bits,
        source_bits=metadata.source_bits,
        frame_rate=rate,
        time_base=time_base,
        start=metadata.start,
        frames=metadata.frames,
        sample_aspect=metadata.sample_aspect,
        colour=Colour(
            metadata.colour_matrix,
            metadata.colour_range,
            metadata.colour_primaries,
            metadata.colour_transfer,
        ),
        pixel_format=metadata.pixel_format,
        is_image=metadata.is_image,
    )
