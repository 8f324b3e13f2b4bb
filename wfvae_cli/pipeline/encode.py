"""Clips to latents."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from wfvae_cli.latents.metadata import LONGEST_HOLD, LatentMetadata
from wfvae_cli.latents.noise import posterior_noise
from wfvae_cli.latents.writer import LatentWriter
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.rate import constant_rate
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.models.base import LoadedModel, Posterior, Task
from wfvae_cli.pipeline.chunks import FrameChunk, FrameSource, convert_on
from wfvae_cli.pipeline.job import Chunk, Heartbeat, Job, ModelOutput, PipelineOptions, Sink, Staged
from wfvae_cli.pipeline.options import Batch, EncodeOptions
from wfvae_cli.pipeline.pipeline import run_one
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.pipeline.staging import Download, download

SOURCE_SIZE = "source_size"
"""The header's extra string with the width and height of the file's pictures, such as 1920x1080."""
Progress = Callable[[int], None]
"""Told how many more frames are done."""
WrittenT = TypeVar("WrittenT", covariant=True)
ValueT = TypeVar("ValueT")

_ROUNDING = Fraction(1, 1000)
"""Seconds: containers such as Matroska round times to milliseconds."""


@dataclass(frozen=True)
class EncodedClip:
    """Result of `encode_clip`."""

    source: str
    target: str
    frames: int
    width: int
    height: int
    latent_shape: tuple[int, int, int, int]
    """`[Z, T', H', W']`."""
    tile: int | None
    """Pixels of the side of the tiles that were encoded; None where the picture was whole."""
    seconds: float = 0.0
    waited_for_input: float = 0.0
    """Seconds of these that the model had no frames to work on."""


class LatentOutput(Protocol[WrittenT]):
    """Takes one clip's latents; left without `finish`, nothing is there."""

    @property
    def latent_frames(self) -> int:
        """Latent frames appended so far."""

    def append(self, latents: Tensor, logvar: Tensor | None) -> None:
        """Take the next `[Z, t, H', W']`, and the log-variance where it is stored."""

    def finish(
        self, frames: int, pts: Sequence[int] | None, last_duration: Fraction | None
    ) -> WrittenT:
        """Complete the clip, of so many frames.

        Args:
            frames: before padding.
            pts: where the rate varies.
            last_duration: seconds that the last frame is shown, where that is not usual.
        """

    def close(self) -> None:
        """Remove what is not complete."""


class EncodeSink(Sink[ValueT], Generic[ValueT, WrittenT]):
    """Takes a clip's posterior, and stores of it what the options say.

    Args:
        output: where it goes.
        source: of the clip's frames.
        options: what to keep.
        conclude: makes the clip's result of its frames and of what `output` wrote.
    """

    def __init__(
        self,
        output: LatentOutput[WrittenT],
        source: FrameSource,
        options: EncodeOptions,
        conclude: Callable[[int, WrittenT], ValueT],
    ) -> None:
        self._output, self._source, self._options = output, source, options
        self._conclude = conclude
        self._pts: list[int] = []

    def stage(self, chunk: Chunk, output: ModelOutput) -> Staged:
        """Start to bring the posterior to the host."""
        assert isinstance(chunk, FrameChunk) and output.posterior is not None
        pts, moments = chunk.pts, download(torch.cat(output.posterior, dim=1))
        return Staged(len(pts), lambda: self._write(moments, pts))

    def _write(self, moments: Download, pts: Sequence[int]) -> None:
        posterior = Posterior(*moments.wait().chunk(2, dim=1))
        with torch.inference_mode():
            values = stored_values(posterior, self._options, self._output.latent_frames)
            self._output.append(*values)
        self._pts.extend(pts)

    def finish(self) -> ValueT:
        """Complete the output."""
        info = self._source.info
        regular = is_constant_rate(self._pts, info)
        hold = unusual_hold(self._pts, info, self._source.end)
        written = self._output.finish(len(self._pts), None if regular else self._pts, hold)
        return self._conclude(len(self._pts), written)

    def close(self) -> None:
        """Remove what is not complete."""
        self._output.close()


class _EncodeReader(Job[str, FrameSource, "EncodedClip"]):
    """Encodes one open reader."""

    halves: Task = "encode"

    def __init__(
        self,
        reader: ClipReader,
        target: str | Path | BinaryIO,
        model: LoadedModel,
        options: EncodeOptions,
        *,
        overwrite: bool,
    ) -> None:
        self._reader, self._model, self._options = reader, model, options
        self._target, self._overwrite = target, overwrite

    @contextlib.contextmanager
    def open(self, task: str, heartbeat: Heartbeat) -> Iterator[FrameSource]:
        """Leave colours to the device."""
        convert_on(self._model.device, self._reader)
        yield FrameSource(self._reader, self._model.vae.strides)

    def sink(self, task: str, source: FrameSource, plan: ChunkPlan) -> Sink[EncodedClip]:
        """Open the latent file."""
        info, options, target = source.info, self._options, self._target
        metadata = describe(info, self._model, options, task, plan)
        writer = LatentWriter(target, metadata, options.save_dtype, overwrite=self._overwrite)

        def conclude(frames: int, written: None) -> EncodedClip:
            channels, _, height, width = metadata.latent_shape
            return EncodedClip(
                source=task,
                target=str(target) if isinstance(target, (str, Path)) else "-",
                frames=frames,
                width=info.width,
                height=info.height,
                latent_shape=(channels, writer.latent_frames, height, width),
                tile=plan.tile,
            )

        return EncodeSink(writer, source, options, conclude)


def encode_clip(
    source: str | Path | ClipReader,
    target: str | Path | BinaryIO,
    model: LoadedModel,
    *,
    sampling: Sampling | None = None,
    options: EncodeOptions | None = None,
    batch: Batch = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EncodedClip:
    """Encode a video or image into a latent file, in memory that does not grow with its length.

    Args:
        source: what `open_clip` opens, or an open reader.
        target: path of the latent file, or a binary stream such as stdout's.
        model: from `load_model`.
        sampling: which frames to take and at what size; not with an open reader.
        options: the stored part of the posterior, chunks and tiles.
        batch: size of the batches that the clip is encoded in, which decides its rounding: for
            the bytes that it has in a dataset of that `--batch`.
        overwrite: whether `target` may exist.
        progress: called after every chunk.

    Raises:
        VideoError: the source cannot be read.
        LatentError: the latents hold NaN or overflow the stored dtype.
        OutputError: the target cannot be written.
        DeviceError: out of memory.
    """
    begin, options = time.perf_counter(), options or EncodeOptions()
    with contextlib.ExitStack() as stack:
        if isinstance(source, ClipReader):
            reader = source
        else:
            reader = stack.enter_context(open_clip(source, sampling or Sampling()))
        job = _EncodeReader(reader, target, model, options, overwrite=overwrite)
        how = PipelineOptions(options.chunk, options.tile, batch)
        done, profile = run_one(model, job, reader.name, how, progress)
    seconds = time.perf_counter() - begin
    return replace(done, seconds=seconds, waited_for_input=profile.waited_for_input)


def describe(
    info: ClipInfo,
    model: LoadedModel,
    options: EncodeOptions,
    source: str,
    plan: ChunkPlan,
) -> LatentMetadata:
    """Make the header of a clip's latent file; its length is not known yet."""
    strides = model.vae.strides
    width, height = strides.padded_size(info.width, info.height)
    extra = dict(options.extra)
    if info.source_size is not None:
        extra[SOURCE_SIZE] = "{}x{}".format(*info.source_size)
    if plan.is_reduced:
        extra["memory_was_short"] = plan.describe()
    return LatentMetadata(
        model=model.name,
        model_sha256=model.sha256,
        family=model.vae.family,
        strides=strides,
        channels=model.vae.latent_channels,
        width=info.width,
        height=info.height,
        pad_right=width - info.width,
        pad_bottom=height - info.height,
        posterior=options.posterior,
        seed=options.seed if options.posterior == "sample" else None,
        normalization=options.normalization,
        compute_dtype=model.compute_dtype_of("encode"),
        tile=plan.tile,
        frame_rate=info.frame_rate,
        time_base=info.time_base,
        start=info.start,
        sample_aspect=info.sample_aspect,
        bits=info.bits,
        source_bits=info.source_bits,
        colour_matrix=info.colour.matrix,
        colour_range=info.colour.range,
        colour_primaries=info.colour.primaries,
        colour_transfer=info.colour.transfer,
        pixel_format=info.pixel_format,
        is_image=info.is_image,
        source=Path(source).name,
        extra=extra,
    )


def stored_values(
    posterior: Posterior, options: EncodeOptions, first: int
) -> tuple[Tensor, Tensor | None]:
    """Take of a chunk's posterior what is stored.

    Args:
        posterior: of one clip.
        options: what to keep.
        first: number of the chunk's first latent frame, from 0.

    Returns:
        `[Z, t, H', W']`, and the log-variance if wanted.
    """
    mean, logvar = posterior.mean[0].float(), posterior.logvar[0].float()
    if options.posterior == "moments":
        return mean, logvar
    if options.posterior == "sample":
        channels, count, height, width = mean.shape
        noise = posterior_noise(options.seed, channels, height, width, first, count)
        mean = Posterior(mean, logvar).sample(noise.to(mean.device))
    if options.normalization is not None:
        mean = options.normalization.apply(mean)
    return mean, None


def unusual_hold(pts: Sequence[int], info: ClipInfo, end: int | None) -> Fraction | None:
    """Find out how long a clip's last frame is shown, where nothing else says so.

    The usual length is what `VideoWriter` gives a last frame: one of the frame rate, or that of
    the frame before it where there is no rate.

    Args:
        pts: of all frames.
        info: of the clip.
        end: when the last frame stops being shown, in units of the time base; None if unknown.

    Returns:
        Seconds; None where they are usual, but for rounding to a millisecond or to the time base.
    """
    if end is None or end <= pts[-1] or info.is_image:
        return None
    held = (end - pts[-1]) * info.time_base
    if info.frame_rate is None and len(pts) > 1:
        usual = (pts[-1] - pts[-2]) * info.time_base
    else:
        usual = 1 / (info.frame_rate or Fraction(25))
    if abs(held - usual) <= max(info.time_base, _ROUNDING):
        return None
    return min(held, LONGEST_HOLD)


def is_constant_rate(pts: Sequence[int], info: ClipInfo) -> bool:
    """Tell whether the frames' times follow from the frame rate alone."""
    return len(pts) == 1 or (
        info.frame_rate is not None
        and constant_rate(pts, info.time_base, info.frame_rate) == info.frame_rate
    )
