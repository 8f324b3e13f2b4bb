"""The noise of a sampled posterior: the same for every chunking, batch, device and order."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def posterior_noise(
    seed: int, channels: int, height: int, width: int, first: int, count: int
) -> Tensor:
    """Standard normal noise for some latent frames of a clip.

    Every latent frame has a generator of its own, seeded by `seed` and its number, so a frame's
    noise depends neither on the frames before it nor on how the clip is cut.

    Args:
        seed: 0 to 2**63 - 1.
        channels: Z.
        height: H'.
        width: W'.
        first: number of the first latent frame wanted, from 0.
        count: number of latent frames.

    Returns:
        float32 `[Z, count, H', W']` on the CPU.
    """
    generator = torch.Generator("cpu")
    noise = torch.empty((channels, count, height, width))
    for frame in range(count):
        digest = hashlib.sha256(f"{seed}:{first + frame}".encode()).digest()
        generator.manual_seed(int.from_bytes(digest[:8], "little"))
        # float64, then rounded: torch draws float32 with approximations that differ by CPU
        noise[:, frame] = torch.randn(
            (channels, height, width), generator=generator, dtype=torch.float64
        )
    return noise
