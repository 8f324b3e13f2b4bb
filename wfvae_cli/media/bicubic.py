"""FFmpeg's bicubic scaling, as the weights that make each new sample of a line of old ones.

A device that is to give the pixels that FFmpeg gives on the CPU, and not merely similar ones, has
to round where FFmpeg rounds. So everything here is fixed-point and follows libswscale's
arithmetic (`bicubic` with B = 0 and C = 0.6, `bitexact`), which the tests hold it to.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

MIDDLE = 128
"""Position of luma samples, in 1/256 of a sample: the middle."""

_ONE = 1 << 30
"""1.0 of distances, in samples of the line that the kernel is laid over."""
_COEFFICIENT = 1 << 24
"""1.0 of the kernel's coefficients."""
_NEGLIGIBLE = 0.002
"""Weights whose sum at one end of the kernel stays below this are left out."""


class Taps(NamedTuple):
    """Each new sample is the sum of old ones times their weights."""

    positions: Integers
    """`[new, taps]`, indices of old samples; those of weight 0 may repeat others."""
    weights: Integers
    """`[new, taps]`; the weights of one new sample add up to `unit`."""


@functools.lru_cache(maxsize=64)
def bicubic_taps(old: int, new: int, unit: int, site: int = MIDDLE) -> Taps:
    """Compute the weights that turn a line of `old` samples into one of `new`.

    Args:
        old: samples of the line there is.
        new: samples of the line to be made, which lie in the middle of their places.
        unit: 1.0 of the weights: 2**14 in libswscale for rows, 2**12 for columns.
        site: where old samples lie, in 1/256 of one; chroma often not in the middle.
    """
    step = ((old << 16) + (new >> 1)) // new  # old samples for each new one, in 1/65536
    if abs(step - (1 << 16)) < 10 and site == MIDDLE:
        return Taps(np.arange(new)[:, None], np.full((new, 1), unit, np.int64))
    # A kernel of 4 old samples, or of 4 new ones where there are fewer of these.
    size = 5 if step <= 1 << 16 else 1 + (4 * old + new - 1) // new
    size = max(1, min(size, old - 2))
    # In half samples, in 1/65536: then every centre is an integer.
    centres = ((MIDDLE * step) >> 7) - ((site << 16) >> 7) + 2 * step * np.arange(new)
    first = _divided(centres - ((size - 2) << 16), 1 << 17)
    distances = np.abs(((first[:, None] + np.arange(size)) << 17) - centres[:, None]) << 13
    if step > 1 << 16:
        distances = distances * new // old
    precision = 54 - min(max(old // new, 1).bit_length() - 1, 8)
    weights = _divided(_kernel(distances), 1 << (54 - precision))
    first, weights = _trimmed(first, weights, _NEGLIGIBLE * (1 << precision))
    return _normalised(*_inside(first, weights, old), unit)


def _kernel(distance: Integers) -> Integers:
    """Bicubic weights (Mitchell and Netravali 1988), scaled by `_ONE * _COEFFICIENT`."""
    c = int(0.6 * _COEFFICIENT)
    square = (distance * distance) >> 30
    cube = (square * distance) >> 30
    near = (12 * _COEFFICIENT - 6 * c) * cube + (6 * c - 18 * _COEFFICIENT) * square
    near += 6 * _COEFFICIENT * _ONE
    far = c * (-6 * cube + 30 * square - 48 * distance + 24 * _ONE)
    return np.where(distance < _ONE, near, np.where(distance < 2 * _ONE, far, 0))


def _trimmed(first: Integers, weights: Integers, negligible: float) -> tuple[Integers, Integers]:
    """Leave out what is negligible: windows of one size, no window before the one to its left."""
    size = weights.shape[1]
    magnitudes = np.abs(weights)
    leading = (magnitudes.cumsum(axis=1) <= negligible).sum(axis=1)
    trailing = (magnitudes[:, ::-1].cumsum(axis=1) <= negligible).sum(axis=1)
    begin = np.minimum.accumulate((first + leading)[::-1])[::-1]
    count = max(1, int((first + size - trailing - begin).max()))
    columns = (begin - first)[:, None] + np.arange(count)
    kept = np.take_along_axis(weights, np.minimum(columns, size - 1), axis=1)
    return begin, np.where(columns < size, kept, 0)


def _inside(first: Integers, weights: Integers, old: int) -> tuple[Integers, Integers]:
    """Give the weights of samples beyond the line's ends to the samples at its ends."""
    new, count = weights.shape
    begin = np.clip(first, 0, max(0, old - count))
    within = np.zeros_like(weights)
    for tap in range(count):
        position = np.clip(first + tap, 0, old - 1)
        np.add.at(within, (np.arange(new), position - begin), weights[:, tap])
    return np.minimum(begin[:, None] + np.arange(count), old - 1), within


def _normalised(positions: Integers, weights: Integers, unit: int) -> Taps:
    """Round weights so that they add up to `unit`; each takes over the error of the one before."""
    divisor = np.maximum((weights.sum(axis=1) + unit // 2) // unit, 1)
    rounded = np.empty_like(weights)
    error = np.zeros_like(divisor)
    for tap in range(weights.shape[1]):
        value = weights[:, tap] + error
        half = np.where(value < 0, -(divisor // 2), divisor // 2)
        rounded[:, tap] = _divided(value + half, divisor)
        error = value - rounded[:, tap] * divisor
    return Taps(positions, rounded)


def _divided(value: Integers, divisor: Integers | int) -> Integers:
    """Integer division that rounds towards zero."""
    return cast(Integers, np.sign(value) * (np.abs(value) // divisor))
