"""Latents to clip, chunk by chunk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.metadata import AppliedNormalization, LatentMetadata
from wfvae_cli.media.clip import ClipInfo, Colour, Frame
from wfvae_cli.media.clip_writer import ClipWriter
from wfvae_cli.media.writer import VideoOptions, open_writer
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.chunks import PendingPixels
from wfvae_cli.pipeline.encode import Progress
from wfvae_cli.pipeline.plan import ChunkPlan, announce, explained_memory, halved_if_too_large
from wfvae_cli.pipeline.staging import upload
from wfvae_cli.pipeline.threads import Clock, consumed, produced
from wfvae_cli.pipeline.tiles import Grid, Tile, in_tiles

log = logging.getLogger("wfvae")


@dataclass(frozen=True)
class DecodedClip:
    """What `decode_clip` wrote."""

    source: str
    target: str
    frames: int
    width: int
    height: int
    tile: int | None
    """Pixels of the side of the tiles that were decoded; None where the picture was whole."""
    seconds: float
    waited_for_output: float
    """Seconds of these that the model waited for the file's encoder."""


def decode_clip(
    source: str | Path | BinaryIO | LatentFile,
    target: str | Path,
    model: LoadedModel,
    *,
    video: VideoOptions | None = None,
    audio_from: str | Path | None = None,
    chunk: int | None = None,
    tile: Tile = "auto",
    force: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DecodedClip:
    """Decode a latent file into a video, image or frames, in memory that does not grow.

    Args:
        source: path of a latent file, a binary stream, or an open file.
        target: what to write: a video or image by its suffix, a `%05d` pattern, `-` for stdout.
        model: the model that made the latents.
        video: codec and container.
        audio_from: a file whose sound track is copied in.
        chunk: frames of the first chunk, `1 + k*stride`; None suits the resolution.
        tile: pixels of a tile's side, where the picture goes through in tiles: see `tiles.py`.
        force: decode latents of other weights all the same.
        overwrite: whether `target` may exist.
        progress: called after every chunk.

    Raises:
        LatentError: the file is damaged, or made by other weights.
        OutputError: the target cannot be written.
        DeviceError: out of memory.
    """
    if not isinstance(source, LatentFile):
        with LatentFile(source) as file:
            return decode_clip(
                file,
                target,
                model,
                video=video,
                audio_from=audio_from,
                chunk=chunk,
                tile=tile,
                force=force,
                overwrite=overwrite,
                progress=progress,
            )
    begin, clock = time.perf_counter(), Clock()
    metadata = source.metadata
    check_made_by(source, model, force=force)
    size = metadata.width, metadata.height
    plan = ChunkPlan.of(model, chunk, *size, tile=tile, task="decode")
    announce(plan)
    info = clip_info(metadata, variable=source.pts is not None)
    pts = range(metadata.frames) if source.pts is None else source.pts.tolist()
    done = 0
    with (
        open_writer(
            target, info, video or VideoOptions(), overwrite=overwrite, audio_from=audio_from
        ) as writer,
        consumed(_writing(writer), clock=clock) as give,
    ):
        tell(writer)
        for frames in decode_chunks(source, model, plan):
            pending = PendingPixels(
                frames, metadata.height, metadata.width, metadata.bits, writer.planes
            )
            count = min(len(pending), metadata.frames - done)
            give((pending, pts[done : done + count]))
            done += count
            if progress is not None:
                progress(count)
    return DecodedClip(
        source=source.name,
        target=str(target),
        frames=done,
        width=metadata.width,
        height=metadata.height,
        tile=plan.tile,
        seconds=time.perf_counter() - begin,
        waited_for_output=clock.waited,
    )


def decode_chunks(file: LatentFile, model: LoadedModel, plan: ChunkPlan) -> Iterator[Tensor]:
    """Decode an open latent file, reading ahead in a thread of its own.

    Yields:
        1CTHW in about [-1, 1], still padded; together as many frames as the latents cover.
    """
    stream = plan.stream()
    total = file.latent_frames
    applied = file.metadata.normalization
    chunks = (
        (denormalize(file.read(begin, end).float(), applied), end == total)
        for begin, end in plan.cuts(total)
    )
    with produced(chunks) as source:
        for latents, stream.last in source:
            yield decode_latents(model, upload(latents[None], model.device), stream, plan.tile)


def decode_latents(
    model: LoadedModel, latents: Tensor, stream: Stream, tile: int | None = None
) -> Tensor:
    """Send raw latents, 1CTHW, through the decoder, in tiles of `tile` pixels if given."""
    s = model.vae.strides
    stride = None if model.vae.whole_clip_only else model.vae.chunk_unit

    def decode(latents: Tensor, stream: Stream) -> Tensor:
        _, _, t, h, w = latents.shape
        with torch.inference_mode(), explained_memory(t * s.time, w * s.width, h * s.height):
            return model.vae.decode(latents.to(model.dtype), stream)

    def run(latents: Tensor, stream: Stream) -> Tensor:
        alone = model.vae.chunk_unit == 1
        return halved_if_too_large(decode, latents, stream, stride, alone=alone)

    if tile is None:
        return run(latents, stream)
    height, width = latents.size(3) * s.height, latents.size(4) * s.width
    grid = Grid.of(height, width, tile, s)
    with torch.inference_mode():
        return in_tiles(run, latents, stream, grid, after=(s.height, s.width))


def denormalize(latents: Tensor, applied: AppliedNormalization | None) -> Tensor:
    """Undo what the header says was done to `[Z, T', H', W']`."""
    if applied is None:
        return latents
    shift = latents.new_tensor(applied.shift).view(-1, 1, 1, 1)
    scale = latents.new_tensor(applied.scale).view(-1, 1, 1, 1)
    return latents / scale + shift


def check_made_by(file: LatentFile, model: LoadedModel, *, force: bool) -> None:
    """Refuse latents that this model did not make.

    Raises:
        LatentError: other channels or family; or, unless `force`, other weights.
    """
    metadata = file.metadata
    made_by = f"{file.name}: made by {metadata.model!r} ({metadata.family}, {metadata.channels} "
    made_by += f"channels, strides {'x'.join(map(str, vars(metadata.strides).values()))})"
    vae = model.vae
    if (metadata.family, metadata.channels, metadata.strides) != (
        vae.family,
        vae.latent_channels,
        vae.strides,
    ):
        strides = "x".join(map(str, vars(vae.strides).values()))
        raise LatentError(
            f"{made_by}, but {model.name!r} is {vae.family} with {vae.latent_channels} channels "
            f"and strides {strides}: give the model that made it with --model"
        )
    if metadata.model_sha256 != model.sha256 and not force:
        raise LatentError(
            f"{made_by} from weights {metadata.model_sha256[:12]}…, but {model.name!r} has "
            f"weights {model.sha256[:12]}…: give the model that made it with --model, or --force"
        )


def clip_info(metadata: LatentMetadata, *, variable: bool) -> ClipInfo:
    """The clip that a latent file describes; a constant rate gives the time base."""
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


def tell(writer: ClipWriter) -> None:
    """Pass on what the user should know of an output."""
    for notice in writer.notices:
        log.info(notice)


def _writing(writer: ClipWriter) -> Callable[[tuple[PendingPixels, Sequence[int]]], None]:
    def write(chunk: tuple[PendingPixels, Sequence[int]]) -> None:
        pending, pts = chunk
        for picture, time_of_frame in zip(pending.wait(), pts, strict=False):  # padding has no pts
            if writer.planes is None:
                writer.write(Frame(picture, time_of_frame))
            else:
                writer.write_planes(picture, time_of_frame)

    return write
