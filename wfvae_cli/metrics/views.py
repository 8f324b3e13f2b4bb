"""Pictures of what a roundtrip lost: both sides beside each other, or their difference."""

from __future__ import annotations

import numpy as np

from wfvae_cli.metrics.pixels import Pixels, matched

DEFAULT_GAIN = 4.0
"""How much a difference is amplified: an error of 32 of 255 levels becomes black or white."""


def side_by_side(original: Pixels, reconstruction: Pixels) -> Pixels:
    """The original on the left, the reconstruction on the right.

    Args:
        original: HWC RGB, uint8 or uint16.
        reconstruction: the same size.

    Returns:
        `[H, 2 W, 3]`, of the deeper dtype of the two; always even in width.

    Raises:
        InputError: the pictures cannot be put together.
    """
    left, right = matched(original, reconstruction)
    h, w = left.shape[:2]
    both = np.empty((h, 2 * w, 3), left.dtype)
    both[:, :w] = left
    both[:, w:] = right
    return both


def difference(original: Pixels, reconstruction: Pixels, *, gain: float = DEFAULT_GAIN) -> Pixels:
    """What the reconstruction adds (brighter than grey) or lacks (darker), channel by channel.

    Args:
        original: HWC RGB, uint8 or uint16.
        reconstruction: the same size.
        gain: factor on `reconstruction - original` before it is put around mid-grey (128 or
            32768), rounded and clamped.

    Returns:
        HWC RGB, of the deeper dtype of the two.

    Raises:
        InputError: the pictures cannot be compared.
    """
    x, y = matched(original, reconstruction)
    peak = np.iinfo(x.dtype).max
    amplified = np.subtract(y, x, dtype=np.float32)
    amplified *= gain
    amplified += (peak + 1) // 2
    picture: Pixels = np.rint(amplified.clip(0, peak)).astype(x.dtype)
    return picture
