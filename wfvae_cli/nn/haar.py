"""Haar wavelet transforms of video and images, as additions in channels-last memory.

The subbands of a transform are stacked on the channel axis, subband-major: all channels of the
low band first. Forward and inverse use the same gain (WF-VAE, arXiv 2411.17459, section 3.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from wfvae_cli.nn.stream import Stream

GAIN_3D = 0.3536
"""Coefficient of the published filters, rounded to four digits: not exactly 1/sqrt(8)."""
GAIN_2D = 0.5


def haar_2d(x: Tensor) -> Tensor:
    """Transform every frame of `x`, BCTHW with even H and W.

    Returns:
        B, 4C, T, H/2, W/2: the bands LL, flip along height, flip along width, both.
    """
    y = (x * GAIN_2D).permute(0, 2, 3, 4, 1)
    return _split(_split(y, dim=2), dim=3).permute(0, 4, 1, 2, 3)


def inverse_haar_2d(bands: Tensor) -> Tensor:
    """Undo `haar_2d`: B, 4C, T, H, W to B, C, T, 2H, 2W."""
    y = (bands * GAIN_2D).permute(0, 2, 3, 4, 1)
    b, t, h, w, c = y.shape
    out = y.new_empty(b, t, 2 * h, 2 * w, c // 4)
    for k, column in enumerate(_sum_and_difference(y)):
        for j, pixel in enumerate(_sum_and_difference(column)):
            out[:, :, j::2, k::2] = pixel
    return out.permute(0, 4, 1, 2, 3)


def haar_3d(x: Tensor) -> Tensor:
    """Transform `x`, BCTHW with even T, H and W, in blocks of 2x2x2.

    Returns:
        B, 8C, T/2, H/2, W/2: the bands LLL, LLH, LHL, LHH, HLL, HLH, HHL, HHH, their letters
        in the order (time, height, width).
    """
    y = (x * GAIN_3D).permute(0, 2, 3, 4, 1)
    return _split(_split(_split(y, dim=3), dim=2), dim=1).permute(0, 4, 1, 2, 3)


def inverse_haar_3d(bands: Tensor) -> Tensor:
    """Undo `haar_3d`: B, 8C, T, H, W to B, C, 2T, 2H, 2W."""
    y = (bands * GAIN_3D).permute(0, 2, 3, 4, 1)
    b, t, h, w, c = y.shape
    out = y.new_empty(b, 2 * t, 2 * h, 2 * w, c // 8)
    for i, plane in enumerate(_sum_and_difference(y)):
        for j, row in enumerate(_sum_and_difference(plane)):
            for k, pixel in enumerate(_sum_and_difference(row)):
                out[:, i::2, j::2, k::2] = pixel
    return out.permute(0, 4, 1, 2, 3)


def causal_haar_3d(x: Tensor, stream: Stream) -> Tensor:
    """Transform the next chunk of a clip; a copy of the clip's first frame goes in front."""
    return haar_3d(torch.cat((x[:, :, :1], x), dim=2) if stream.first else x)


def inverse_causal_haar_3d(bands: Tensor, stream: Stream) -> Tensor:
    """Undo `causal_haar_3d`: the next chunk, without the copy of the clip's first frame."""
    x = inverse_haar_3d(bands)
    return x[:, :, 1:] if stream.first else x


def published_filter(name: str) -> Tensor | None:
    """Give the filter that published checkpoints store as tensor `name`, where it is one.

    They carry the constant filters of their wavelet modules under names such as
    `encoder.wavelet_transform_in.gh_v_conv.conv.weight` or `….inverse_wavelet_transform_l1.ad`.
    """
    module, _, leaf = name.removesuffix(".conv.weight").rpartition(".")
    if "wavelet_transform" not in module:
        return None
    signs = _PUBLISHED_SIGNS.get(leaf.removesuffix("_conv"))
    if signs is None:
        return None
    bands = torch.tensor(1.0)
    for sign in signs:
        bands = bands[..., None] * torch.tensor([1.0, float(sign)])
    return (bands * (GAIN_3D if len(signs) == 3 else GAIN_2D))[None, None]


# Published filter name -> sign of the second element along (time,) height, width.
_PUBLISHED_SIGNS = {
    "h": (1, 1, 1),
    "g": (1, 1, -1),
    "hh": (1, -1, 1),
    "gh": (1, -1, -1),
    "h_v": (-1, 1, 1),
    "g_v": (-1, 1, -1),
    "hh_v": (-1, -1, 1),
    "gh_v": (-1, -1, -1),
    "aa": (1, 1),
    "ad": (-1, 1),
    "da": (1, -1),
    "dd": (-1, -1),
}


def _split(x: Tensor, dim: int) -> Tensor:
    """Stack sums, then differences, of neighbours along `dim` of BTHWC on the channels."""
    even, odd = x.reshape(*x.shape[:dim], -1, 2, *x.shape[dim + 1 :]).unbind(dim + 1)
    return torch.cat((even + odd, even - odd), dim=-1)


def _sum_and_difference(x: Tensor) -> tuple[Tensor, Tensor]:
    """Give even and odd neighbours from the outermost low and high bands of BTHWC."""
    low, high = x.chunk(2, dim=-1)
    return low + high, low - high
