"""Normalisation layers."""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

NormType = Literal["layernorm", "groupnorm", "rms"]


class ChannelNorm(nn.Module):
    """LayerNorm over the channels at every pixel: one frame's result depends on no other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise BCTHW."""
        y: Tensor = self.norm(x.movedim(1, -1))
        return y.movedim(-1, 1)


class ChannelRMSNorm(nn.Module):
    """RMS norm over the channels at every pixel: `x / ||x|| * sqrt(C) * gamma`.

    `gamma` has one axis of size 1 for each of the block's `dims`, as published weights do.
    """

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * dims))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise BCTHW."""
        gamma = self.gamma.flatten()
        # The published norm has no epsilon; this one only keeps zero pixels zero.
        y = F.rms_norm(x.movedim(1, -1), gamma.shape, gamma, eps=1e-24)
        return y.movedim(-1, 1)


PIXEL_NORMS = (ChannelNorm, ChannelRMSNorm)
"""Norms over the channels of a single pixel."""


class FrameGroupNorm(nn.GroupNorm):
    """GroupNorm over each frame of BCTHW, as 2D blocks have it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise BCTHW."""
        y = super().forward(rearrange(x, "b c t h w -> (b t) c h w"))
        return rearrange(y, "(b t) c h w -> b c t h w", b=x.size(0))


def make_norm(kind: NormType, channels: int, dims: int) -> nn.Module:
    """Make the norm that a published model has, for blocks of `dims` dimensions.

    GroupNorm's statistics span a frame in 2D blocks and the whole clip in 3D ones.
    """
    if kind == "layernorm":
        return ChannelNorm(channels)
    if kind == "rms":
        return ChannelRMSNorm(channels, dims)
    group_norm = FrameGroupNorm if dims == 2 else nn.GroupNorm
    return group_norm(32, channels, eps=1e-6)


def silu(x: Tensor) -> Tensor:
    """Apply SiLU, in place where there are no gradients: only for tensors just made."""
    return F.silu(x, inplace=not torch.is_grad_enabled())
