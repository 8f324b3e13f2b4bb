"""Clip to latents to clip in one pass, and what was lost on the way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wfvae_cli.errors import UsageError
from wfvae_cli.media.clip import ClipInfo, Frame, Sampling
from wfvae_cli.media.clip_writer import ClipWriter
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.media.writer import VideoOptions, open_writer
from wfvae_cli.metrics.clip import ClipMetrics
from wfvae_cli.metrics.result import ClipResult
from wfvae_cli.metrics.views import difference, side_by_side
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.pipeline.chunks import FrameChunk, PendingPixels, Pixels
from wfvae_cli.pipeline.decode import decode_latents, tell
from wfvae_cli.pipeline.encode import Progress, encode_chunks
from wfvae_cli.pipeline.plan import ChunkPlan, announce
from wfvae_cli.pipeline.threads import Clock, consumed
from wfvae_cli.pipeline.tiles import Tile

Compare = Literal["side-by-side", "diff"]


@dataclass(frozen=True)
class RoundtripResult:
    """What a roundtrip wrote and lost."""

    source: str
    target: str | None
    metrics: ClipResult
    tile: int | None
    """Pixels of the side of the tiles that went through; None where the picture was whole."""
    seconds: float
    waited_for_input: float
    waited_for_output: float


@dataclass(frozen=True)
class FramePair:
    """A frame of the source and what came back of it."""

    original: Pixels
    reconstruction: Pixels
    pts: int


@dataclass(frozen=True)
class FramePairs:
    """Those of a chunk; whoever iterates over them waits for the device."""

    originals: Sequence[tuple[Pixels, int]]
    """Pixels and pts."""
    pending: PendingPixels
    """As many frames, and perhaps padding."""

    def __len__(self) -> int:
        return len(self.originals)

    def __iter__(self) -> Iterator[FramePair]:
        for (original, pts), pixels in zip(self.originals, self.pending.wait(), strict=False):
            yield FramePair(original, pixels, pts)


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
    chunk: int | None = None,
    tile: Tile = "auto",
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
        chunk: frames of the first chunk, `1 + k*stride`; None suits the resolution.
        tile: pixels of a tile's side, where the picture goes through in tiles: see `tiles.py`.
        overwrite: whether `target` may exist.
        progress: called after every chunk.

    Raises:
        VideoError: the source cannot be read.
        OutputError: the target cannot be written.
        DeviceError: out of memory.
    """
    if not isinstance(source, ClipReader):
        with open_clip(source, sampling or Sampling()) as reader:
            return roundtrip_clip(
                reader,
                target,
                model,
                video=video,
                audio_from=audio_from,
                compare=compare,
                metrics=metrics,
                chunk=chunk,
                tile=tile,
                overwrite=overwrite,
                progress=progress,
            )
    if compare is not None and target is None:
        raise UsageError("--compare needs an output to write: add -o")
    begin, reading, writing = time.perf_counter(), Clock(), Clock()
    info, metrics = source.info, metrics or ClipMetrics()
    plan = ChunkPlan.of(model, chunk, info.width, info.height, tile=tile)
    announce(plan)
    with ExitStack() as stack:
        writer = None
        if target is not None:
            shown = replace(info, width=2 * info.width) if compare == "side-by-side" else info
            writer = stack.enter_context(
                open_writer(
                    target,
                    shown,
                    video or VideoOptions(),
                    overwrite=overwrite,
                    audio_from=audio_from,
                )
            )
            tell(writer)
        sink = _Sink(metrics, writer, compare)
        give = stack.enter_context(consumed(sink.take, clock=writing))
        for pairs in roundtrip_chunks(source, model, plan, reading):
            give(pairs)
            if progress is not None:
                progress(len(pairs))
        if writer is not None:
            writer.end = source.end
    return RoundtripResult(
        source=source.name,
        target=None if target is None else str(target),
        metrics=metrics.result(),
        tile=plan.tile,
        seconds=time.perf_counter() - begin,
        waited_for_input=reading.waited,
        waited_for_output=writing.waited,
    )


def roundtrip_chunks(
    reader: ClipReader, model: LoadedModel, plan: ChunkPlan, clock: Clock | None = None
) -> Iterator[FramePairs]:
    """Send an open clip through encoder and decoder, a chunk at a time.

    A decoder that looks ahead is a few frames late; the originals wait for it.
    """
    stream, info = plan.stream(), reader.info
    waiting: deque[tuple[Pixels, int]] = deque()
    for encoded in encode_chunks(reader, model, plan, clock):
        waiting.extend(_originals(encoded.chunk, info))
        stream.last = encoded.chunk.last
        frames = decode_latents(model, encoded.posterior.mean, stream, plan.tile)
        pending = PendingPixels(frames, info.height, info.width, info.bits)
        count = min(len(pending), len(waiting))
        yield FramePairs([waiting.popleft() for _ in range(count)], pending)


def _originals(chunk: FrameChunk, info: ClipInfo) -> Iterator[tuple[Pixels, int]]:
    for pixels, pts in zip(chunk.pixels, chunk.pts, strict=False):  # padding has no pts
        yield pixels[: info.height, : info.width], pts


class _Sink:
    """Measures and writes what comes back."""

    def __init__(
        self, metrics: ClipMetrics, writer: ClipWriter | None, compare: Compare | None
    ) -> None:
        self.metrics, self.writer, self.compare = metrics, writer, compare

    def take(self, pairs: FramePairs) -> None:
        for pair in pairs:
            self.metrics.update(pair.original, pair.reconstruction)
            if self.writer is not None:
                self.writer.write(Frame(self._picture(pair), pair.pts))

    def _picture(self, pair: FramePair) -> Pixels:
        if self.compare == "side-by-side":
            return side_by_side(pair.original, pair.reconstruction)
        if self.compare == "diff":
            return difference(pair.original, pair.reconstruction)
        return pair.reconstruction
