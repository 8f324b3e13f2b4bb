"""Blocks of LTX-2's VAE: causal ones, and ones that see a frame ahead and wait for it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wfvae_cli.nn.conv import CausalConv3d, Chain
from wfvae_cli.nn.edges import Edges, pad_edges
from wfvae_cli.nn.look_ahead import LookAheadConv3d
from wfvae_cli.nn.pixel_shuffle import (
    Factor,
    Order,
    channels_to_pixels,
    grouped_means,
    pixels_to_channels,
)
from wfvae_cli.nn.stream import Stream, Streaming, align

Resampling = Literal["spatial", "temporal", "spatiotemporal", "conv"]
"""Resampling of a level, by the names in diffusers' configs; only an encoder has `conv`."""
FACTORS: dict[Resampling, Factor] = {
    "spatial": (1, 2, 2),
    "temporal": (2, 1, 1),
    "spatiotemporal": (2, 2, 2),
    "conv": (2, 2, 2),
}
"""Frames, rows and columns that become one."""
_ORDER: Order = "c t h w"


def plain_rms_norm(x: Tensor) -> Tensor:
    """RMS norm over the channels of BCTHW, without weights: `x / sqrt(mean(x^2) + 1e-8)`."""
    return F.rms_norm(x.movedim(1, -1), (x.size(1),), eps=1e-8).movedim(-1, 1)


class WaitingBlock(Streaming):
    """A residual block; where its convs see ahead, the input waits for their results.

    Args:
        inputs: channels that come in.
        outputs: channels of the result; where there are others, the shortcut is a LayerNorm and a
            1x1x1 convolution.
        edges: spatial padding mode of the convs.
        ahead: whether each of them sees one frame ahead.
        eps: of the shortcut's LayerNorm.
    """

    def __init__(
        self, inputs: int, outputs: int, *, edges: Edges, ahead: bool, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.conv1 = LookAheadConv3d(inputs, outputs, edges=edges, ahead=ahead)
        self.conv2 = LookAheadConv3d(outputs, outputs, edges=edges, ahead=ahead)
        self.norm3: nn.LayerNorm | None = None
        if inputs != outputs:
            self.norm3 = nn.LayerNorm(inputs, eps=eps)
            self.conv_shortcut = CausalConv3d(inputs, outputs, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        y: Tensor = self.conv1(x, stream, plain_rms_norm)
        y = self.conv2(y, stream, plain_rms_norm, overwrite=True)
        x = align(x, y.size(2), self.key, stream)
        if not y.size(2):
            return y
        if self.norm3 is not None:
            x = self.conv_shortcut(self.norm3(x.movedim(1, -1)).movedim(-1, 1), stream)
        return y.add_(x)


class StridedDownsample(CausalConv3d):
    """Halve height, width and time (1 + 2k frames to 1 + k) with a strided causal conv."""

    def __init__(self, channels: int, *, edges: Edges) -> None:
        super().__init__(channels, channels, 3, stride=2)
        self._around = edges

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        """Downsample the next chunk, BCTHW."""
        return super().forward(pad_edges(x, self._around), stream)


class BlockDownsample(nn.Module):
    """Move the pixels of a causal conv into channels, and add the input's, averaged in groups.

    Where time is halved (1 + 2k frames to 1 + k), the clip's first frame comes twice.
    """

    def __init__(self, inputs: int, outputs: int, factor: Factor, *, edges: Edges) -> None:
        super().__init__()
        t, h, w = self.factor = factor
        self.outputs = outputs
        self.conv = CausalConv3d(inputs, outputs // (t * h * w), edges=edges)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Downsample the next chunk, BCTHW."""
        if stream.first and self.factor[0] > 1:
            x = torch.cat((x[:, :, :1], x), dim=2)
        y = pixels_to_channels(self.conv(x, stream), self.factor, _ORDER)
        moved = pixels_to_channels(x, self.factor, _ORDER)
        return y.add_(grouped_means(moved, self.outputs))


class BlockUpsample(Streaming):
    """Move a conv's channels out into pixels, and add the input's, repeated, if `residual`.

    Where time is doubled (1 + k frames to 1 + 2k), the first of the clip's frames is dropped.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        factor: Factor,
        *,
        residual: bool,
        edges: Edges,
        ahead: bool,
    ) -> None:
        super().__init__()
        t, h, w = self.factor = factor
        block = t * h * w
        self.conv = LookAheadConv3d(inputs, outputs * block, edges=edges, ahead=ahead)
        self.repeats = outputs * block // inputs if residual else 0

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Upsample the next chunk, BCTHW."""
        y: Tensor = self.conv(x, stream)
        if self.repeats:
            x = align(x, y.size(2), self.key, stream)
        if not y.size(2):
            return y
        y = channels_to_pixels(y, self.factor, _ORDER)
        if self.repeats:
            moved = channels_to_pixels(x, self.factor, _ORDER).movedim(1, -1)
            y.add_(moved.repeat(1, 1, 1, 1, self.repeats).movedim(-1, 1))
        return self._without_first(y, stream) if self.factor[0] > 1 else y

    def _without_first(self, y: Tensor, stream: Stream) -> Tensor:
        """Drop the clip's first frame, which need not come with the stream's first chunk."""
        begun = f"{self.key}.begun"
        if begun in stream.past:
            return y
        if not stream.last:
            stream.past[begun] = y[:, :, :0].clone()
        return y[:, :, 1:]


class DownLevel(nn.Module):
    """Residual blocks, and what resamples their result."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, kind: Resampling | None, *, edges: Edges
    ) -> None:
        super().__init__()
        self.resnets = Chain(
            *(WaitingBlock(inputs, inputs, edges=edges, ahead=False) for _ in range(blocks))
        )
        self.downsamplers = Chain()
        if kind == "conv":
            self.downsamplers.append(StridedDownsample(inputs, edges=edges))
        elif kind is not None:
            factor = FACTORS[kind]
            self.downsamplers.append(BlockDownsample(inputs, outputs, factor, edges=edges))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        y: Tensor = self.downsamplers(self.resnets(x, stream), stream)
        return y


class SameLevel(nn.Module):
    """Residual blocks that keep size and channels."""

    def __init__(self, channels: int, blocks: int, *, edges: Edges, ahead: bool) -> None:
        super().__init__()
        self.resnets = Chain(
            *(WaitingBlock(channels, channels, edges=edges, ahead=ahead) for _ in range(blocks))
        )

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        y: Tensor = self.resnets(x, stream)
        return y
