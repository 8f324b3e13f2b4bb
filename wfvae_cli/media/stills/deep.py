"""Images of more than 8 bits a sample that FFmpeg decodes: PNG, JPEG 2000 and AVIF.

Pillow reads them too, but reduces them to 8 bits.
"""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from wfvae_cli.media.clip import Colour
from wfvae_cli.media.colour import MATRICES, PRIMARIES, SRGB, TRANSFERS, PixelFormat, describe
from wfvae_cli.media.filters import Converter, Pixels, times_alpha
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.sampling import Orientation, plan_geometry
from wfvae_cli.media.stills.heif import Item, Nclx, Still

_SOC, _SIZ = b"\xff\x4f", b"\xff\x51"
_RGB_FULL = Colour("gbr", "pc")


def jpeg2000_bits(data: bytes) -> int:
    """Bits of the deepest component of a JPEG 2000 file or codestream (ISO/IEC 15444-1, A.5.1)."""
    at = data.find(_SOC + _SIZ)
    if at < 0 or at + 42 > len(data):
        raise ValueError("it has no codestream")
    count = int.from_bytes(data[at + 40 : at + 42])
    depths = data[at + 42 : at + 42 + 3 * count : 3]
    return max(((depth & 0x7F) + 1 for depth in depths), default=8)


def decode_png(
    data: bytes, size: tuple[int, int], orientation: Orientation
) -> tuple[Pixels, VideoFrame]:
    """Decode a PNG of 16 bits.

    Args:
        data: the whole file.
        size: width and height as stored, in pixels.
        orientation: the turn or flip to apply.

    Returns:
        Upright HWC RGB, uint16, with alpha composited onto black; and the frame as it was coded.

    Raises:
        Exception: of any kind, where it is damaged.
    """
    frame = _decode("png", data, size)
    return _to_rgb(frame, _RGB_FULL, orientation), frame


def decode_jpeg2000(
    data: bytes, size: tuple[int, int], bits: int, orientation: Orientation
) -> tuple[Pixels, VideoFrame]:
    """Decode a JPEG 2000 image of over 8 bits; as `decode_png`.

    Args:
        data: the whole file.
        size: width and height as stored, in pixels.
        bits: of a sample.
        orientation: the turn or flip to apply.
    """
    frame = _decode("jpeg2000", data, size)
    fmt = PixelFormat.of(frame.format)
    colour = _RGB_FULL
    if fmt.kind != "rgb":  # sYCC, of full range (IEC 61966-2-1), or grey
        colour = Colour("smpte170m", "pc", chroma="centre")
    pixels = _to_rgb(frame, colour, orientation)
    if fmt.depth == 16 and bits < 16:  # FFmpeg shifts samples to the left, and does not stretch
        pixels = _stretch(pixels, bits)
    return pixels, frame


def _stretch(pixels: Pixels, bits: int) -> Pixels:
    """Stretch samples whose highest value is `2**bits - 1 << 16 - bits` to 65535, rounded."""
    peak = ((1 << bits) - 1) << (16 - bits)
    wide = pixels.astype(np.uint32)
    wide *= np.uint32(65535)
    wide += np.uint32(peak // 2)
    wide //= np.uint32(peak)
    return np.minimum(wide, 65535, out=wide).astype(np.uint16)


def decode_avif(still: Still, orientation: Orientation) -> tuple[Pixels, VideoFrame, list[str]]:
    """Decode an AVIF image of over 8 bits.

    Args:
        still: where its pictures lie.
        orientation: the turn or flip to apply.

    Returns:
        As `decode_png`; and notices of what could only be approximated.

    Raises:
        Exception: of any kind, where it is damaged.
    """
    pixels, frame, notices = _decode_item(still.picture, still.samples.nclx)
    if still.alpha is not None and not still.premultiplied:
        alpha, _, _ = _decode_item(still.alpha, Nclx(2, 2, 2, full_range=True))
        pixels = times_alpha(pixels, alpha[..., :1])
    return _turn(pixels, orientation), frame, notices


def avif_colour(nclx: Nclx | None) -> Colour:
    """Return the colour description of an AVIF image's RGB; sRGB where it does not say."""
    if nclx is None:
        return SRGB
    primaries = PRIMARIES.get(nclx.primaries, SRGB.primaries)
    return Colour("gbr", "pc", primaries, TRANSFERS.get(nclx.transfer, SRGB.transfer))


def _decode_item(item: Item, nclx: Nclx | None) -> tuple[Pixels, VideoFrame, list[str]]:
    """A picture as HWC RGB, uint16, as stored; its first tile; and notices."""
    width, height = item.size
    columns, rows = item.columns, len(item.coded) // item.columns
    first = _decode("libdav1d", item.coded[0], item.size)
    colour, notices = _colour_of(first, item.size, nclx)
    across, down = first.width, first.height
    if not ((columns - 1) * across < width <= columns * across):
        raise ValueError(f"its {columns} tiles of {across} columns make no {width}")
    if not ((rows - 1) * down < height <= rows * down):
        raise ValueError(f"its {rows} tiles of {down} rows make no {height}")
    pixels = np.empty((height, width, 3), np.uint16)
    for index, coded in enumerate(item.coded):
        tile = first if index == 0 else _decode("libdav1d", coded, item.size)
        if (tile.width, tile.height) != (across, down):
            raise ValueError("its tiles differ in size")
        top, left = index // columns * down, index % columns * across
        part = pixels[top : top + down, left : left + across]
        part[...] = _to_rgb(tile, colour, Orientation())[: part.shape[0], : part.shape[1]]
    return pixels, first, notices


def _colour_of(
    frame: VideoFrame, size: tuple[int, int], nclx: Nclx | None
) -> tuple[Colour, list[str]]:
    """Describe the samples by the container, or by the coded picture where it is silent."""
    matrix, full = int(frame.colorspace), int(frame.color_range)
    if nclx is not None:
        full = 2 if nclx.full_range else 1
        matrix = nclx.matrix if nclx.matrix in MATRICES else matrix
    fmt = PixelFormat.of(frame.format)
    return describe(fmt, *size, codec="av1", matrix=matrix, value_range=full)


def _decode(codec: str, data: bytes, size: tuple[int, int]) -> VideoFrame:
    """The first picture that FFmpeg makes of `data`, if it is hardly larger than `size`."""
    context = cast(VideoCodecContext, av.CodecContext.create(codec, "r"))
    context.thread_count = 1
    # Of a grid, tiles reach beyond the picture.
    context.options = {"max_pixels": str(4 * (size[0] + 64) * (size[1] + 64))}
    frames = context.decode(Packet(data)) or context.decode(None)
    if not frames or frames[0].is_corrupt:
        raise ValueError("it cannot be decoded whole")
    return frames[0]


def _to_rgb(frame: VideoFrame, colour: Colour, orientation: Orientation) -> Pixels:
    geometry = plan_geometry(frame.width, frame.height, Fraction(1), orientation, Sampling())
    return Converter(16, colour, geometry)(frame)


def _turn(pixels: Pixels, orientation: Orientation) -> Pixels:
    if orientation.transpose:
        pixels = pixels.swapaxes(0, 1)
    if orientation.hflip:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation.vflip else pixels
