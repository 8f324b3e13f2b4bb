"""Fine structure: the dots and lines that a small video VAE leaves where a picture is smooth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8
"""Pixels, high and wide, over which structure is told from noise."""


def second_difference(x: Tensor, dim: int) -> Tensor:
    """Along one axis, two shorter: 1 for lines of two pixels of amplitude 1, 0 for slopes."""
    count = x.size(dim) - 2
    before, middle, after = (x.narrow(dim, start, count) for start in range(3))
    return (2 * middle - before - after) / 4


def fine(x: Tensor) -> Tensor:
    """What is not smooth along y, along x, along both: BCTHW to 3 B C T H-2 W-2."""
    rows, columns = second_difference(x, -2), second_difference(x, -1)
    return torch.stack((rows[..., 1:-1], columns[..., 1:-1, :], second_difference(rows, -1)), dim=0)


def lines(structure: Tensor, stride: int = BLOCK) -> Tensor:
    """Amplitude, of either sign, of lines of two pixels that keep on over a block.

    Args:
        structure: of `fine`, 3 B C T H W.
        stride: pixels from block to block.

    Returns:
        3 B C T h w: of rows, of columns, of both at once.
    """
    up_down, left_right = (1 - 2.0 * (torch.arange(n) % 2) for n in structure.shape[-2:])
    rows, columns = up_down[:, None].to(structure.device), left_right.to(structure.device)
    waves = (rows, columns, rows * columns)
    return torch.stack([blocks(s * w, stride) for s, w in zip(structure, waves, strict=True)])


def blocks(x: Tensor, stride: int) -> Tensor:
    """Mean of each block, over the last two axes of four or five."""
    return functional.avg_pool3d(x, (1, BLOCK, BLOCK), (1, stride, stride))
