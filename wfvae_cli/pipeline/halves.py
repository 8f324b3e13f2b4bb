"""One half of a model, the encoder or the decoder, over the next chunk of a clip.

In overlapping tiles where these are asked for; in two parts where memory runs out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from wfvae_cli.errors import DeviceError, is_out_of_memory
from wfvae_cli.models.base import Half, LoadedModel, Posterior, VideoVAE
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.tiles import Grid, in_tiles

log = logging.getLogger("wfvae")


def encode_frames(
    model: LoadedModel, frames: Tensor, stream: Stream, tile: int | None = None
) -> Posterior:
    """Send frames, BCTHW in [-1, 1], through the encoder, in tiles of `tile` pixels if given.

    Raises:
        DeviceError: out of memory.
    """
    s = model.vae.strides
    encode = partial(run_half, model.vae, "encode")
    with torch.inference_mode():
        if tile is None:
            moments = encode(frames, stream)
        else:
            grid = Grid.of(frames.size(3), frames.size(4), tile, s)
            moments = in_tiles(encode, frames, stream, grid, before=(s.height, s.width))
    return Posterior(*moments.chunk(2, dim=1))


def decode_latents(
    model: LoadedModel, latents: Tensor, stream: Stream, tile: int | None = None
) -> Tensor:
    """Send raw latents, BCTHW, through the decoder, in tiles of `tile` pixels if given.

    Raises:
        DeviceError: out of memory.
    """
    s = model.vae.strides
    decode = partial(run_half, model.vae, "decode")
    with torch.inference_mode():
        if tile is None:
            return decode(latents, stream)
        grid = Grid.of(latents.size(3) * s.height, latents.size(4) * s.width, tile, s)
        return in_tiles(decode, latents, stream, grid, after=(s.height, s.width))


def run_half(vae: VideoVAE, half: Half, x: Tensor, stream: Stream) -> Tensor:
    """Send the next chunk through one half; where memory runs out, once more in two parts.

    Args:
        vae: the model.
        half: the encoder or the decoder.
        x: frames or latents, BCTHW.
        stream: state of the clip's earlier chunks; changed in place.

    Returns:
        What the whole chunk gives: mean and log-variance as 2Z channels, or frames; BCTHW.

    Raises:
        DeviceError: out of memory, and the chunk cannot be cut, or its parts do not fit either.
    """
    b, _, t, h, w = x.shape
    frames, height, width = b * t, h, w
    run: Callable[[Tensor, Stream], Tensor] = partial(_moments, vae)
    if half == "decode":
        s = vae.strides
        frames, height, width = frames * s.time, h * s.height, w * s.width
        run = vae.decode
    middle = _middle(vae, half, t, is_first=stream.first)
    with explained_memory(frames, width, height):
        if middle is None:
            return run(x, stream)  # a fork would only keep state alive that is being replaced
        before = stream.fork()
        try:
            return run(x, stream)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback would keep the failed chunk's tensors alive.
        log.info(
            "out of memory in a chunk of %d frames of %dx%d: retrying in two parts",
            *(frames, width, height),
        )
        stream.past, stream.first, last = before.past, before.first, stream.last
        stream.last = False
        early = run(x[:, :, :middle], stream)
        stream.last = last
        return torch.cat((early, run(x[:, :, middle:], stream)), dim=2)


def _moments(vae: VideoVAE, frames: Tensor, stream: Stream) -> Tensor:
    return torch.cat(vae.encode(frames, stream), dim=1)


def _middle(vae: VideoVAE, half: Half, size: int, *, is_first: bool) -> int | None:
    """Frames or latent frames in the first part of a chunk of `size`; None where none can be cut.

    Those of a batch stay together, and the first of a clip is alone only where batches are of one.
    """
    if vae.whole_clip_only is not None:
        return None
    stride = vae.chunk_unit * (vae.strides.time if half == "encode" else 1)
    middle = is_first + stride * ((size - is_first) // stride // 2)
    if middle in (0, size) or (middle == 1 and vae.chunk_unit > 1):
        return None
    return middle


@contextmanager
def explained_memory(frames: int, width: int, height: int) -> Iterator[None]:
    """Turn running out of memory on a chunk into an error that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"out of memory in a chunk of {frames} frames of {width}x{height}: use a smaller "
            "--chunk, a smaller --size, --dtype bfloat16, or --tile where the command has it"
        ) from error
