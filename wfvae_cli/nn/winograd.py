"""3x3 and 3x3x3 convolutions on CPUs with a quarter of the multiplications.

Winograd's minimal filtering as convolutional networks use it (Lavin and Gray 2016, arXiv
1509.09308): F(4x4, 3x3) in space, the ordinary sum over taps in time. Every 4x4 outputs come from
a 6x6 tile of the input by 36 products where a convolution takes 144; a linear map of the tile goes
before the products, another one of the results after them.

The points are 0, 2/3, -2/3, 3/2, -3/2 and infinity. Reciprocal points round least (Alam et al.
2022, arXiv 2201.10369): with 384 channels the result is as far from that of float64 as a direct
float32 convolution's (1.2e-6 against 1.0e-6 of the output's standard deviation), where the usual
0, 1, -1, 2, -2 give 2.8e-6. Time is left alone, so that where a clip is cut into chunks changes no
tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wfvae_cli.nn.arithmetic import convolved_in

TILE = 4
"""Rows and columns of outputs that a tile gives."""
_INPUTS = TILE + 2
_PRODUCTS = _INPUTS**2
_POINTS = (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))

_FRAMES = 4
"""For which it is decided."""
_WEIGHT_TILES = {1: 150, 3: 240}
"""By taps in time: mapping the weights, and oneDNN's rearranging of them, count as these tiles'
products. With 3 taps so many that no chunk of a single frame loses: with 768 channels it takes 1.7
times as long as a direct convolution at 16x16, as long at 24x24, and 0.77 times at 32x32."""
_MAP_PRODUCTS = 16000
"""The maps of a tile take as long as so many of its products with one channel at the other end."""
_LEAST_GAIN = 1.15
"""Estimated speed-up below which Winograd is not used: the cost of memory traffic varies by CPU."""
_TILES_AT_A_TIME = 512
"""Tiles of all frames that are worked on at a time, unless a row has more: few, so that they stay
in a cache; many, so that oneDNN's rearranging of the weights for each call takes little time."""
_WEIGHT_BYTES = 32 << 20
"""Size of the mapped weights that are worked on at a time: nine times what they are made of in 2D,
four in 3D, which for a whole layer would be fetched from memory instead of a cache."""


def is_faster(taps: int, inputs: int, outputs: int, height: int, width: int) -> bool:
    """Tell if Winograd is faster than a direct convolution, by an estimate.

    The number of frames does not count: a layer has to round alike for all chunks and batches.

    Args:
        taps: of the kernel in time, 1 or 3.
        inputs: channels.
        outputs: channels.
        height: in pixels.
        width: in pixels.
    """
    tiles = _FRAMES * -(-height // TILE) * -(-width // TILE)
    direct = 9 * taps * _FRAMES * height * width
    maps = _MAP_PRODUCTS * (1 / inputs + 1 / outputs) / 2
    estimate = _PRODUCTS * taps * (tiles + _WEIGHT_TILES[taps]) + maps * tiles
    return direct > _LEAST_GAIN * estimate


def suits(conv: nn.Conv2d | nn.Conv3d, x: Tensor, rim: int) -> bool:
    """Tell if Winograd is faster for a 3x3 or 3x3x3 convolution of the chunk `x` (BCTHW).

    It takes a `rim` of 1: as many rows and columns around the picture.

    Types that are convolved as they are, shorter than float32, would round too much; other devices
    have kernels of their own.
    """
    exact = convolved_in(x) in (torch.float32, torch.float64)
    if x.device.type != "cpu" or not exact or conv.kernel_size[-2:] != (3, 3):
        return False
    if set(conv.stride) != {1} or rim != 1:
        return False
    taps = conv.kernel_size[0] if len(conv.kernel_size) == 3 else 1
    return is_faster(taps, conv.in_channels, conv.out_channels, *x.shape[3:])


def rows_at_a_time(x: Tensor, frames: int) -> int:
    """Rows of the result to compute with one call of `convolve`; a multiple of `TILE`.

    Args:
        x: the chunk, BCTHW.
        frames: of the chunk and the past in front of it.
    """
    row = x.size(0) * frames * -(-x.size(4) // TILE)
    return TILE * max(_TILES_AT_A_TIME // row, 1)


class Convolver:
    """Convolves padded frames with a 3x3 or 3x3x3 kernel.

    Args:
        weight: OITHW, with 1 or 3 taps in time and 3x3 in space.
        bias: one number for every output channel.
        x: the chunk, of the type that will be convolved.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, x: Tensor) -> None:
        self._dtype = convolved_in(x)
        self._weight = weight.to(self._dtype)
        self._bias = None if bias is None else bias.to(self._dtype)
        outputs, inputs, taps = weight.shape[:3]
        step = _WEIGHT_BYTES // (_PRODUCTS * taps * inputs * self._dtype.itemsize) // 32 * 32
        self._step = min(max(step, 32), outputs)
        self._scratch = self._weight.new_empty(_PRODUCTS * self._step * taps * inputs)
        self._mapped: tuple[int, Tensor] | None = None

    def __call__(self, x: Tensor, out: Tensor) -> None:
        """Convolve a band.

        Args:
            x: BCTHW in channels-last memory, padded already: with the past in front, a row and a
                column of zeros on all sides, and as many more as make whole tiles.
            out: BOTHW in channels-last memory, where the result goes.
        """
        x = x.to(self._dtype)
        batch, frames, high, wide, _ = x.permute(0, 2, 3, 4, 1).shape
        outputs, taps = self._weight.size(0), self._weight.size(2)
        rows, columns, later = (high - 2) // TILE, (wide - 2) // TILE, frames - taps + 1
        mapped = _map_tiles(x, rows, columns)
        products = x.new_empty(_PRODUCTS, batch, later, rows * columns, outputs)
        into = products.permute(0, 1, 4, 2, 3)
        for begin in range(0, outputs, self._step):
            some = slice(begin, begin + self._step)
            for place, kernel in enumerate(self._kernels(begin)):
                # By oneDNN, which on AMD's processors is up to twice as fast as a batched product.
                into[place, :, some] = F.conv2d(mapped[place], kernel)
        offset = x.new_zeros(1)
        if self._bias is not None:
            offset = self._bias.repeat(batch * later * rows * columns)
        y = torch.addmm(offset, _matrices(x.dtype).results, products.view(_PRODUCTS, -1))
        y = y.view(TILE, TILE, batch, later, rows, columns, outputs).permute(2, 3, 4, 0, 5, 1, 6)
        target = out.permute(0, 2, 3, 4, 1)
        if target.shape[2:4] == (TILE * rows, TILE * columns):
            target.view(batch, later, rows, TILE, columns, TILE, outputs).copy_(y)
        else:
            y = y.reshape(batch, later, TILE * rows, TILE * columns, outputs)
            target.copy_(y[:, :, : out.size(3), : out.size(4)])

    def _kernels(self, begin: int) -> Tensor:
        """The kernels of the output channels from `begin`; the last ones that were made are kept.

        They are kernels of a 2D convolution over time and tiles: 36, O, I, T, 1.
        """
        if self._mapped is None or self._mapped[0] != begin:
            weight = self._weight[begin : begin + self._step]
            outputs, inputs, taps = weight.shape[:3]
            flat = weight.permute(3, 4, 0, 2, 1).reshape(9, -1)
            # Into the same memory: fresh pages for each part cost more than the map itself.
            mapped = self._scratch[: _PRODUCTS * flat.size(1)].view(_PRODUCTS, -1)
            torch.mm(_matrices(self._dtype).weights, flat, out=mapped)
            mapped = mapped.view(_PRODUCTS, outputs, taps, 1, inputs).permute(0, 1, 4, 2, 3)
            self._mapped = begin, mapped
        return self._mapped[1]


class _Matrices:
    """The linear maps of tiles, weights and results, over both axes of a tile at once."""

    def __init__(self, dtype: torch.dtype) -> None:
        results, weights, tiles = _cook_toom(_POINTS)
        self.results = torch.kron(results, results).to(dtype)
        """16 x 36."""
        self.weights = torch.kron(weights, weights).to(dtype)
        """36 x 9."""
        self.tiles = torch.kron(tiles, tiles).to(dtype)
        """36 x 36."""


@cache
def _matrices(dtype: torch.dtype) -> _Matrices:
    with torch.inference_mode(False):
        return _Matrices(dtype)


def _cook_toom(points: Sequence[Fraction]) -> tuple[Tensor, Tensor, Tensor]:
    """Make the matrices A, G and B (all but G transposed) of one axis, in float64.

    An n-tap result is `A ((G g) * (B d))` for the taps `g` and the inputs `d`; the last row of each
    belongs to the point at infinity.
    """
    count, taps = len(points), 3
    scales = [prod(p - q for q in points if q != p) for p in points]
    results = [[p**k for p in points] + [int(k == TILE - 1)] for k in range(TILE)]
    weights = [[p**k / s for k in range(taps)] for p, s in zip(points, scales, strict=True)]
    weights.append([Fraction(0)] * (taps - 1) + [Fraction(1)])
    tiles = [_polynomial([q for q in points if q != p], count + 1) for p in points]
    tiles.append(_polynomial(points, count + 1))
    a, g, b = (
        torch.tensor([[float(value) for value in row] for row in matrix], dtype=torch.float64)
        for matrix in (results, weights, tiles)
    )
    return a, g, b


def _polynomial(roots: Sequence[Fraction], length: int) -> list[Fraction]:
    """Give the coefficients of the monic polynomial with these roots, the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [*(root * value for value in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients + [Fraction(0)] * (length - len(coefficients))


def _map_tiles(x: Tensor, rows: int, columns: int) -> Tensor:
    """Map every overlapping 6x6 tile: to 36, B, C, T, `rows` * `columns`, channels-last."""
    batch, channels, frames = x.shape[:3]
    by_clip, by_channel, by_frame, by_row, by_column = x.stride()
    tiles = x.as_strided(
        (_INPUTS, _INPUTS, batch, frames, rows, columns, channels),
        (by_row, by_column, by_clip, by_frame, TILE * by_row, TILE * by_column, by_channel),
        x.storage_offset(),
    )
    mapped = _matrices(x.dtype).tiles.mm(tiles.reshape(_PRODUCTS, -1))
    mapped = mapped.view(_PRODUCTS, batch, frames, rows * columns, channels)
    return mapped.permute(0, 1, 4, 2, 3)
