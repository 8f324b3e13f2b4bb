"""Layers of the Wan VAE: time is resampled by convs that the first frame does not go through."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from wfvae_cli.nn.blocks import attend_in_frames
from wfvae_cli.nn.conv import CausalConv3d, FrameConv2d
from wfvae_cli.nn.norm import make_norm
from wfvae_cli.nn.resample import SpaceDownsample, SpaceUpsample
from wfvae_cli.nn.stream import Stream


class JointAttention(nn.Module):
    """Single-head self-attention over the pixels of each frame; one conv makes q, k and v."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = make_norm("rms", channels, dims=2)
        self.to_qkv = FrameConv2d(channels, 3 * channels, 1)
        self.proj = FrameConv2d(channels, channels, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        del stream
        query, key, value = self.to_qkv(self.norm(x)).chunk(3, dim=1)
        y: Tensor = self.proj(attend_in_frames(query, key, value))
        return x + y


class ConvDownsample(nn.Module):
    """Halve height and width, and time too (1 + 2k frames to 1 + k) where `time` says so."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.space = SpaceDownsample(channels)
        self.time = CausalConv3d(channels, channels, (3, 1, 1), (2, 1, 1)) if time else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Downsample the next chunk, BCTHW."""
        y: Tensor = self.space(x, stream)
        return y if self.time is None else self._halve_time(self.time, y, stream)

    def _halve_time(self, conv: CausalConv3d, x: Tensor, stream: Stream) -> Tensor:
        if not stream.first:
            y: Tensor = conv(x, stream)
            return y
        # Frame 0 stays as it is, and is all the past that the conv has.
        still, moving = x[:, :, :1], x[:, :, 1:]
        stream.past[conv.key] = still.clone()
        return torch.cat((still, conv(moving, stream)), dim=2) if moving.size(2) else still


class ConvUpsample(nn.Module):
    """Double height and width, and time too (1 + k frames to 1 + 2k) where `time` says so.

    A conv in time gives two frames' channels for every frame but the clip's first. In front of
    the second frame it sees zeros, not the first.
    """

    def __init__(self, channels: int, outputs: int, time: bool) -> None:
        super().__init__()
        self.time = (
            CausalConv3d(channels, 2 * channels, (3, 1, 1), before="zeros") if time else None
        )
        self.space = SpaceUpsample(channels, outputs)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Upsample the next chunk, BCTHW."""
        if self.time is not None:
            x = self._double_time(self.time, x, stream)
        y: Tensor = self.space(x, stream)
        return y

    def _double_time(self, conv: CausalConv3d, x: Tensor, stream: Stream) -> Tensor:
        still, moving = (x[:, :, :1], x[:, :, 1:]) if stream.first else (x[:, :, :0], x)
        if not moving.size(2):
            return still
        pairs = rearrange(conv(moving, stream), "b (two c) t h w -> b c (t two) h w", two=2)
        return torch.cat((still, pairs), dim=2)
