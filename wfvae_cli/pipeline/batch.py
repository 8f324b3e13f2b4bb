"""One call of the model: the next chunks of one clip, or of several of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wfvae_cli.models.base import LoadedModel, Posterior, Task
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.halves import decode_latents, encode_frames, explained_memory
from wfvae_cli.pipeline.job import Chunk, ModelOutput
from wfvae_cli.pipeline.options import Batch
from wfvae_cli.pipeline.plan import ChunkPlan

MOST_OPEN_IN_BATCH = 8
"""Clips of several chunks that share a batch: each has its file open meanwhile."""

_LARGEST_BATCH = 64
_FILLS_CPU = 2**17
"""Pixels of a call beyond which cores do not get faster: measured with wfvae-tiny, from 64x64."""
_FILLS_GPU = 2**21
"""Pixels of a call that fill a GPU's multiprocessors, by the tiles of its matrix products: 33
frames of 256x256 make a few for each in the deepest layers of WF-VAE."""


class ClipStreams(NamedTuple):
    """State of one clip in each half of the model."""

    encoder: Stream
    decoder: Stream

    @classmethod
    def of(cls, plan: ChunkPlan) -> ClipStreams:
        """Begin a clip."""
        return cls(plan.stream(), plan.stream())

    @property
    def first(self) -> bool:
        """True until the first chunk has gone through."""
        return self.encoder.first and self.decoder.first


def batch_size(model: LoadedModel, batch: Batch, plan: ChunkPlan, first: Chunk) -> int:
    """Say how many clips like one go through the model together.

    Never more than keep the device busy: beyond that, batches cost time. For `auto` and for a
    number alike, so that `--batch` makes nothing slower.

    Args:
        model: the model that they will go through.
        batch: what the user said: the most, or `auto`.
        plan: chunks and tiles of the clip; tiles take clips one by one.
        first: the clip's first chunk, or all of it.
    """
    if batch == 1 or plan.tile is not None:
        return 1
    frames, height, width = first.shape
    fills = _FILLS_CPU if model.device.type == "cpu" else _FILLS_GPU
    most = _LARGEST_BATCH if batch == "auto" else batch
    if not first.last:
        most = min(most, MOST_OPEN_IN_BATCH)
    return max(1, min(most, fills // (frames * height * width)))


def run_batch(
    model: LoadedModel,
    halves: Task,
    chunks: Sequence[Chunk],
    streams: Sequence[ClipStreams],
    size: int,
    tile: int | None = None,
) -> list[ModelOutput]:
    """Send the next chunks of clips through the model together.

    A batch of fewer than `size` is filled up with copies of its last clip: kernels are chosen by
    the shape, so a clip's latents depend on `size`, but not on who shares its batch.

    Args:
        model: from `load_model`.
        halves: what they go through: the encoder, the decoder, or one after the other.
        chunks: 1 to `size`, of equal kind.
        streams: of the same clips, equally far; changed in place.
        size: clips that the model is given.
        tile: pixels of a tile's side, or None for the whole picture; a batch of one only.

    Raises:
        DeviceError: out of memory.
    """
    frames, height, width = chunks[0].shape
    missing = size - len(chunks)
    with torch.inference_mode(), explained_memory(size * frames, width, height):
        dtype = model.dtype_of("decode" if halves == "decode" else "encode")
        tensors = [chunk.to_tensor(model.device, dtype) for chunk in chunks]
        x = torch.cat(tensors + tensors[-1:] * missing) if size > 1 else tensors[0]
        del tensors  # frees the unbatched copies before the model runs
    posterior = decoded = None
    if halves != "decode":
        encoder = _joined([each.encoder for each in streams], missing, last=chunks[0].last)
        posterior = encode_frames(model, x, encoder, tile)
        _split(encoder, [each.encoder for each in streams], size)
        x = posterior.mean
    if halves != "encode":
        decoder = _joined([each.decoder for each in streams], missing, last=chunks[0].last)
        decoded = decode_latents(model, x, decoder, tile)
        _split(decoder, [each.decoder for each in streams], size)
    return [_of_clip(i, posterior, decoded) for i in range(len(chunks))]


def _joined(streams: Sequence[Stream], missing: int, *, last: bool) -> Stream:
    joined = Stream.join([*streams, *[streams[-1]] * missing])
    joined.last = last
    return joined


def _split(joined: Stream, streams: Sequence[Stream], size: int) -> None:
    """Give each clip its part of what the batch left behind."""
    if size == 1:
        return  # a batch of one: the stream is the clip's own
    for stream, part in zip(streams, joined.split(size), strict=False):
        stream.past, stream.first, stream.last = part.past, part.first, part.last


def _of_clip(i: int, posterior: Posterior | None, decoded: Tensor | None) -> ModelOutput:
    return ModelOutput(
        None if posterior is None else Posterior(*(each[i : i + 1] for each in posterior)),
        None if decoded is None else decoded[i : i + 1],
    )
