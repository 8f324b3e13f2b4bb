"""How many frames go through a model together, and what happens when they are too many."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from wfvae_cli.errors import DeviceError, UsageError
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.nn.stream import Stream
from wfvae_cli.timing import latents_per_chunk

log = logging.getLogger("wfvae")

_GIB = 2**30
_MOST_LATENTS = 8
"""Longer chunks gain nothing: by then the frames fill the device and overheads are spread."""


@dataclass(frozen=True)
class ChunkPlan:
    """Latent frames in a clip's first chunk, and in each of the later ones."""

    first: int
    later: int

    @classmethod
    def of(cls, model: LoadedModel, chunk: int | None, width: int, height: int) -> ChunkPlan:
        """The plan for `--chunk` frames, or for as many as suit the resolution.

        Args:
            model: what the chunks will go through.
            chunk: frames of the first chunk, `1 + k*stride` (any number for an image model);
                None chooses.
            width: pixels of a frame.
            height: pixels of a frame.

        Raises:
            UsageError: the model cannot be run in such chunks.
        """
        reason = model.vae.whole_clip_only
        if reason is not None:
            if chunk is not None:
                raise UsageError(
                    f"--chunk {chunk} cannot be used with {model.name}, which takes whole clips "
                    f"only: {reason}; leave --chunk out"
                )
            return cls(sys.maxsize, sys.maxsize)
        if chunk is None:
            later = _default_latents(model, width * height)
        else:
            later = latents_per_chunk(chunk, model.vae.strides.time)
        # To an image model the first frame is like any other.
        return cls(later if model.vae.strides.time == 1 else 1 + later, later)

    def cuts(self, total: int) -> Iterator[tuple[int, int]]:
        """Begin and end of every chunk of `total` latent frames."""
        begin, size = 0, self.first
        while begin < total:
            yield begin, min(begin + size, total)
            begin, size = begin + size, self.later


def _default_latents(model: LoadedModel, pixels: int) -> int:
    """Latent frames a chunk for frames of `pixels`.

    The budget is fixed, so that the same clip is cut the same way on any machine that has twice
    as much to spare; less memory makes smaller chunks.
    """
    if model.device.type == "cuda":
        free, budget = torch.cuda.mem_get_info(model.device)[0], 16 * _GIB
    else:
        free, budget = psutil.virtual_memory().available, 2 * _GIB
    frame_bytes = model.vae.peak_values_per_pixel * model.dtype.itemsize * pixels
    frames = min(budget, free // 2) / frame_bytes
    return max(1, min(_MOST_LATENTS, int((frames - 1) // model.vae.strides.time)))


def halved_if_too_large(
    run: Callable[[Tensor, Stream], Tensor], x: Tensor, stream: Stream, stride: int | None
) -> Tensor:
    """Send the next chunk through a network; where memory runs out, once more in two halves.

    Args:
        run: takes a chunk and its stream, and raises `DeviceError` where memory runs out.
        x: BCTHW.
        stream: what the clip's earlier chunks left behind; changed in place.
        stride: frames of `x` that belong together after the clip's first one, 1 for latents; None
            where clips cannot be cut.

    Returns:
        What the whole chunk gives.

    Raises:
        DeviceError: a half does not fit either, or the chunk cannot be halved.
    """
    before = stream.fork()
    middle = 0
    if stride is not None:
        middle = stream.first + stride * ((x.size(2) - stream.first) // stride // 2)
    try:
        return run(x, stream)
    except DeviceError as error:
        if middle in (0, x.size(2)):
            raise
        what, _, _ = str(error).partition(":")
    # Outside of the handler, whose traceback would keep the failed chunk's tensors alive.
    log.info("%s: retrying in two halves", what)
    stream.past, stream.first, last = before.past, before.first, stream.last
    stream.last = False
    early = run(x[:, :, :middle], stream)
    stream.last = last
    return torch.cat((early, run(x[:, :, middle:], stream)), dim=2)


@contextmanager
def explained_memory(frames: int, width: int, height: int) -> Iterator[None]:
    """Turn running out of memory on a chunk into an error that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise DeviceError(
            f"out of memory in a chunk of {frames} frames of {width}x{height}: use a smaller "
            "--chunk, a smaller --size, or --dtype bfloat16"
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    # PyTorch's CPU allocator raises a plain RuntimeError.
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "can't allocate memory" in str(error)
        or "could not create a memory object" in str(error)
    )
