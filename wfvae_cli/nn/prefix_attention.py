"""Attention over a clip's past: the keys and values of earlier frames stay in its stream."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from wfvae_cli.nn.conv import CausalConv3d
from wfvae_cli.nn.norm import make_norm
from wfvae_cli.nn.stream import Stream, Streaming


class PrefixAttention(Streaming):
    """Single-head self-attention in which a frame sees all earlier frames and itself.

    From chunk to chunk a clip keeps the keys and values of all its frames, so that its state grows
    by `growth` numbers with every frame, at each position. An offloaded stream keeps them on the
    host while the other layers run.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = make_norm("rms", channels, dims=3)
        self.q = CausalConv3d(channels, channels, 1)
        self.k = CausalConv3d(channels, channels, 1)
        self.v = CausalConv3d(channels, channels, 1)
        self.proj_out = CausalConv3d(channels, channels, 1)
        self.growth = 2 * channels

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW."""
        y: Tensor = self.norm(x)
        query = self.q(y, stream)
        keys = self._with_past(self.k(y, stream), "keys", stream)
        values = self._with_past(self.v(y, stream), "values", stream)
        y = self.proj_out(attend_to_prefixes(query, keys, values), stream)
        return x + y

    def _with_past(self, x: Tensor, name: str, stream: Stream) -> Tensor:
        key = f"{self.key}.{name}"
        past = stream.past.pop(key, None)
        if past is not None:
            x = torch.cat((past.to(x.device), x), dim=2)
        if not stream.last:
            stream.past[key] = x.cpu() if stream.offloaded else x
        return x


def attend_to_prefixes(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Single-head attention, scaled by C^-0.5, of each frame to all frames up to itself.

    A frame's queries go through with the keys that they may see, so no mask is needed: one of all
    tokens by all tokens grows with the square of the clip's length.

    Args:
        query: BCTHW, of the newest T frames.
        keys: BCSHW, of these and all S - T earlier ones.
        values: BCSHW.

    Returns:
        BCTHW in channels-last memory.
    """
    _, _, t, h, w = query.shape
    earlier = keys.size(2) - t
    # Only with adjacent channels is there a kernel that never holds a number per pair of pixels.
    q, k, v = (
        rearrange(x.permute(0, 2, 3, 4, 1), "b t h w c -> b 1 (t h w) c").contiguous()
        for x in (query, keys, values)
    )
    frames = []
    for i in range(t):
        seen = (earlier + i + 1) * h * w
        own = q[:, :, i * h * w : (i + 1) * h * w]
        frames.append(F.scaled_dot_product_attention(own, k[:, :, :seen], v[:, :, :seen]))
    y = rearrange(torch.cat(frames, dim=2), "b 1 (t h w) c -> b t h w c", t=t, h=h, w=w)
    return y.permute(0, 4, 1, 2, 3)
