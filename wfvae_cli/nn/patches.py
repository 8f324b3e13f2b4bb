"""Pixels moved into channels and back, and the shortcuts that do so without weights.

All expect BCTHW and give it in channels-last memory.
"""

from __future__ import annotations

from itertools import product

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def pixels_to_channels(x: Tensor, size: int) -> Tensor:
    """Move patches of `size` x `size` pixels of every frame into channels.

    Args:
        x: BCTHW, height and width multiples of `size`.
        size: pixels of a patch along each side.

    Returns:
        BCTHW with channels ordered by (channel, column in the patch, row in the patch).
    """
    pattern = "b c t (h row) (w column) -> b t h w (c column row)"
    return rearrange(x, pattern, row=size, column=size).movedim(-1, 1)


def channels_to_pixels(x: Tensor, size: int) -> Tensor:
    """Undo `pixels_to_channels`."""
    pattern = "b (c column row) t h w -> b t (h row) (w column) c"
    return rearrange(x, pattern, row=size, column=size).movedim(-1, 1)


def average_blocks(x: Tensor, channels: int, *, time: int, space: int) -> Tensor:
    """Shrink a chunk: blocks of pixels become channels, whose groups are averaged.

    Only a clip's first chunk has frames that make no whole block: zeros stand in front of it.

    Args:
        x: BCTHW; its height and width are multiples of `space`.
        channels: of the result; divides those of `x` times the pixels of a block.
        time: frames of a block.
        space: rows and columns of a block.
    """
    x = F.pad(x, (0, 0, 0, 0, -x.size(2) % time, 0))
    b, _, t, h, w = x.shape
    pattern = "b c (t ft) (h fh) (w fw) -> b t h w (c ft fh fw)"
    blocks = rearrange(x, pattern, ft=time, fh=space, fw=space)
    groups = blocks.view(b, t // time, h // space, w // space, channels, -1)
    return groups.mean(dim=-1).movedim(-1, 1)


def add_repeated_blocks(y: Tensor, x: Tensor, *, time: int, space: int, first: bool) -> Tensor:
    """Enlarge a chunk, repeated channels becoming blocks of pixels, and add that to `y` in place.

    It is added pixel of a block by pixel, so that the enlarged chunk is never held.

    Args:
        y: BCTHW of the enlarged size; its channels times the pixels of a block are a multiple of
            those of `x`.
        x: BCTHW.
        time: frames of a block.
        space: rows and columns of a block.
        first: whether this is the clip's first chunk, whose first block gives one frame alone.

    Returns:
        `y`.
    """
    pixels = time * space**2
    repeats = y.size(1) * pixels // x.size(1)
    channels = pixels * torch.arange(y.size(1), device=x.device)
    for pixel, (i, row, column) in enumerate(product(range(time), range(space), range(space))):
        source = x.index_select(1, (channels + pixel) // repeats)
        begin = i
        if first and i < time - 1:  # of the first block there is the last frame alone
            source, begin = source[:, :, 1:], i + 1
        elif first:
            begin = 0
        y[:, :, begin::time, row::space, column::space] += source
    return y
