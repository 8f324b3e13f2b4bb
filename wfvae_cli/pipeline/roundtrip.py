"""Clips to latents and back in one pass, and what was lost on the way."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from wfvae_cli.errors import UsageError
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.options import Sampling, VideoOptions
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.media.writer import open_writer
from wfvae_cli.metrics.clip import ClipMetrics
from wfvae_cli.metrics.result import ClipResult, FrameScores
from wfvae_cli.metrics.views import difference, side_by_side
from wfvae_cli.models.base import LoadedModel, Posterior, Task
from wfvae_cli.pipeline.chunks import FrameChunk, FrameSource, PendingPixels, Pixels
from wfvae_cli.pipeline.decode import WriterContext
from wfvae_cli.pipeline.encode import Progress
from wfvae_cli.pipeline.job import Chunk, Heartbeat, Job, ModelOutput, PipelineOptions, Sink, Staged
from wfvae_cli.pipeline.options import Batch, Tile
from wfvae_cli.pipeline.pipeline import run_one
from wfvae_cli.pipeline.plan import ChunkPlan

Compare = Literal["side-by-side", "diff"]
ValueT = TypeVar("ValueT")


class ClipRecord(Protocol):
    """Record of one clip's latents and metrics, collected during its roundtrip."""

    metrics: ClipMetrics
    """Given every pair of frames."""

    def encoded(self, posterior: Posterior, frames: int, seconds: float) -> None:
        """Take the next chunk's posterior, in the clip's writer thread.

        Args:
            posterior: BCTHW with B = 1, of the padded chunk.
            frames: of the clip, without padding.
            seconds: that encoding and decoding took.
        """

    def close(self, result: ClipResult | None) -> None:
        """Take the scores of the whole clip; None where it came to no end."""


class Recorder(Protocol):
    """Collects what one model makes of clips, of which several may be open at once."""

    @property
    def is_timed(self) -> bool:
        """True to synchronise with the device after every chunk, so that its time is known."""

    def loaded(self, model: LoadedModel) -> None:
        """Take the model that is to run, before any clip."""

    def begin(self, name: str, info: ClipInfo, plan: ChunkPlan) -> ClipRecord:
        """Begin a clip, in the model's thread.

        Args:
            name: unique name of the clip.
            info: of the frames that go through.
            plan: their chunks and tiles.
        """


class ScoresOnly:
    """A record of nothing but the scores."""

    def __init__(self, metrics: ClipMetrics | None = None) -> None:
        self.metrics = metrics or ClipMetrics()

    def encoded(self, posterior: Posterior, frames: int, seconds: float) -> None:
        """Do nothing."""

    def close(self, result: ClipResult | None) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class RoundtripResult:
    """Files written by a roundtrip, and its reconstruction error."""

    source: str
    target: str | None
    metrics: ClipResult
    tile: int | None
    """Pixels of the side of the tiles that went through; None where the picture was whole."""
    seconds: float = 0.0
    waited_for_input: float = 0.0
    waited_for_output: float = 0.0


class RoundtripSink(Sink[ValueT], Generic[ValueT]):
    """Measures what comes back of one clip, and writes it.

    A decoder that looks ahead is a few frames late; the originals wait for it.

    Args:
        target: the output to write; None only measures.
        source: of the clip's frames.
        conclude: makes the clip's result of its scores.
        record: collects the latents and metrics.
        compare: the comparison to write in place of the reconstruction.
        video: codec and container.
        overwrite: whether `target` may exist.
        audio_from: a file whose sound track is copied in.
    """

    def __init__(
        self,
        target: str | Path | None,
        source: FrameSource,
        conclude: Callable[[ClipResult], ValueT],
        *,
        record: ClipRecord,
        compare: Compare | None = None,
        video: VideoOptions,
        overwrite: bool,
        audio_from: str | Path | None = None,
    ) -> None:
        info = source.info
        self.target, self._source, self._info = target, source, info
        self._conclude, self._record = conclude, record
        self._is_recorded = False
        self._compare = compare
        self._waiting: deque[tuple[Pixels, int]] = deque()
        self._output: WriterContext | None = None
        if target is not None:
            shown = replace(info, width=2 * info.width) if compare == "side-by-side" else info
            writer = open_writer(target, shown, video, overwrite=overwrite, audio_from=audio_from)
            self._output = WriterContext(writer)

    def stage(self, chunk: Chunk, output: ModelOutput) -> Staged:
        """Start to bring the frames to the host, for as many originals as there are."""
        assert isinstance(chunk, FrameChunk) and output.frames is not None
        assert output.posterior is not None
        info = self._info
        for pixels, pts in zip(chunk.pixels, chunk.pts, strict=False):  # padding has no pts
            self._waiting.append((pixels[: info.height, : info.width], pts))
        pending = PendingPixels(output.frames, info.height, info.width, info.bits)
        count = min(len(pending), len(self._waiting))
        originals = [self._waiting.popleft() for _ in range(count)]
        posterior, frames, seconds = output.posterior, len(chunk.pts), output.seconds

        def write() -> None:
            self._record.encoded(posterior, frames, seconds)
            self._write(originals, pending)

        return Staged(count, write)

    def _write(self, originals: Sequence[tuple[Pixels, int]], pending: PendingPixels) -> None:
        for (original, pts), reconstruction in zip(originals, pending.wait(), strict=False):
            scores = self._record.metrics.update(original, reconstruction)
            if self._output is not None:
                picture = self._picture(original, reconstruction, scores)
                self._output.writer.write(Frame(picture, pts))

    def _picture(self, original: Pixels, reconstruction: Pixels, scores: FrameScores) -> Pixels:
        if self._compare == "side-by-side":
            return side_by_side(original, reconstruction, scores=scores)
        if self._compare == "diff":
            return difference(original, reconstruction)
        return reconstruction

    def finish(self) -> ValueT:
        """Complete the file, and the scores."""
        if self._output is not None:
            self._output.writer.end = self._source.end
            self._output.finish()
        scores = self._record.metrics.result()
        value = self._conclude(scores)
        self._is_recorded = True
        self._record.close(scores)
        return value

    def close(self) -> None:
        """Remove what is not complete."""
        if not self._is_recorded:
            self._is_recorded = True
            self._record.close(None)
        if self._output is not None:
            self._output.close()


class _RoundtripReader(Job[str, FrameSource, RoundtripResult]):
    """Takes one open reader there and back."""

    halves: Task = "both"

    def __init__(
        self,
        reader: ClipReader,
        model: LoadedModel,
        open_sink: Callable[
            [FrameSource, ChunkPlan, Callable[[ClipResult], RoundtripResult]], Sink[RoundtripResult]
        ],
        target: str | Path | None,
    ) -> None:
        self._reader, self._model, self._target = reader, model, target
        self._open_sink = open_sink

    @contextlib.contextmanager
    def open(self, task: str, heartbeat: Heartbeat) -> Iterator[FrameSource]:
        """Give the reader that is open already."""
        yield FrameSource(self._reader, self._model.vae.strides)

    def sink(self, task: str, source: FrameSource, plan: ChunkPlan) -> Sink[RoundtripResult]:
        """Open the video or image, if one is wanted."""
        target = None if self._target is None else str(self._target)
        return self._open_sink(
            source, plan, lambda scores: RoundtripResult(task, target, scores, plan.tile)
        )


def roundtrip_clip(
    source: str | Path | ClipReader,
    target: str | Path | None,
    model: LoadedModel,
    *,
    sampling: Sampling | None = None,
    video: VideoOptions | None = None,
    audio_from: str | Path | None = None,
    compare: Compare | None = None,
    metrics: ClipMetrics | None = None,
    recorder: Recorder | None = None,
    chunk: int | None = None,
    tile: Tile = "auto",
    batch: Batch = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RoundtripResult:
    """Encode and decode a clip chunk by chunk, and measure the difference.

    The posterior's mean goes straight into the decoder, in the type that the model computes in.

    Args:
        source: what `open_clip` opens, or an open reader.
        target: what to write, as `decode_clip`; None only measures.
        model: from `load_model`.
        sampling: which frames to take and at what size; not with an open reader.
        video: codec and container.
        audio_from: a file whose sound track is copied in, usually the source.
        compare: write the original beside the reconstruction, or their difference, in place of
            the reconstruction.
        metrics: what to measure; PSNR, SSIM and MS-SSIM by default.
        recorder: what measures and collects instead of `metrics`.
        chunk: frames of the first chunk, `1 + k*stride`; None suits the resolution.
        tile: pixels of a tile's side, where the picture goes through in tiles: see `tiles.py`.
        batch: size of the batches that the clip goes through in: see `encode_clip`.
        overwrite: whether `target` may exist.
        progress: called after every chunk.

    Raises:
        VideoError: the source cannot be read.
        OutputError: the target cannot be written.
        DeviceError: out of memory.
    """
    if compare is not None and target is None:
        raise UsageError("--compare needs an output to write: add -o")
    begin = time.perf_counter()

    def open_sink(
        frames: FrameSource, plan: ChunkPlan, conclude: Callable[[ClipResult], RoundtripResult]
    ) -> Sink[RoundtripResult]:
        if recorder is None:
            record: ClipRecord = ScoresOnly(metrics)
        else:
            record = recorder.begin(Path(reader.name).name, frames.info, plan)
        return RoundtripSink(
            target,
            frames,
            conclude,
            record=record,
            compare=compare,
            video=video or VideoOptions(),
            overwrite=overwrite,
            audio_from=audio_from,
        )

    with contextlib.ExitStack() as stack:
        if isinstance(source, ClipReader):
            reader = source
        else:
            reader = stack.enter_context(open_clip(source, sampling or Sampling()))
        job = _RoundtripReader(reader, model, open_sink, target)
        if recorder is not None:
            recorder.loaded(model)
        options = PipelineOptions(
            chunk, tile, batch, is_timed=recorder is not None and recorder.is_timed
        )
        done, profile = run_one(model, job, reader.name, options, progress)
    return replace(
        done,
        seconds=time.perf_counter() - begin,
        waited_for_input=profile.waited_for_input,
        waited_for_output=profile.waited_for_output,
    )
