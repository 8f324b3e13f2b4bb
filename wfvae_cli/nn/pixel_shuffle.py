"""Pixels and frames into channels and back, as levels that have no strided convs resample."""

from __future__ import annotations

from typing import Literal

from einops import rearrange
from torch import Tensor

Factor = tuple[int, int, int]
"""Frames, rows and columns that become channels together."""
Order = Literal["c t h w", "c t w h", "t h w c"]
"""Order of channel, frame, row and column within a block, from slowest to fastest."""


def pixels_to_channels(x: Tensor, factor: Factor, order: Order) -> Tensor:
    """Move blocks of `factor` frames, rows and columns into channels.

    Args:
        x: BCTHW, every size a multiple of its factor.
        factor: the block's size.
        order: of the resulting channels.

    Returns:
        BCTHW in channels-last memory.
    """
    t, h, w = factor
    y = rearrange(
        x.permute(0, 2, 3, 4, 1),
        f"b (T t) (H h) (W w) c -> b T H W ({order})",
        t=t,
        h=h,
        w=w,
    )
    return y.permute(0, 4, 1, 2, 3)


def channels_to_pixels(x: Tensor, factor: Factor, order: Order) -> Tensor:
    """Undo `pixels_to_channels`.

    Args:
        x: BCTHW, the channels a multiple of the block's size.
        factor: the block's size.
        order: of the channels.

    Returns:
        BCTHW in channels-last memory.
    """
    t, h, w = factor
    y = rearrange(
        x.permute(0, 2, 3, 4, 1),
        f"b T H W ({order}) -> b (T t) (H h) (W w) c",
        t=t,
        h=h,
        w=w,
    )
    return y.permute(0, 4, 1, 2, 3)


def grouped_means(x: Tensor, channels: int) -> Tensor:
    """Average groups of adjacent channels, so that `channels` are left.

    Args:
        x: BCTHW, its channels a multiple of `channels`.
        channels: of the result.

    Returns:
        BCTHW in channels-last memory.
    """
    groups = rearrange(x, "b (c g) t h w -> b t h w c g", c=channels)
    return groups.mean(dim=-1).permute(0, 4, 1, 2, 3)
