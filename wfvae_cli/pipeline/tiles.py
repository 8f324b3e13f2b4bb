"""Overlapping tiles of a picture, blended where they meet.

Not exact: a tile's attention sees that tile alone, and its borders are padded where the picture
goes on. Every tile has its own state, so that a clip in chunks is the clip whole, tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wfvae_cli.errors import UsageError
from wfvae_cli.nn.row_bands import run_part
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.options import Tile
from wfvae_cli.strides import Strides

_OVERLAP = 4  # the part of a tile's side that its neighbour has, too: a quarter
LEAST_POSITIONS = _OVERLAP


@dataclass(frozen=True)
class Axis:
    """Equal tiles along one side of a picture, in latent positions."""

    size: int
    """Length of the picture's side, in latent positions."""
    tile: int
    """Length of each tile; `size` where there is only one."""
    starts: tuple[int, ...]

    @classmethod
    def of(cls, size: int, tile: int) -> Axis:
        """Spread tiles evenly, each sharing at least a quarter with the next.

        Args:
            size: of the picture, at least 1.
            tile: of a tile, at least 4.
        """
        if tile >= size:
            return cls(size, size, (0,))
        steps = -(-(size - tile) // (tile - tile // _OVERLAP))
        return cls(size, tile, tuple(i * (size - tile) // steps for i in range(steps + 1)))

    def weights(self, unit: int = 1) -> Tensor:
        """Return the blending weight of each tile at each of its rows (or columns): linear ramps.

        Args:
            unit: rows of the result that a latent position makes.

        Returns:
            float32, `[tiles, tile * unit]`. Where tiles overlap, theirs sum to 1.
        """
        if len(self.starts) == 1:
            return torch.ones(1, self.tile * unit)
        starts = torch.tensor(self.starts, dtype=torch.float64)
        middles = (starts[1:] + starts[:-1] + self.tile) / 2  # of what two neighbours share
        ramp = self.tile // _OVERLAP
        at = (torch.arange(self.tile * unit) + 0.5) / unit + starts[:, None]
        # A tile counts for as much as its own ramp has risen and the next one's has not.
        infinity = middles.new_tensor([torch.inf])
        edges = torch.cat((-infinity, middles, infinity))
        risen = ((at - edges[:-1, None]) / ramp + 0.5).clamp(0, 1)
        following = ((at - edges[1:, None]) / ramp + 0.5).clamp(0, 1)
        return (risen - following).float()


@dataclass(frozen=True)
class Grid:
    """The tiles of a picture."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, height: int, width: int, tile: int, strides: Strides) -> Grid:
        """Tiles of about `tile` pixels a side for a picture of padded `height` and `width`."""
        return cls(
            Axis.of(height // strides.height, tile // strides.height),
            Axis.of(width // strides.width, tile // strides.width),
        )

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.rows.starts) * len(self.columns.starts)


def check_tile(tile: Tile, strides: Strides) -> None:
    """Refuse tiles that are no whole number of latent positions, or too few for an overlap.

    Models that take certain sizes of pictures only have tiles of their own, and take no others.

    Raises:
        UsageError: such tiles were asked for.
    """
    if isinstance(tile, int) and strides.heights is not None:
        raise UsageError(
            f"--tile {tile} cannot be used with this model, which cuts pictures into overlapping "
            "tiles of its own: leave --tile out"
        )
    unit = max(strides.height, strides.width)
    if isinstance(tile, int) and (tile % unit or tile < LEAST_POSITIONS * unit):
        near = unit * max(LEAST_POSITIONS, round(tile / unit))
        raise UsageError(
            f"--tile: expected a multiple of {unit} pixels for this model, at least "
            f"{LEAST_POSITIONS * unit}, got {tile}; the nearest is {near}"
        )


def in_tiles(
    run: Callable[[Tensor, Stream], Tensor],
    x: Tensor,
    stream: Stream,
    grid: Grid,
    *,
    before: tuple[int, int] = (1, 1),
    after: tuple[int, int] = (1, 1),
) -> Tensor:
    """Send the next chunk of a clip through `run` tile by tile.

    Args:
        run: takes a tile's chunk and that tile's stream.
        x: BCTHW.
        stream: state of the clip's earlier chunks; changed in place.
        grid: of the picture; the same for all of a clip's chunks.
        before: rows and columns of `x` that a latent position has.
        after: rows and columns of the result that it has.

    Returns:
        BCTHW in float32, blended.
    """
    rows, columns = grid.rows, grid.columns
    down, across = rows.weights(after[0]).to(x.device), columns.weights(after[1]).to(x.device)
    result: Tensor | None = None
    for i, top in enumerate(rows.starts):
        for j, left in enumerate(columns.starts):
            part = _window(x, rows, top, columns, left, before)
            y = run_part(run, part, stream, f"tile{i},{j}").float()
            if result is None:
                b, c, t, _, _ = y.shape
                height, width = rows.size * after[0], columns.size * after[1]
                result = y.new_zeros(b, t, height, width, c).permute(0, 4, 1, 2, 3)
            target = _window(result, rows, top, columns, left, after)
            target += y * (down[i][:, None] * across[j])
    assert result is not None, "a grid has at least one tile"
    stream.first = False
    return result


def _window(
    x: Tensor, rows: Axis, top: int, columns: Axis, left: int, unit: tuple[int, int]
) -> Tensor:
    """View of one tile of BCTHW."""
    height, width = unit
    return x[
        ...,
        top * height : (top + rows.tile) * height,
        left * width : (left + columns.tile) * width,
    ]
