"""Residual and attention blocks."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from wfvae_cli.nn.conv import CausalConv3d, FrameConv2d
from wfvae_cli.nn.norm import NormType, make_norm, silu
from wfvae_cli.nn.stream import Stream


def _conv(dims: int, inputs: int, outputs: int, kernel: int) -> CausalConv3d | FrameConv2d:
    if dims == 3:
        return CausalConv3d(inputs, outputs, kernel)
    return FrameConv2d(inputs, outputs, kernel, padding=kernel // 2)


class ResidualBlock(nn.Module):
    """Norm, SiLU, conv 3, twice, plus the input; `dims` is 2 (frames alone) or 3 (causal)."""

    def __init__(self, dims: int, inputs: int, outputs: int, norm: NormType) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, inputs, dims)
        self.conv1 = _conv(dims, inputs, outputs, 3)
        self.norm2 = make_norm(norm, outputs, dims)
        self.conv2 = _conv(dims, outputs, outputs, 3)
        if inputs != outputs:
            self.nin_shortcut = _conv(dims, inputs, outputs, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        y = self.conv1(silu(self.norm1(x)), stream)
        y = self.conv2(silu(self.norm2(y)), stream)
        if hasattr(self, "nin_shortcut"):
            x = self.nin_shortcut(x, stream)
        return y.add_(x)


class FrameAttention(nn.Module):
    """Single-head self-attention over the pixels of each frame, plus the input."""

    def __init__(self, dims: int, channels: int, norm: NormType) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels, dims)
        self.q = _conv(dims, channels, channels, 1)
        self.k = _conv(dims, channels, channels, 1)
        self.v = _conv(dims, channels, channels, 1)
        self.proj_out = _conv(dims, channels, channels, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        b, _, t, h, _ = x.shape
        y = self.norm(x)
        q, k, v = (
            rearrange(layer(y, stream), "b c t h w -> (b t) 1 (h w) c")
            for layer in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        y = rearrange(y, "(b t) 1 (h w) c -> b c t h w", b=b, t=t, h=h)
        return x + self.proj_out(y, stream)
