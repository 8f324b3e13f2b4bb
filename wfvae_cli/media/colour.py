"""Colour descriptions of files, with defaults for what they leave unspecified.

Numbers and names are those of ITU-T H.273, spelt as FFmpeg spells them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wfvae_cli.media.clip import Bits, Chroma, Colour

if TYPE_CHECKING:
    import av

MATRICES = {
    0: "gbr",
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
    14: "ictcp",
}
PRIMARIES = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
TRANSFERS = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}

SWSCALE_MATRICES = {
    "bt709": "bt709",
    "fcc": "fcc",
    "bt470bg": "bt470",
    "smpte170m": "smpte170m",
    "smpte240m": "smpte240m",
    "bt2020nc": "bt2020",
}
"""Our names of the matrices that swscale can undo -> its own names of them."""

SRGB = Colour("gbr", "pc", "bt709", "iec61966-2-1")
"""Assumed of an image that does not describe its colours."""

Kind = Literal["yuv", "rgb", "grey"]


@dataclass(frozen=True)
class PixelFormat:
    """Properties of an FFmpeg pixel format that the conversion to RGB depends on."""

    name: str
    kind: Kind
    depth: int
    """Bits of a sample: 1 to 16, or 32 for floating point."""
    alpha: bool
    subsampled: bool = False
    """True where chroma has fewer columns than there are pixels."""

    @property
    def bits(self) -> Bits:
        """Bits of a sample after the conversion to RGB."""
        return 8 if self.depth <= 8 else 16

    @classmethod
    def of(cls, fmt: av.VideoFormat) -> PixelFormat:
        """Describe FFmpeg's pixel format `fmt`."""
        parts = fmt.components
        colours = [part for part in parts if not part.is_alpha]
        kind: Kind = "yuv"
        # Bilevel formats (monow, monob) have one component of one bit and no range.
        if fmt.is_rgb or fmt.has_palette or fmt.name.startswith(("bayer", "xyz", "mono")):
            kind = "rgb"
        elif len(colours) == 1:
            kind = "grey"
        alpha = any(part.is_alpha for part in parts)
        subsampled = kind == "yuv" and fmt.chroma_width(16) < 16
        return cls(fmt.name, kind, max(part.bits for part in parts), alpha, subsampled)


def chroma_site(codec: str) -> Chroma:
    """The default position of a codec's subsampled chroma.

    On every other column in MPEG-2, H.264, HEVC, VP9 and AV1; in the middle of its pixels in JPEG
    and MPEG-1. A stream that says otherwise is not heeded: FFmpeg's scaler ignores it.
    """
    return "centre" if codec in ("mjpeg", "mpeg1video") else "left"


def describe(
    fmt: PixelFormat,
    width: int,
    height: int,
    *,
    codec: str = "",
    matrix: int = 2,
    value_range: int = 0,
    primaries: int = 2,
    transfer: int = 2,
) -> tuple[Colour, list[str]]:
    """Describe the colours of a stream, with a default for whatever it leaves unspecified.

    Without a matrix, BT.709 is assumed from 720 lines or 1280 columns up and BT.601
    (`smpte170m`) below, as players do. Without a range, `yuvj` formats, RGB and grey are full
    and every other YUV is limited.

    Args:
        fmt: pixel format of the decoded frames.
        width: coded width in pixels.
        height: coded height in pixels.
        codec: FFmpeg's name of the stream's codec.
        matrix: matrix coefficients as numbered by H.273 (2 is unspecified).
        value_range: FFmpeg's number: 0 unspecified, 1 limited, 2 full.
        primaries: colour primaries as numbered by H.273.
        transfer: transfer characteristics as numbered by H.273.

    Returns:
        The colours, and notices on what could only be approximated.
    """
    notices: list[str] = []
    full = value_range == 2 or (
        value_range == 0 and (fmt.kind != "yuv" or fmt.name.startswith("yuvj"))
    )
    default = "bt709" if height >= 720 or width >= 1280 else "smpte170m"
    if fmt.kind == "rgb":
        name = "gbr"
    else:
        name = MATRICES.get(matrix, default)
        if matrix == 2:
            name = default
        elif name == "bt2020c":
            notices.append("constant-luminance BT.2020 is read as non-constant-luminance")
            name = "bt2020nc"
        elif name not in SWSCALE_MATRICES:
            notices.append(f"the colour matrix {name!r} is not supported; read as {default}")
            name = default
    colour = Colour(
        matrix=name,
        range="pc" if full else "tv",
        primaries=PRIMARIES.get(primaries, "unknown"),
        transfer=TRANSFERS.get(transfer, "unknown"),
        chroma=chroma_site(codec),
    )
    return colour, notices


def swscale_levels(fmt: PixelFormat, colour: Colour) -> tuple[float, float]:
    """Find the RGB values that swscale gives black and white of a source.

    They differ from 0 and 255 or 65535 in two ways that were measured, and that the tests pin:
    deep YUV is shifted to 16 bits, not stretched (10-bit white at full range becomes
    `1023 << 6`, and limited white 255 << 8), and grey or RGB of limited range is not expanded.

    Returns:
        (black, white) on the scale of the RGB samples, 8 or 16 bits.
    """
    if fmt.depth > 16:
        return 0.0, 65535.0
    if fmt.bits == 8:
        return (16.0, 235.0) if fmt.kind != "yuv" and colour.range == "tv" else (0.0, 255.0)
    shift = 16 - fmt.depth
    if fmt.kind == "rgb":
        # RGB is stretched by repeating its leading bits.
        scale = 65535 / ((1 << fmt.depth) - 1) * (1 << (fmt.depth - 8))
        return (16 * scale, 235 * scale) if colour.range == "tv" else (0.0, 65535.0)
    if colour.range == "pc":
        return 0.0, float(((1 << fmt.depth) - 1) << shift)
    return (0.0, 255.0 * 256) if fmt.kind == "yuv" else (16.0 * 256, 235.0 * 256)
