"""Conversion of decoded 8-bit YUV to RGB on the model's device, bit-exact with FFmpeg on the CPU.

What a GPU converts costs no processor core, which decoding files needs, and YUV crosses the bus
in half the bytes. `Converter` remains the reference, and converts everything else: deeper
samples, grey, RGB, transparency.
"""

from __future__ import annotations

import functools
import logging
import math
import re
from fractions import Fraction

import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wfvae_cli.media.bicubic import MIDDLE, bicubic_taps
from wfvae_cli.media.clip import Colour
from wfvae_cli.media.filters import Converter, Tags, tags_of
from wfvae_cli.media.frames import planes_of
from wfvae_cli.media.sampling import Geometry, Orientation
from wfvae_cli.media.yuv import LUMA_WEIGHTS

_LOG = logging.getLogger("wfvae")

_FORMAT = re.compile(r"yuvj?(420|422|440|444)p|nv12")
_SHIFTS = {"420": (1, 1), "422": (1, 0), "440": (0, 1), "444": (0, 0), None: (1, 1)}
"""Binary logarithms of the pixels that a chroma sample covers, across and down."""
_LEAST = 8
"""Pixels of a side; smaller pictures are not worth the exceptions that FFmpeg makes for them."""
_MOST = 32
"""Times that a side may shrink. From about 43 on, libswscale does it in two steps."""
_ROW_UNIT, _COLUMN_UNIT = 1 << 14, 1 << 12
"""1.0 of libswscale's weights along rows and along columns."""


class PlanarConversion:
    """Makes RGB of the planes of decoded pictures; made by `find_conversion`.

    All sums are int32 and wrap around where libswscale's do.
    """

    def __init__(
        self,
        fmt: str,
        size: tuple[int, int],
        colour: Colour,
        geometry: Geometry,
        tags: Tags | None = None,
    ) -> None:
        found = _FORMAT.fullmatch(fmt)
        if found is None:
            raise ValueError(f"cannot convert {fmt}")
        self._format, self._size = fmt, size
        self._shifts = _SHIFTS[found[1]]
        self._colour, self._geometry = colour, geometry
        self._tags = tags

    @property
    def pixels(self) -> int:
        """Pixels of what it takes, or of what comes out if there are more."""
        return max(math.prod(self._size), math.prod(self._geometry.scaled))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what comes out."""
        return self._geometry.size

    def fits(self, frame: VideoFrame) -> bool:
        """Tell if `frame` has the format, size and colours that this conversion is for."""
        same = (frame.format.name, (frame.width, frame.height)) == (self._format, self._size)
        return same and self._tags in (None, tags_of(frame))

    def __call__(self, data: Tensor) -> Tensor:
        """Convert, scale, turn, crop and pad.

        Args:
            data: what `planes_of` gives, `[…, bytes]`, on any device.

        Returns:
            `[…, H, W, 3]` RGB, uint8, on the same device.
        """
        luma, blue, red = self._planes(data)
        left = self._colour.chroma == "left"
        across = MIDDLE >> self._shifts[0] if left else MIDDLE
        y = self._scaled(luma, MIDDLE)
        u, v = (self._scaled(chroma, across) for chroma in (blue, red))
        return _shaped(_to_rgb(y, u, v, self._colour), self._geometry)

    def on_host(self, planes: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert like `__call__`, from and to NumPy arrays in host memory."""
        rgb: NDArray[np.uint8] = self(torch.from_numpy(planes)).numpy()
        return rgb

    def _planes(self, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Luma and both chroma planes, `[…, H, W]`."""
        width, height = self._size
        columns, rows = (-(-side >> k) for side, k in zip(self._size, self._shifts, strict=True))
        luma, chroma = data[..., : width * height], data[..., width * height :]
        if self._format == "nv12":
            blue, red = torch.unflatten(chroma, -1, (rows, columns, 2)).unbind(-1)
        else:
            blue, red = torch.unflatten(chroma, -1, (2, rows, columns)).unbind(-3)
        return torch.unflatten(luma, -1, (height, width)), blue, red

    def _scaled(self, plane: Tensor, across: int) -> Tensor:
        """A plane at the scaled picture's size, int32, in units of 2**-19 code values."""
        width, height = self._geometry.scaled
        if self._geometry.orientation.transpose:
            width, height = height, width
        rows = _weighted(plane, -1, width, _ROW_UNIT, across) >> 7
        return _weighted(rows.clamp_(max=2**15 - 1), -2, height, _COLUMN_UNIT, MIDDLE)


def find_conversion(like: VideoFrame, convert: Converter) -> PlanarConversion | None:
    """Return the conversion equal to `convert` for frames like this one, if there is one."""
    geometry, size = convert.geometry, (like.width, like.height)
    turned = geometry.orientation.transpose
    scaled = geometry.scaled[::-1] if turned else geometry.scaled
    if (
        convert.bits != 8
        or convert.colour.matrix not in LUMA_WEIGHTS
        or not _FORMAT.fullmatch(like.format.name)
        or (like.format.name.startswith("yuvj") and convert.colour.range != "pc")
        or min(size) < _LEAST
        or any(old > _MOST * new for old, new in zip(size, scaled, strict=True))
        or not _rounds_like_ffmpeg()
    ):
        return None
    return PlanarConversion(like.format.name, size, convert.colour, geometry, tags_of(like))


@functools.cache
def _rounds_like_ffmpeg() -> bool:
    """Tell if a small picture of noise comes out as from FFmpeg; computed once in a process.

    The tests show it for the FFmpeg of today's PyAV; a later one may compute otherwise.
    """
    noise = VideoFrame(48, 32, "yuv420p")
    random = np.random.Generator(np.random.PCG64(0))
    for plane in noise.planes:
        plane.update(random.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    geometry = Geometry(Orientation(), (31, 21), (31, 21), Fraction(1))
    ours = PlanarConversion("yuv420p", (48, 32), Colour(), geometry).on_host(planes_of(noise))
    if np.array_equal(ours, Converter(8, Colour(), geometry)(noise)):
        return True
    _LOG.warning("this FFmpeg rounds colours otherwise than the device; converting on the CPU")
    return False


def _weighted(plane: Tensor, dim: int, new: int, unit: int, site: int) -> Tensor:
    """The lines of a plane, along `dim`, as `new` sums of their samples times `bicubic_taps`."""
    taps = _taps_on(plane.device, plane.size(dim), new, unit, site)
    parts = (
        plane.index_select(dim, positions) * (weights if dim == -1 else weights[:, None])
        for positions, weights in taps
    )
    total = next(parts)
    for part in parts:
        total += part
    return total


@functools.lru_cache(maxsize=64)
def _taps_on(
    device: torch.device, old: int, new: int, unit: int, site: int
) -> list[tuple[Tensor, Tensor]]:
    """`bicubic_taps` on a device: for each tap, the positions and the weights of all samples."""
    positions, weights = bicubic_taps(old, new, unit, site)
    return [
        (torch.tensor(at, device=device), torch.tensor(by, dtype=torch.int32, device=device))
        for at, by in zip(positions.T, weights.T, strict=True)
    ]


def _to_rgb(luma: Tensor, blue: Tensor, red: Tensor, colour: Colour) -> Tensor:
    """`[…, H, W]` in units of 2**-19 to `[…, H, W, 3]` RGB, uint8."""
    gain, black, red_v, green_u, green_v, blue_u = _coefficients(colour)
    half = 1 << 9
    y = ((((luma + half) >> 10) - black) * gain).add_(1 << 21)
    u, v = (((chroma + (half - (128 << 19))) >> 10) for chroma in (blue, red))
    rgb = torch.stack((y + v * red_v, y + v * green_v + u * green_u, y + u * blue_u), dim=-1)
    return (rgb.clamp_(0, (1 << 30) - 1) >> 22).to(torch.uint8)


def _coefficients(colour: Colour) -> tuple[int, int, int, int, int, int]:
    """Luma's gain and black, and what of chroma makes red, green, green and blue.

    In units of 2**-13, black of 2**-9. They are first rounded to 2**-16 for limited range, and
    full range follows from these, as libswscale's tables have it.
    """
    kr, kb = LUMA_WEIGHTS[colour.matrix]
    kg = 1 - kr - kb
    factors = (2 * (1 - kr), 2 * (1 - kb) * kb / kg, 2 * (1 - kr) * kr / kg, 2 * (1 - kb))
    chroma = [round(factor * 255 / 224 * 65536) for factor in factors]
    gain, black = 65536 * 255 // 219, 16
    if colour.range == "pc":
        chroma = [factor * 224 // 255 for factor in chroma]
        gain, black = 65536, 0
    # To nearest, halves upwards: the negative ones of green are no mirror of the positive ones.
    red_v, green_u, green_v, blue_u = (
        (sign * factor + 4) >> 3 for sign, factor in zip((1, -1, -1, 1), chroma, strict=True)
    )
    return (gain + 4) >> 3, black << 9, red_v, green_u, green_v, blue_u


def _shaped(pixels: Tensor, geometry: Geometry) -> Tensor:
    """Turn scaled pictures, `[…, H, W, 3]`, then crop them or pad them with black."""
    turn, (x, y) = geometry.orientation, geometry.offset
    if turn.transpose:
        pixels = pixels.transpose(-3, -2)
    pixels = pixels.flip([dim for dim, flips in ((-3, turn.vflip), (-2, turn.hflip)) if flips])
    width, height = geometry.size
    pixels = pixels[..., max(y, 0) :, max(x, 0) :, :][..., :height, :width, :]
    left, top = max(-x, 0), max(-y, 0)
    right, bottom = width - left - pixels.size(-2), height - top - pixels.size(-3)
    return functional.pad(pixels, (0, 0, left, right, top, bottom))
