"""Frames and latents: how many of one make how many of the other, and how clips are chunked.

A causal video VAE of temporal stride `s` maps `1 + s*k` frames to `1 + k` latent frames: the
first frame stands alone and every further latent frame covers `s` frames. Other lengths are
padded at the end with copies of the last frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from wfvae_cli.errors import UsageError


@dataclass(frozen=True)
class Strides:
    """Numbers of pixels or frames that one latent position covers along each axis."""

    time: int
    height: int
    width: int


def latent_frames(frames: int, stride: int) -> int:
    """Latent frames that hold `frames` frames (at least 1) at temporal stride `stride`."""
    return 1 + -(-(frames - 1) // stride)


def padded_frames(frames: int, stride: int) -> int:
    """The smallest `1 + stride*k` that is at least `frames`."""
    return 1 + stride * (latent_frames(frames, stride) - 1)


def pad_to(size: int, stride: int) -> int:
    """Pixels to add to `size` to make it a multiple of `stride`."""
    return -size % stride


def latents_per_chunk(chunk: int, stride: int) -> int:
    """Latent frames that each chunk after the first one holds, for a `--chunk` of frames.

    Args:
        chunk: frames in the first chunk, `1 + stride*k` with `k >= 1`; every later chunk
            holds `stride*k` frames, so that all but the first have the same shape.
        stride: temporal stride of the model; with 1, an image model, chunks are batches of any
            size, all alike.

    Raises:
        UsageError: `chunk` has another form.
    """
    if stride == 1:
        if chunk < 1:
            raise UsageError(f"a chunk must hold at least 1 frame, got {chunk}")
        return chunk
    k, rest = divmod(chunk - 1, stride)
    if rest or k < 1:
        near = 1 + stride * max(1, round((chunk - 1) / stride))
        raise UsageError(
            f"a chunk must hold 1 + {stride}k frames (k >= 1) for this model, got {chunk}; "
            f"the nearest is {near}"
        )
    return k
