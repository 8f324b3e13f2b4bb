"""Many clips through one model: chunk sizes and batches that any machine chooses alike.

What `encode_clip` does for one clip is done here in pieces that a dataset's worker puts together:
several clips are open at once, and chunks of one shape share a call of the model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

import psutil
import torch

from wfvae_cli.errors import DeviceError
from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.chunks import FrameChunk
from wfvae_cli.pipeline.encode import encode_frames
from wfvae_cli.pipeline.plan import ChunkPlan, Memory, explained_memory
from wfvae_cli.pipeline.tiles import Tile

Batch = int | Literal["auto"]
"""Clips that go through the model together; `auto` suits their size."""

MOST_SIDE_BY_SIDE = 8
"""Clips of several chunks that share a batch: each has its file open meanwhile."""

_GIB = 2**30
_MOST_LATENTS = 8
_LARGEST_BATCH = 64
_FILLS_CPU = 2**17
"""Pixels of a call beyond which cores do not get faster: measured with wfvae-tiny, from 64x64."""
_FILLS_GPU = 2**21
"""The same of a GPU's multiprocessors, by counting the tiles of its matrix products: 33 frames of
256x256 make a few for each in the deepest layers of WF-VAE."""


def fixed_plan(
    model: LoadedModel, chunk: int | None, width: int, height: int, tile: Tile = "off"
) -> ChunkPlan:
    """The chunks of a clip, from its resolution alone.

    `ChunkPlan.of` makes smaller ones where memory is short. Here every worker of a dataset must
    cut a clip alike, however much of its memory others use, because sizes change the rounding;
    so there are tiles only where they were asked for.

    Args:
        model: what the chunks will go through.
        chunk: frames of the first chunk, `1 + k*stride`; None suits the resolution.
        width: pixels of a frame.
        height: pixels of a frame.
        tile: pixels of a tile's side; `auto` is `off`.

    Raises:
        UsageError: the model cannot be run in such chunks or tiles.
    """
    pixels, memory = width * height, Memory(sys.maxsize)
    if isinstance(tile, int):
        pixels, memory = min(tile, width) * min(tile, height), Memory.now(model.device)
    if chunk is None and model.vae.whole_clip_only is None:
        frames = _budget(model) / _frame_bytes(model, pixels)
        stride = model.vae.strides.time * model.vae.chunk_unit
        chunk = 1 + stride * max(1, min(_MOST_LATENTS, int((frames - 1) // stride)))
    tile = "off" if tile == "auto" else tile
    return ChunkPlan.of(model, chunk, width, height, tile=tile, task="encode", memory=memory)


def check_memory(
    model: LoadedModel, frames: int, width: int, height: int, tile: int | None = None
) -> None:
    """Refuse a chunk that would take all of this machine's memory, and the process with it.

    On a CUDA device running out is an error like any other; the system's memory has no such
    mercy.

    Raises:
        DeviceError: it is too large.
    """
    if model.device.type != "cpu":
        return
    side = tile or sys.maxsize
    needed = _frame_bytes(model, min(side, width) * min(side, height)) * frames
    available = psutil.virtual_memory().available
    if needed > available:
        raise DeviceError(
            f"{frames} frames of {width}x{height} need about {needed / _GIB:.1f} GiB, and "
            f"{available / _GIB:.1f} GiB are free: use a smaller --size, --chunk or --tile"
        )


def batch_size(model: LoadedModel, batch: Batch, first: FrameChunk) -> int:
    """How many clips like this one go through the model together.

    Args:
        model: what they will go through.
        batch: what the user said.
        first: a clip's first chunk, or all of it.

    Returns:
        Of whole clips `batch`, or for `auto` what fits into the same fixed budget that chunks are
        cut for. Of clips with more chunks to come no more than it takes to keep the device busy:
        where batches are not full they cost time, and only small frames leave any to gain.
    """
    frames, height, width = first.shape
    if first.last:
        if batch != "auto":
            return batch
        fitting = _budget(model) / (_frame_bytes(model, width * height) * frames)
        return max(1, min(_LARGEST_BATCH, int(fitting)))
    fills = _FILLS_GPU if model.device.type == "cuda" else _FILLS_CPU
    most = MOST_SIDE_BY_SIDE if batch == "auto" else min(batch, MOST_SIDE_BY_SIDE)
    return max(1, min(most, fills // (frames * height * width)))


def encode_batch(
    model: LoadedModel,
    chunks: Sequence[FrameChunk],
    streams: Sequence[Stream],
    size: int,
    tile: int | None = None,
) -> tuple[list[Posterior], list[Stream]]:
    """Encode the next chunks of clips together, each of which has a stream of its own.

    A batch of fewer than `size` is filled up with copies of its last clip: kernels are chosen by
    the shape, so a clip's latents depend on `size`, but not on who shares its batch.

    Args:
        model: from `load_model`.
        chunks: 1 to `size`, of equal shape and dtype.
        streams: of the same clips, equally far.
        size: clips that the model is given.
        tile: pixels of a tile's side, or None for the whole picture; a batch of one only.

    Returns:
        For each clip its posterior, BCTHW with B = 1, and its stream for the next chunk.

    Raises:
        DeviceError: out of memory.
    """
    frames, height, width = chunks[0].shape
    with torch.inference_mode(), explained_memory(size * frames, width, height):
        tensors = [chunk.to_tensor(model.device, model.dtype) for chunk in chunks]
        missing = size - len(tensors)
        stream = Stream.join([*streams, *[streams[-1]] * missing])
        together = torch.cat(tensors + tensors[-1:] * missing) if size > 1 else tensors[0]
        del tensors  # a large batch need not be there twice while it is encoded
        mean, logvar = encode_frames(model, together, stream, tile)
        count = len(chunks)
        posteriors = [Posterior(mean[i : i + 1], logvar[i : i + 1]) for i in range(count)]
        return posteriors, stream.split(size)[:count]


def _budget(model: LoadedModel) -> int:
    return (16 if model.device.type == "cuda" else 2) * _GIB


def _frame_bytes(model: LoadedModel, pixels: int) -> float:
    return model.vae.peak_values_per_pixel * model.value_bytes * pixels
