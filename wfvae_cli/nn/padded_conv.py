"""3x3x3 convolutions that repeat or mirror the picture at its edges, or see one frame ahead."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wfvae_cli.nn.conv import CausalConv3d
from wfvae_cli.nn.joined import PixelNorm
from wfvae_cli.nn.stream import Stream

Edges = Literal["zeros", "reflect", "replicate"]
"""Spatial padding mode of a convolution, by PyTorch's names."""

_SOURCES = {"reflect": (1, -2), "replicate": (0, -1)}
"""The rows (or columns) that stand before the first one and behind the last one."""


class PaddedConv3d(CausalConv3d):
    """A 3x3x3 convolution; in time it repeats the clip's first frame, and its last if `ahead`.

    With `ahead` every output sees one frame before it and one behind. It is the causal
    convolution one frame late: the first result is dropped, and the clip's last frame comes twice.
    So a stream's first chunk gives one frame less than came in, and its last chunk one more.
    """

    def __init__(
        self, inputs: int, outputs: int, *, edges: Edges = "zeros", ahead: bool = False
    ) -> None:
        super().__init__(inputs, outputs, 3)
        self.edges = edges
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
        if self.edges == "zeros":
            y = super().forward(x, stream, norm, overwrite=overwrite)
        else:
            # The padding takes part in the convolution, and its results are cut off again.
            padded = pad_edges(x, self.edges)
            y = super().forward(padded, stream, norm, overwrite=True)[..., 1:-1, 1:-1]
        return y[:, :, 1:] if self.ahead and starts else y


def pad_edges(x: Tensor, edges: Edges) -> Tensor:
    """Put one row and one column around every frame of BCTHW, in channels-last memory.

    `reflect` needs at least two rows and two columns.
    """
    b, c, t, h, w = x.shape
    y = x.new_empty(b, t, h + 2, w + 2, c).permute(0, 4, 1, 2, 3)
    y[..., 1:-1, 1:-1] = x
    if edges == "zeros":
        y[..., 0, :] = y[..., -1, :] = 0
        y[..., 0] = y[..., -1] = 0
        return y
    first, last = _SOURCES[edges]
    y[..., 0, 1:-1] = x[..., first, :]
    y[..., -1, 1:-1] = x[..., last, :]
    inner = y[..., 1:-1]
    y[..., 0] = inner[..., first]
    y[..., -1] = inner[..., last]
    return y
