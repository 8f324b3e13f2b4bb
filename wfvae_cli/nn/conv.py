"""Convolutions over video: causal in time, and on every frame alone.

All of them expect BCTHW in channels-last memory, where turning BCTHW into frames costs nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from wfvae_cli.nn.stream import Stream, Streaming

Before = Literal["repeat", "zeros"]
"""What a causal conv sees in front of a clip: copies of its first frame, or zeros."""


class CausalConv3d(Streaming):
    """A convolution that sees the present and the past of a clip, never its future.

    In front of the clip stands what `before` says; in space it is padded with zeros. Between
    chunks it keeps the input frames that the next output still needs. A caller may put a past
    of its own into the stream before the first call.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int, int] = 3,
        stride: int | tuple[int, int, int] = 1,
        before: Before = "repeat",
    ) -> None:
        super().__init__()
        self.before = before
        size = (kernel, kernel, kernel) if isinstance(kernel, int) else kernel
        # A strided conv is padded on the right and bottom only, by its caller.
        padding = (0, size[1] // 2, size[2] // 2) if stride == 1 else 0
        self.conv = nn.Conv3d(inputs, outputs, size, stride, padding)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Convolve the next chunk, BCTHW."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if kernel == 1:
            return self._convolve(x)
        past = stream.past.get(self.key)
        if past is None and x.size(2) == 1:
            y = self._convolve_still(x)
            if stream.last:
                return y
            x = torch.cat((self._past_of(x), x), dim=2)
        else:
            x = torch.cat((self._past_of(x) if past is None else past, x), dim=2)
            y = self._convolve(x)
        if not stream.last:
            stream.past[self.key] = x[:, :, y.size(2) * stride :].clone()
        return y

    def _past_of(self, x: Tensor) -> Tensor:
        """Make what stands in front of a clip that starts with `x`."""
        frame = x[:, :, :1] if self.before == "repeat" else torch.zeros_like(x[:, :, :1])
        return frame.expand(-1, -1, self.conv.kernel_size[0] - 1, -1, -1)

    def _convolve(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y

    def _convolve_still(self, x: Tensor) -> Tensor:
        """Convolve a clip's first frame alone, in 2D.

        All temporal taps see that frame where it is repeated; only the last one does, where
        zeros come before it.
        """
        weight = self.conv.weight[:, :, -1]
        if self.before == "repeat":
            exact = torch.promote_types(x.dtype, torch.float32)
            weight = self.conv.weight.sum(dim=2, dtype=exact).to(x.dtype)
        _, height, width = self.conv.stride
        y = F.conv2d(x.squeeze(2), weight, self.conv.bias, (height, width), self.conv.padding[1:])
        return y.unsqueeze(2)


class FrameConv2d(nn.Conv2d):
    """A 2D convolution of every frame of BCTHW."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Convolve every frame; frames know nothing of each other, so `stream` is not used."""
        del stream
        y = super().forward(rearrange(x, "b c t h w -> (b t) c h w"))
        return rearrange(y, "(b t) c h w -> b c t h w", b=x.size(0))


class Chain(nn.ModuleList):
    """Layers one after the other, each given the stream."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(layers)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Send the next chunk, BCTHW, through all layers."""
        for layer in self:
            x = layer(x, stream)
        return x
