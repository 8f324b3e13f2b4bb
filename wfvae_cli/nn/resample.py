"""Downsampling and upsampling of space and time."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wfvae_cli.nn.arithmetic import convolve, convolved_in
from wfvae_cli.nn.conv import CausalConv3d, FrameConv2d
from wfvae_cli.nn.stream import Stream, Streaming

TimeInterpolation = Literal["nearest", "trilinear"]


class SpaceDownsample(nn.Module):
    """Halve height and width with a strided 2D conv, zero-padded on the right and bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = FrameConv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Downsample the next chunk, BCTHW."""
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)), stream)
        return y


class SpaceTimeDownsample(nn.Module):
    """Halve height, width and time (1 + 2k frames to 1 + k) with a strided causal conv."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Downsample the next chunk, BCTHW."""
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)), stream)
        return y


class SpaceUpsample(nn.Module):
    """Double height and width: nearest neighbour, then a 2D conv."""

    def __init__(self, channels: int, outputs: int | None = None) -> None:
        super().__init__()
        self.conv = FrameConv2d(channels, outputs or channels, 3, padding=1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Upsample the next chunk, BCTHW."""
        if x.device.type == "cpu":
            return convolve_doubled(x, self.conv.weight, self.conv.bias)
        y: Tensor = self.conv(double_space(x, "nearest"), stream)
        return y


class SpaceTimeUpsample(Streaming):
    """Double height, width and time (1 + k frames to 1 + 2k), then a causal conv.

    Frame 0 is enlarged in space only and never blended with frame 1. With `trilinear` doubling
    an output needs the next input frame, so the layer holds half a frame's worth of output back
    until that frame arrives or the stream ends.
    """

    def __init__(self, channels: int, interpolation: TimeInterpolation) -> None:
        super().__init__()
        self.interpolation = interpolation
        self.conv = CausalConv3d(channels, channels, 3)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Upsample the next chunk, BCTHW."""
        y = double_space(self._double_time(x, stream), "bilinear")
        z: Tensor = self.conv(y, stream)
        return z

    def _double_time(self, x: Tensor, stream: Stream) -> Tensor:
        if not stream.first:
            return self._double(x, stream)
        still, moving = x[:, :, :1], x[:, :, 1:]
        if moving.size(2) == 0:
            return still
        return torch.cat((still, self._double(moving, stream)), dim=2)

    def _double(self, x: Tensor, stream: Stream) -> Tensor:
        """Double all frames but the clip's first."""
        frames = x.permute(0, 2, 3, 4, 1)  # BTHWC, as it lies in memory
        if self.interpolation == "nearest":
            return frames.repeat_interleave(2, dim=1).permute(0, 4, 1, 2, 3)
        # Half-pixel centres: between neighbours a and b lie the outputs 3a/4 + b/4 and
        # a/4 + 3b/4. Before the first frame its own copy stands, which gives one output too many.
        held = stream.past.pop(self.key, None)
        before = frames[:, :1] if held is None else held.permute(0, 2, 3, 4, 1)
        a = torch.cat((before, frames[:, :-1]), dim=1)
        pairs = torch.stack((torch.lerp(a, frames, 0.25), torch.lerp(a, frames, 0.75)), dim=2)
        y = rearrange(pairs, "b t two h w c -> b c (t two) h w")
        if held is None:
            y = y[:, :, 1:]
        if stream.last:
            return torch.cat((y, x[:, :, -1:]), dim=2)
        stream.past[self.key] = x[:, :, -1:].clone()
        return y


def double_space(x: Tensor, mode: Literal["nearest", "bilinear"]) -> Tensor:
    """Double height and width of every frame of BCTHW."""
    frames = rearrange(x, "b c t h w -> (b t) c h w")
    return rearrange(
        F.interpolate(frames, scale_factor=2, mode=mode), "(b t) c h w -> b c t h w", b=x.size(0)
    )


def convolve_doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve every frame of BCTHW, upsampled twofold by nearest neighbour, without making that.

    Every output pixel sees only 2x2 different input pixels, so that one transposed convolution
    with taps summed two by two gives all of them with 4/9 of the work.

    Args:
        x: BCTHW.
        weight: of a 3x3 convolution that pads with one zero on each side, OIHW.
        bias: one number for every output channel.

    Returns:
        BCTHW of twice the height and width.
    """
    weight = weight.to(convolved_in(x))  # sums of taps are not rounded, either
    taps = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    rows = taps[:, :, 1:] + taps[:, :, :-1]
    summed = (rows[..., 1:] + rows[..., :-1]).contiguous(memory_format=torch.channels_last)
    frames = rearrange(x, "b c t h w -> (b t) c h w")
    y = convolve(partial(F.conv_transpose2d, stride=2, padding=1), frames, summed, bias)
    return rearrange(y, "(b t) c h w -> b c t h w", b=x.size(0))
