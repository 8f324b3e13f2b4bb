"""Clip to latents, chunk by chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from wfvae_cli.errors import UsageError
from wfvae_cli.latents.header import LatentDtype
from wfvae_cli.latents.metadata import AppliedNormalization, LatentMetadata, PosteriorKind
from wfvae_cli.latents.noise import posterior_noise
from wfvae_cli.latents.writer import LatentWriter
from wfvae_cli.media.clip import ClipInfo, Sampling
from wfvae_cli.media.rate import constant_rate
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.chunks import FrameChunk, convert_on, read_chunks
from wfvae_cli.pipeline.plan import ChunkPlan, announce, explained_memory, halved_if_too_large
from wfvae_cli.pipeline.staging import Download, download
from wfvae_cli.pipeline.threads import Clock, consumed, produced
from wfvae_cli.pipeline.tiles import Grid, Tile, in_tiles
from wfvae_cli.strides import pad_to

Progress = Callable[[int], None]
"""Told how many more frames are done."""


@dataclass(frozen=True)
class EncodeOptions:
    """What to keep of the posterior, and how."""

    posterior: PosteriorKind = "mean"
    seed: int = 0
    """Of the noise where `posterior` is `sample`; 0 to 2**63 - 1."""
    normalization: AppliedNormalization | None = None
    """Applied to the stored latents; None stores the model's own."""
    save_dtype: LatentDtype = "float32"
    chunk: int | None = None
    """Frames of a clip's first chunk, `1 + k*stride`; None suits the resolution."""
    tile: Tile = "auto"
    """Pixels of a tile's side, where the picture goes through in tiles, which is not exact."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Strings to keep in the file's header."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if self.normalization is not None and self.posterior == "moments":
            raise UsageError(
                "--normalize applies to a mean or a sample; moments stay as the model gives them"
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"expected a seed from 0 to 2**63 - 1, got {self.seed}")


@dataclass(frozen=True)
class EncodedClip:
    """What `encode_clip` wrote."""

    source: str
    target: str
    frames: int
    width: int
    height: int
    latent_shape: tuple[int, int, int, int]
    """`[Z, T', H', W']`."""
    tile: int | None
    """Pixels of the side of the tiles that were encoded; None where the picture was whole."""
    seconds: float
    waited_for_input: float
    """Seconds of these that the model had no frames to work on."""


@dataclass(frozen=True)
class EncodedChunk:
    """One chunk after the encoder."""

    chunk: FrameChunk
    posterior: Posterior
    """BCTHW with B = 1."""


def encode_chunks(
    reader: ClipReader, model: LoadedModel, plan: ChunkPlan, clock: Clock | None = None
) -> Iterator[EncodedChunk]:
    """Encode an open clip, reading ahead in a thread of its own.

    Raises:
        VideoError: the clip is damaged, or changes its size midway.
        DeviceError: out of memory.
    """
    stream = plan.stream()
    chunks = read_chunks(reader, model.vae.strides, plan)
    with produced(chunks, clock=clock) as source:
        for chunk in source:
            stream.last = chunk.last
            yield EncodedChunk(chunk, encode_pixels(model, chunk, stream, plan.tile))


def encode_pixels(
    model: LoadedModel, chunk: FrameChunk, stream: Stream, tile: int | None = None
) -> Posterior:
    """Send one chunk of a clip through the encoder, in tiles of `tile` pixels if given."""
    frames = chunk.to_tensor(model.device, model.dtype)
    return encode_frames(model, frames, stream, tile)


def encode_frames(
    model: LoadedModel, frames: Tensor, stream: Stream, tile: int | None = None
) -> Posterior:
    """Send frames, BCTHW in [-1, 1], through the encoder, in tiles of `tile` pixels if given."""
    s = model.vae.strides
    stride = None if model.vae.whole_clip_only else s.time * model.vae.chunk_unit

    def encode(frames: Tensor, stream: Stream) -> Tensor:
        b, _, t, h, w = frames.shape
        with torch.inference_mode(), explained_memory(b * t, w, h):
            return torch.cat(model.vae.encode(frames, stream), dim=1)

    def run(frames: Tensor, stream: Stream) -> Tensor:
        alone = model.vae.chunk_unit == 1
        return halved_if_too_large(encode, frames, stream, stride, alone=alone)

    if tile is None:
        moments = run(frames, stream)
    else:
        grid = Grid.of(frames.size(3), frames.size(4), tile, s)
        with torch.inference_mode():
            moments = in_tiles(run, frames, stream, grid, before=(s.height, s.width))
    return Posterior(*moments.chunk(2, dim=1))


def encode_clip(
    source: str | Path | ClipReader,
    target: str | Path | BinaryIO,
    model: LoadedModel,
    *,
    sampling: Sampling | None = None,
    options: EncodeOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EncodedClip:
    """Encode a video or image into a latent file, in memory that does not grow with its length.

    Args:
        source: what `open_clip` opens, or an open reader.
        target: path of the latent file, or a binary stream such as stdout's.
        model: from `load_model`.
        sampling: which frames to take and at what size; not with an open reader.
        options: what to keep of the posterior.
        overwrite: whether `target` may exist.
        progress: called after every chunk.

    Raises:
        VideoError: the source cannot be read.
        LatentError: the latents hold NaN or overflow the stored dtype.
        OutputError: the target cannot be written.
        DeviceError: out of memory.
    """
    if not isinstance(source, ClipReader):
        with open_clip(source, sampling or Sampling()) as reader:
            return encode_clip(
                reader, target, model, options=options, overwrite=overwrite, progress=progress
            )
    options = options or EncodeOptions()
    begin, clock = time.perf_counter(), Clock()
    info = source.info
    size = info.width, info.height
    plan = ChunkPlan.of(model, options.chunk, *size, tile=options.tile, task="encode")
    announce(plan)
    convert_on(model.device, source)
    metadata = describe(info, model, options, source.name, tile=plan.tile)
    pts: list[int] = []
    with LatentWriter(target, metadata, options.save_dtype, overwrite=overwrite) as writer:

        def write(moments: Download) -> None:
            posterior = Posterior(*moments.wait().chunk(2, dim=1))
            writer.append(*stored_values(posterior, options, writer.latent_frames))

        with consumed(write) as give:
            for encoded in encode_chunks(source, model, plan, clock):
                give(download(torch.cat(encoded.posterior, dim=1)))
                pts.extend(encoded.chunk.pts)
                if progress is not None:
                    progress(len(encoded.chunk.pts))
        writer.finish(len(pts), None if is_constant_rate(pts, info) else pts)
        latent_frames = writer.latent_frames
    channels, _, height, width = metadata.latent_shape
    return EncodedClip(
        source=source.name,
        target=str(target) if isinstance(target, (str, Path)) else "-",
        frames=len(pts),
        width=info.width,
        height=info.height,
        latent_shape=(channels, latent_frames, height, width),
        tile=plan.tile,
        seconds=time.perf_counter() - begin,
        waited_for_input=clock.waited,
    )


def describe(
    info: ClipInfo,
    model: LoadedModel,
    options: EncodeOptions,
    source: str,
    *,
    tile: int | None = None,
) -> LatentMetadata:
    """The header of the latent file that a clip is to become; its length is not known yet."""
    strides = model.vae.strides
    return LatentMetadata(
        model=model.name,
        model_sha256=model.sha256,
        family=model.vae.family,
        strides=strides,
        channels=model.vae.latent_channels,
        width=info.width,
        height=info.height,
        pad_right=pad_to(info.width, strides.width),
        pad_bottom=pad_to(info.height, strides.height),
        posterior=options.posterior,
        seed=options.seed if options.posterior == "sample" else None,
        normalization=options.normalization,
        compute_dtype=model.compute_dtype,
        tile=tile,
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
        extra=options.extra,
    )


def stored_values(
    posterior: Posterior, options: EncodeOptions, first: int
) -> tuple[Tensor, Tensor | None]:
    """What is stored of a chunk's posterior: `[Z, t, H', W']`, and the log-variance if wanted."""
    mean, logvar = posterior.mean[0].float(), posterior.logvar[0].float()
    if options.posterior == "moments":
        return mean, logvar
    if options.posterior == "sample":
        channels, count, height, width = mean.shape
        noise = posterior_noise(options.seed, channels, height, width, first, count)
        mean = Posterior(mean, logvar).sample(noise.to(mean.device))
    if options.normalization is not None:
        shift = mean.new_tensor(options.normalization.shift).view(-1, 1, 1, 1)
        scale = mean.new_tensor(options.normalization.scale).view(-1, 1, 1, 1)
        mean = (mean - shift) * scale
    return mean, None


def is_constant_rate(pts: list[int], info: ClipInfo) -> bool:
    """Whether the frames' times follow from the frame rate alone."""
    return len(pts) == 1 or (
        info.frame_rate is not None
        and constant_rate(pts, info.time_base, info.frame_rate) == info.frame_rate
    )
