"""Convolutions over video: causal in time, and on every frame alone.

All of them expect BCTHW in channels-last memory, where turning BCTHW into frames costs nothing.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from wfvae_cli.nn.stream import Stream, Streaming


class CausalConv3d(Streaming):
    """A convolution that sees the present and the past of a clip, never its future.

    In front of the clip its first frame is repeated; in space it is padded with zeros. Between
    chunks it keeps the input frames that the next output still needs.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        # A strided conv is padded on the right and bottom only, by its caller.
        padding = (0, kernel // 2, kernel // 2) if stride == 1 else 0
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Convolve the next chunk, BCTHW."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if kernel == 1:
            return self._convolve(x)
        if stream.first and x.size(2) == 1:
            y = self._convolve_still(x)
            x = x.expand(-1, -1, kernel, -1, -1)
        else:
            past = x[:, :, :1].expand(-1, -1, kernel - 1, -1, -1) if stream.first else None
            x = torch.cat((stream.past[self.key] if past is None else past, x), dim=2)
            y = self._convolve(x)
        if not stream.last:
            stream.past[self.key] = x[:, :, y.size(2) * stride :].clone()
        return y

    def _convolve(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y

    def _convolve_still(self, x: Tensor) -> Tensor:
        """What the conv gives for a clip's first frame: its temporal taps all see that frame."""
        weight = self.conv.weight.float().sum(dim=2).to(x.dtype)
        _, height, width = self.conv.stride
        y = F.conv2d(
            x.squeeze(2), weight, self.conv.bias, (height, width), self.conv.padding[1:]
        )
        return y.unsqueeze(2)


class FrameConv2d(nn.Conv2d):
    """A 2D convolution of every frame of BCTHW."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Convolve every frame; frames know nothing of each other, so `stream` is not used."""
        del stream
        y = super().forward(rearrange(x, "b c t h w -> (b t) c h w"))
        return rearrange(y, "(b t) c h w -> b c t h w", b=x.size(0))


class Chain(nn.Sequential):
    """Layers one after the other, each given the stream."""

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Send the next chunk, BCTHW, through all layers."""
        for layer in self:
            x = layer(x, stream)
        return x
