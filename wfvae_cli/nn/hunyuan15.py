"""Blocks of HunyuanVideo 1.5's VAE: levels resampled by moving pixels into channels and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wfvae_cli.nn.blocks import ResidualBlock
from wfvae_cli.nn.conv import CausalConv3d, Chain
from wfvae_cli.nn.pixel_shuffle import (
    Factor,
    Order,
    channels_to_pixels,
    grouped_means,
    pixels_to_channels,
)
from wfvae_cli.nn.prefix_attention import PrefixAttention
from wfvae_cli.nn.stream import Stream

_ORDER: Order = "t h w c"
_SPACE: Factor = (1, 2, 2)
_SPACE_TIME: Factor = (2, 2, 2)


class ReplicatingBlock(ResidualBlock):
    """A residual block with RMS norms, whose convs repeat the picture's edges and first frame."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(3, inputs, outputs, "rms")
        self.conv1 = replicating_conv(inputs, outputs)
        self.conv2 = replicating_conv(outputs, outputs)


class ShuffleDownsample(nn.Module):
    """Halve height and width, and time too (1 + 2k frames to 1 + k) where `time` says so.

    A conv's pixels move into channels; the shortcut does the same to the input and averages groups
    of channels. The clip's first frame is halved in space alone: its conv's channels come twice.
    """

    def __init__(self, inputs: int, outputs: int, time: bool) -> None:
        super().__init__()
        self.time = time
        self.outputs = outputs
        self.conv = replicating_conv(inputs, outputs // (8 if time else 4))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Downsample the next chunk, BCTHW."""
        y: Tensor = self.conv(x, stream)
        if not self.time:
            return self._moved(y, x, _SPACE)
        if not stream.first:
            return self._moved(y, x, _SPACE_TIME)
        first = pixels_to_channels(y[:, :, :1], _SPACE, _ORDER).repeat(1, 2, 1, 1, 1)
        first = first + self._shortcut(x[:, :, :1], _SPACE)
        if x.size(2) == 1:
            return first
        return torch.cat((first, self._moved(y[:, :, 1:], x[:, :, 1:], _SPACE_TIME)), dim=2)

    def _moved(self, y: Tensor, x: Tensor, factor: Factor) -> Tensor:
        return pixels_to_channels(y, factor, _ORDER) + self._shortcut(x, factor)

    def _shortcut(self, x: Tensor, factor: Factor) -> Tensor:
        return grouped_means(pixels_to_channels(x, factor, _ORDER), self.outputs)


class ShuffleUpsample(nn.Module):
    """Double height and width, and time too (1 + k frames to 1 + 2k) where `time` says so.

    A conv's channels move out into pixels; the shortcut repeats the input's channels and does the
    same. The clip's first frame is doubled in space alone, by the first half of what its channels
    would give.
    """

    def __init__(self, inputs: int, outputs: int, time: bool) -> None:
        super().__init__()
        self.time = time
        self.outputs = outputs
        factor = 8 if time else 4
        self.conv = replicating_conv(inputs, factor * outputs)
        self.repeats = factor * outputs // inputs

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Upsample the next chunk, BCTHW."""
        y: Tensor = self.conv(x, stream)
        if not self.time:
            repeated = _repeat_channels(x, self.repeats)
            y = channels_to_pixels(y, _SPACE, _ORDER)
            return y.add_(channels_to_pixels(repeated, _SPACE, _ORDER))
        if not stream.first:
            return self._double(y, x)
        first = channels_to_pixels(y[:, :, :1], _SPACE, _ORDER)[:, : self.outputs]
        shortcut = channels_to_pixels(x[:, :, :1], _SPACE, _ORDER)
        first = first + _repeat_channels(shortcut, self.repeats // 2)
        if x.size(2) == 1:
            return first
        return torch.cat((first, self._double(y[:, :, 1:], x[:, :, 1:])), dim=2)

    def _double(self, y: Tensor, x: Tensor) -> Tensor:
        """Double all frames but the clip's first."""
        shortcut = channels_to_pixels(x, _SPACE_TIME, _ORDER)
        y = channels_to_pixels(y, _SPACE_TIME, _ORDER)
        return y.add_(_repeat_channels(shortcut, self.repeats))


class Level(nn.Module):
    """Residual blocks, and what resamples their result if there is a next level."""

    def __init__(self, inputs: int, outputs: int, blocks: int, resample: nn.Module | None) -> None:
        super().__init__()
        self.resnets = Chain(
            *(ReplicatingBlock(outputs if i else inputs, outputs) for i in range(blocks))
        )
        self.resample = resample

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        y: Tensor = self.resnets(x, stream)
        return y if self.resample is None else self.resample(y, stream)


def middle(channels: int) -> Chain:
    """The blocks around the attention."""
    return Chain(
        ReplicatingBlock(channels, channels),
        PrefixAttention(channels),
        ReplicatingBlock(channels, channels),
    )


def replicating_conv(inputs: int, outputs: int) -> CausalConv3d:
    """A causal conv that sees the picture's edges, and the first frame, repeated beyond them."""
    return CausalConv3d(inputs, outputs, edges="replicate")


def _repeat_channels(x: Tensor, times: int) -> Tensor:
    """Put `times` copies of every channel of BCTHW beside it."""
    repeated = x.permute(0, 2, 3, 4, 1).repeat_interleave(times, dim=-1)
    return repeated.permute(0, 4, 1, 2, 3)
