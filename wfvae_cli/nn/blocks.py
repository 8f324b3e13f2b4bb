"""Residual and attention blocks."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wfvae_cli.nn.conv import Before, CausalConv3d, FrameConv2d
from wfvae_cli.nn.norm import PIXEL_NORMS, NormType, make_norm, silu
from wfvae_cli.nn.stream import Stream

FLASH_CHANNELS = 256
"""Channels of a head up to which PyTorch has flash attention on CUDA."""
SCORE_BYTES = 256 << 20
"""Size of the scores of a block of queries, in float32."""


def make_conv(
    dims: int, inputs: int, outputs: int, kernel: int, before: Before = "repeat"
) -> CausalConv3d | FrameConv2d:
    """Make a conv that keeps the size, of frames alone (`dims` 2) or causal (3)."""
    if dims == 3:
        return CausalConv3d(inputs, outputs, kernel, before=before)
    return FrameConv2d(inputs, outputs, kernel, padding=kernel // 2)


class ResidualBlock(nn.Module):
    """Norm, SiLU, conv 3, twice, plus the input; `dims` is 2 (frames alone) or 3 (causal)."""

    def __init__(
        self, dims: int, inputs: int, outputs: int, norm: NormType, before: Before = "repeat"
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, inputs, dims)
        self.conv1 = make_conv(dims, inputs, outputs, 3, before)
        self.norm2 = make_norm(norm, outputs, dims)
        self.conv2 = make_conv(dims, outputs, outputs, 3, before)
        if inputs != outputs:
            self.nin_shortcut = make_conv(dims, inputs, outputs, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        y = _norm_silu_conv(self.norm1, self.conv1, x, stream)
        y = _norm_silu_conv(self.norm2, self.conv2, y, stream, overwrite=True)
        if hasattr(self, "nin_shortcut"):
            x = self.nin_shortcut(x, stream)
        return y.add_(x)


def _norm_silu_conv(
    norm: nn.Module,
    conv: CausalConv3d | FrameConv2d,
    x: Tensor,
    stream: Stream,
    *,
    overwrite: bool = False,
) -> Tensor:
    """Apply the three in turn; the result may `overwrite` x where the conv knows how to."""
    if isinstance(norm, PIXEL_NORMS):
        y: Tensor = conv(x, stream, norm, overwrite=overwrite)
    else:
        y = conv(silu(norm(x)), stream)
    return y


class FrameAttention(nn.Module):
    """Single-head self-attention over the pixels of each frame, plus the input."""

    def __init__(self, dims: int, channels: int, norm: NormType) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels, dims)
        self.q = make_conv(dims, channels, channels, 1)
        self.k = make_conv(dims, channels, channels, 1)
        self.v = make_conv(dims, channels, channels, 1)
        self.proj_out = make_conv(dims, channels, channels, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        y: Tensor = self.norm(x)
        y = attend_in_frames(self.q(y, stream), self.k(y, stream), self.v(y, stream))
        y = self.proj_out(y, stream)
        return x + y


def attend_in_frames(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Single-head attention of BCTHW tensors over the pixels of each frame, scaled by C^-0.5."""
    b, channels, t, h, _ = query.shape
    # Only with adjacent channels is there a kernel that never holds a number per pair of pixels.
    q, k, v = (rearrange(x, "b c t h w -> (b t) (h w) c").contiguous() for x in (query, key, value))
    if query.device.type == "cuda" and channels > FLASH_CHANNELS:
        y = attend_in_query_blocks(q, k, v)
    else:
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    return rearrange(y, "(b t) (h w) c -> b c t h w", b=b, t=t, h=h)


def attend_in_query_blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Single-head attention by matrix products, a block of queries at a time.

    Args:
        query: batch, pixels, channels; likewise `key` and `value`.
        key: keys of the attention.
        value: values of the attention.
    """
    batch, pixels, channels = query.shape
    rows = max(SCORE_BYTES // (4 * batch * pixels), 1)
    parts = []
    for block in (query * channels**-0.5).split(rows, dim=1):
        scores = torch.bmm(block, key.transpose(1, 2))
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
        parts.append(torch.bmm(weights, value))
    return torch.cat(parts, dim=1)
