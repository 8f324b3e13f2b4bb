"""RGB pictures to YUV in PyTorch: on the device that they are on, for the encoder on the host."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wfvae_cli.media.clip import Chroma
from wfvae_cli.media.yuv import LUMA_WEIGHTS, PictureFormat, Pixels, depth, subsampling


def to_planes(pixels: Tensor, stored: PictureFormat) -> Tensor:
    """Luma and chroma of RGB pictures (ITU-T H.273, section 8.3), on their own device.

    Args:
        pixels: `[…, H, W, 3]` RGB, uint8 or uint16 over the full range of the dtype.
        stored: a planar YUV format or grey.

    Returns:
        The bytes of all planes, one after the other, `[…, bytes]`: uint8, or uint16 viewed as that.
    """
    kr, kb = LUMA_WEIGHTS[stored.matrix]
    bits = depth(stored.pix_fmt)
    unit, peak = 2 ** (bits - 8), 2**bits - 1
    if stored.range == "tv":
        luma_span, luma_zero, chroma_span = 219 * unit, 16 * unit, 224 * unit
    else:
        luma_span, luma_zero, chroma_span = peak, 0, peak
    white = 255 if pixels.dtype == torch.uint8 else 65535
    # One operation a time, so that every device rounds alike; a matrix product would not.
    red, green, blue = (channel.to(torch.float32) for channel in pixels.unbind(-1))
    luma = red * kr
    luma += green * (1 - kr - kb)
    luma += blue * kb
    planes = [_quantised(luma, luma_span / white, luma_zero, bits)]
    if not stored.pix_fmt.startswith("gray"):
        for colour, weight in ((blue, kb), (red, kr)):
            chroma = _subsampled(colour - luma, subsampling(stored.pix_fmt), stored.chroma)
            scale = chroma_span / (white * 2 * (1 - weight))
            planes.append(_quantised(chroma, scale, 128 * unit, bits))
    return torch.cat([plane.flatten(-2).view(torch.uint8) for plane in planes], dim=-1)


def to_planes_on_host(pixels: Pixels, stored: PictureFormat) -> NDArray[np.uint8]:
    """Convert like `to_planes`, from and to NumPy arrays in host memory."""
    writable = np.require(pixels, requirements=["C", "W"])
    planes: NDArray[np.uint8] = to_planes(torch.from_numpy(writable), stored).numpy()
    return planes


def _subsampled(chroma: Tensor, factors: tuple[int, int], site: Chroma) -> Tensor:
    """Average chroma where its samples lie."""
    across, down = factors
    if down == 2:
        chroma = (chroma[..., 0::2, :] + chroma[..., 1::2, :]) * 0.5
    if across == 2 and site == "centre":
        chroma = (chroma[..., 0::2] + chroma[..., 1::2]) * 0.5
    elif across == 2:
        left = torch.cat((chroma[..., :1], chroma[..., 1:-1:2]), dim=-1)
        chroma = (left + chroma[..., 1::2]) * 0.25 + chroma[..., 0::2] * 0.5
    return chroma


def _quantised(plane: Tensor, scale: float, zero: int, bits: int) -> Tensor:
    plane = (plane * scale).add_(zero + 0.5).clamp_(0, 2**bits - 1)
    return plane.to(torch.uint8 if bits == 8 else torch.uint16)
