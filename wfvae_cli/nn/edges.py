"""Rows and columns that stand around a picture where a convolution looks beyond its edges."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Edges = Literal["zeros", "reflect", "replicate"]
"""Spatial padding mode of a convolution, by PyTorch's names."""

_INWARDS = {"reflect": 1, "replicate": 0}
"""How far from the picture's edge the row (or column) lies that stands beyond the edge."""


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
    else:
        fill_edges(y, edges, bottom=h + 1, right=w + 1)
    return y


def fill_edges(
    x: Tensor, edges: Edges, *, top: bool = True, bottom: int | None, right: int
) -> None:
    """Write the rows and columns around a picture that lies within `x`, BCTHW, from its own.

    Args:
        x: the picture begins at row and column 1.
        edges: `reflect` or `replicate`.
        top: whether row 0 lies above the picture.
        bottom: the row below the picture; None where there is none.
        right: the column beside it.
    """
    inwards = _INWARDS[edges]
    if top:
        x[:, :, :, 0] = x[:, :, :, 1 + inwards]
    if bottom is not None:
        x[:, :, :, bottom] = x[:, :, :, bottom - 1 - inwards]
    x[..., 0] = x[..., 1 + inwards]
    x[..., right] = x[..., right - 1 - inwards]
