"""Many clips through one model: chunk sizes and batches that any machine chooses alike.

What `encode_clip` does for one clip is done here in pieces that a dataset's worker puts together:
several clips are open at once, and short ones of one shape share a call of the model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

import psutil
import torch

from wfvae_cli.codec.chunks import FrameChunk
from wfvae_cli.codec.plan import ChunkPlan, Memory, explained_memory
from wfvae_cli.codec.tiles import Tile
from wfvae_cli.errors import DeviceError
from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.nn.stream import Stream

Batch = int | Literal["auto"]
"""Short clips that go through the model together; `auto` suits their size."""

_GIB = 2**30
_MOST_LATENTS = 8
_LARGEST_BATCH = 64


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
        stride = model.vae.strides.time
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


def batch_size(model: LoadedModel, batch: Batch, chunk: FrameChunk) -> int:
    """How many clips like this one go through the model together.

    Args:
        model: what they will go through.
        batch: what the user said.
        chunk: a whole clip.

    Returns:
        `batch`, or for `auto` what fits into the same fixed budget that chunks are cut for.
    """
    if batch != "auto":
        return batch
    frames, height, width = chunk.shape
    fitting = _budget(model) / (_frame_bytes(model, width * height) * frames)
    return max(1, min(_LARGEST_BATCH, int(fitting)))


def encode_batch(model: LoadedModel, clips: Sequence[FrameChunk], size: int) -> list[Posterior]:
    """Encode whole clips of one shape together.

    A batch of fewer than `size` is filled up with copies of its last clip: kernels are chosen by
    the shape, so a clip's latents depend on `size`, but not on who shares its batch.

    Args:
        model: from `load_model`.
        clips: 1 to `size` chunks, each a whole clip, of equal shape and dtype.
        size: clips that the model is given.

    Returns:
        One posterior for each clip, BCTHW with B = 1.

    Raises:
        DeviceError: out of memory.
    """
    frames, height, width = clips[0].shape
    with torch.inference_mode(), explained_memory(size * frames, width, height):
        tensors = [clip.to_tensor(model.device, model.dtype) for clip in clips]
        tensors += tensors[-1:] * (size - len(tensors))
        together = model.vae.encode(torch.cat(tensors), Stream.whole())
    return [
        Posterior(together.mean[i : i + 1], together.logvar[i : i + 1]) for i in range(len(clips))
    ]


def _budget(model: LoadedModel) -> int:
    return (16 if model.device.type == "cuda" else 2) * _GIB


def _frame_bytes(model: LoadedModel, pixels: int) -> float:
    return model.vae.peak_values_per_pixel * model.dtype.itemsize * pixels
