"""Pairs of pictures: checks that they can be compared."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.errors import InputError
from wfvae_cli.media.clip import Bits

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""HWC RGB, uint8 or uint16 over the full range of its dtype, as `Frame.pixels`."""


def bits_of(pixels: Pixels) -> Bits:
    """Bits of each sample: 8 or 16."""
    return 8 if pixels.dtype == np.uint8 else 16


def data_range(bits: Bits) -> int:
    """Largest sample: 255 or 65535, the peak that PSNR and SSIM refer to."""
    return int(2**bits - 1)


def deepen(pixels: Pixels, bits: Bits) -> Pixels:
    """`pixels` over the range of `bits`: 8-bit samples become 16-bit ones exactly (times 257)."""
    if bits == 16 and pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * np.uint16(257)
    return pixels


def matched(original: Pixels, reconstruction: Pixels) -> tuple[Pixels, Pixels]:
    """Check that two pictures can be compared, and bring both to the deeper range of the two.

    Args:
        original: HWC RGB, uint8 or uint16.
        reconstruction: the same size; the depth may differ.

    Raises:
        InputError: the sizes differ, or one of them is not HWC RGB of 8 or 16 bits.
    """
    for role, pixels in (("original", original), ("reconstruction", reconstruction)):
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype not in (np.uint8, np.uint16):
            raise InputError(
                f"expected the {role} as HWC RGB of uint8 or uint16, "
                f"got {pixels.dtype} of shape {pixels.shape}"
            )
    if original.shape != reconstruction.shape:
        (h, w), (other_h, other_w) = original.shape[:2], reconstruction.shape[:2]
        raise InputError(
            f"the original is {w}x{h} and the reconstruction {other_w}x{other_h}; "
            "only pictures of one size can be compared: scale one of them first"
        )
    bits = max(bits_of(original), bits_of(reconstruction))
    return deepen(original, bits), deepen(reconstruction, bits)
