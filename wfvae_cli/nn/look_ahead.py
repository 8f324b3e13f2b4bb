"""Convolutions that see one frame ahead, in streams."""

from __future__ import annotations

import torch
from torch import Tensor

from wfvae_cli.nn.conv import CausalConv3d
from wfvae_cli.nn.edges import Edges
from wfvae_cli.nn.joined import PixelNorm
from wfvae_cli.nn.stream import Stream


class LookAheadConv3d(CausalConv3d):
    """A 3x3x3 convolution that sees the past and, if `ahead`, one frame of the future.

    With `ahead` every output sees one frame before it and one behind. It is the causal
    convolution one frame late: the first result is dropped, and the clip's last frame comes twice.
    So a stream's first chunk gives one frame less than came in, and its last chunk one more.
    """

    def __init__(
        self, inputs: int, outputs: int, *, edges: Edges = "zeros", ahead: bool = True
    ) -> None:
        super().__init__(inputs, outputs, 3, edges=edges)
        self.ahead = ahead

    def forward(
        self,
        x: Tensor,
        stream: Stream,
        norm: PixelNorm | None = None,
        *,
        overwrite: bool = False,
    ) -> Tensor:
        """Convolve the next chunk, BCTHW; without frames while the layers before wait for more.

        Args:
            x: the input chunk.
            stream: the clip's.
            norm: comes before the convolution, with SiLU after it.
            overwrite: whether the result may take the place of `x` in memory.
        """
        if not x.size(2):
            return x.new_empty(x.size(0), self.conv.out_channels, *x.shape[2:])
        starts = self.key not in stream.past
        if self.ahead and stream.last:
            x, overwrite = torch.cat((x, x[:, :, -1:]), dim=2), True
        y = super().forward(x, stream, norm, overwrite=overwrite)
        return y[:, :, 1:] if self.ahead and starts else y
