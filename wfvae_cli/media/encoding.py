"""Choice of container, encoder, pixel format and options of a video to write."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import av.codec.codec

from wfvae_cli.atomic import STDOUT
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.media import settings, yuv
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.colour import chroma_site
from wfvae_cli.media.options import VideoOptions

logger = logging.getLogger("wfvae")

ENCODERS = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "h265": ("libx265",),
    "av1": ("libsvtav1", "libaom-av1"),
    "vp9": ("libvpx-vp9",),
    "vp8": ("libvpx",),
    "prores": ("prores_ks",),
}
"""Short names, and FFmpeg's encoders for each in order of preference."""

CONTAINERS = {".mkv": "matroska", ".m4v": "mp4", ".ts": "mpegts", ".y4m": "yuv4mpegpipe"}
"""Containers of file suffixes for which FFmpeg has several, or another than users mean."""

AVFMT_VARIABLE_FPS = 0x400
"""FFmpeg's flag of containers in which every frame has a time of its own."""

AVFMT_NOFILE = 1
"""FFmpeg's flag of muxers that open their outputs by themselves: segments, devices, sockets."""

_INT_MAX = 2**31 - 1
_MOST_SIDE = 65535
"""Beyond it some encoders (SVT-AV1, ProRes) keep the lower 16 bits only, without a word."""

_DEFAULTS = {"mpegts": "h264", "avi": "mpeg4", "yuv4mpegpipe": "rawvideo"}
_KEEPS_RGB = ("ffv1", "libx264rgb", "utvideo", "png", "qtrle")
_STORES_ASPECT = ("libx264", "libx264rgb", "libx265", *settings.GRID_CODECS, "mjpeg")


@dataclass(frozen=True)
class EncodingPlan:
    """Container, encoder and options, chosen before the first frame."""

    container: str
    encoder: str
    stored: yuv.PictureFormat
    time_base: Fraction
    on_grid: bool
    """True where this format stores frame numbers only, no timestamps."""
    codec_options: dict[str, str]
    container_options: dict[str, str]


def plan(
    target: str | Path, info: ClipInfo, options: VideoOptions, *, streaming: bool
) -> EncodingPlan:
    """Choose how a clip is encoded, without touching the target.

    Args:
        target: path of the video, or `-`.
        info: the clip to come.
        options: the options that the user set.
        streaming: whether the target cannot be sought in (a pipe).

    Raises:
        UsageError: an option is unknown, or options contradict each other or the clip.
        OutputError: the clip's size, rates or aspect are beyond what video files can store.
    """
    _check_numbers(target, info)
    container = _container(target, options.container)
    encoder = _encoder(container, options.codec)
    pix_fmt = _pix_fmt(encoder, info, options.pix_fmt)
    stored = yuv.PictureFormat(pix_fmt, *_colour(encoder, pix_fmt, info), chroma_site(encoder))
    _tell(container, encoder, pix_fmt, info)
    on_grid = not av.ContainerFormat(container, "w").flags & AVFMT_VARIABLE_FPS
    on_grid = on_grid or encoder in settings.GRID_CODECS
    rate = info.frame_rate or Fraction(25)
    return EncodingPlan(
        container=container,
        encoder=encoder,
        stored=stored,
        time_base=1 / rate if on_grid else info.time_base,
        on_grid=on_grid,
        codec_options=settings.reproducible(encoder)
        | settings.quality(encoder, options.crf)
        | settings.tags(info, stored)
        | settings.timing(container),
        container_options=settings.muxing(container, streaming),
    )


def _check_numbers(target: str | Path, info: ClipInfo) -> None:
    """Refuse numbers that do not fit into FFmpeg's; latent files can claim any."""
    fractions = {
        "a frame rate": info.frame_rate,
        "a time base": info.time_base,
        "a pixel aspect ratio": info.sample_aspect,
    }
    for name, value in fractions.items():
        if value is not None and max(value.numerator, value.denominator) > _INT_MAX:
            raise OutputError(
                f"cannot write {target}: {name} of {value} has more than the 31 bits that video "
                "files store: correct what the input says"
            )
    if max(info.width, info.height) > _MOST_SIDE:
        raise OutputError(
            f"cannot write {target}: {info.width}x{info.height} pixels, and video files have at "
            f"most {_MOST_SIDE} on a side: ask for a smaller size, or write an image"
        )


def _container(target: str | Path, name: str | None) -> str:
    if name is None and str(target) == STDOUT:
        name = "matroska"
    if name is None:
        suffix = Path(target).suffix.lower()
        name = CONTAINERS.get(suffix) or _container_of_suffix(suffix)
        if name is None:
            raise UsageError(
                f"cannot tell a video format from the name {Path(target).name}; use .mp4, .mkv, "
                ".mov or .webm, an image suffix, a %05d.png pattern, or name one with --container"
            )
    try:
        if av.ContainerFormat(name, "w").flags & AVFMT_NOFILE:
            raise UsageError(
                f"the container {name} is not one file: expected one such as mp4, matroska or mov"
            )
    except UsageError:
        raise
    except ValueError:
        raise UsageError(
            f"unknown container {name!r}; FFmpeg's names are expected, such as mp4, matroska, "
            "mov, webm, avi, nut or mpegts"
        ) from None
    return name


def _container_of_suffix(suffix: str) -> str | None:
    # FFmpeg knows muxers that are no files (devices, hashes); those have no suffix of their own.
    if not suffix:
        return None
    for name in (suffix[1:], *sorted(av.formats_available)):
        try:
            if suffix[1:] in av.ContainerFormat(name, "w").extensions:
                return name
        except ValueError:  # a format that can only be read
            continue
    return None


def _encoder(container: str, name: str | None) -> str:
    with av.open(io.BytesIO(), "w", format=container) as probe:
        if name is not None:
            encoder = _find_encoder(name)
            if not _takes(container, encoder):
                raise UsageError(
                    f"the container {container} cannot hold {name}; use another --container or "
                    f"suffix (.mkv holds nearly everything), or a codec such as "
                    f"{probe.default_video_codec}"
                )
            return encoder
        sure = probe.supported_codecs
        default = _DEFAULTS.get(container, probe.default_video_codec)
    # Some muxers leave open what they take; only a clear yes makes H.264 the default.
    for candidate in ("h264", default) if container not in _DEFAULTS else (default,):
        found = _installed(candidate)
        if found is not None and (found in sure or candidate == default):
            return found
    raise UsageError(f"the container {container} holds no video that we can encode; use mp4 or mkv")


def _installed(name: str) -> str | None:
    for candidate in ENCODERS.get(name, (name,)):
        try:
            found = av.Codec(candidate, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        if found.type == "video":
            return found.name
    return None


def _find_encoder(name: str) -> str:
    found = _installed(name.lower())
    if found is None:
        known = [short for short in (*ENCODERS, "ffv1") if _installed(short)]
        raise UsageError(
            f"unknown video codec {name!r}; expected one of {', '.join(known)}, or the name of "
            "another encoder in this build of FFmpeg"
        )
    return found


def _takes(container: str, encoder: str) -> bool:
    with av.open(io.BytesIO(), "w", format=container) as probe:
        try:
            probe.add_stream(encoder, rate=25)
        except ValueError:
            return False
    return True


def _pix_fmt(encoder: str, info: ClipInfo, asked: str | None) -> str:
    formats = av.Codec(encoder, "w").video_formats
    offered = [f.name for f in formats] if formats else ["yuv420p", "yuv444p", "rgb24", "rgb48le"]
    usable = [name for name in offered if yuv.is_supported(name)]
    size = f"{info.width}x{info.height}"
    if asked is not None:
        if asked not in usable and f"{asked}le" in usable:
            asked = f"{asked}le"
        if asked not in usable:
            raise UsageError(
                f"{encoder} cannot be given pixels as {asked!r}; expected one of "
                f"{', '.join(usable)}"
            )
        if not _fits(asked, info):
            raise UsageError(
                f"{asked} cannot hold an odd width or height, and this clip is {size}; use "
                "--pix-fmt yuv444p, or let the program choose"
            )
        return asked
    wants_rgb = encoder in _KEEPS_RGB
    fitting = [
        name
        for name in usable
        if _fits(name, info) and not name.startswith("gray") and yuv.is_rgb(name) == wants_rgb
    ]
    if not fitting:
        raise UsageError(
            f"{encoder} has no pixel format for a clip of {size}"
            f"{' (an odd size)' if info.width % 2 or info.height % 2 else ''}; use --codec h264, "
            "or ffv1 in .mkv"
        )
    # Lossless RGB keeps every bit of the frames; YUV has no use for more than the source had.
    bits = info.bits if wants_rgb else info.source_bits
    odd = bool(info.width % 2 or info.height % 2)
    return min(fitting, key=lambda name: _preference(name, bits, odd))


def _fits(pix_fmt: str, info: ClipInfo) -> bool:
    across, down = yuv.subsampling(pix_fmt)
    return info.width % across == 0 and info.height % down == 0


def _preference(pix_fmt: str, bits: int, odd: bool) -> tuple[bool, int, int]:
    """Sorts first: enough bits, but few (else the most); then 4:2:0, or 4:4:4 if odd."""
    depth = yuv.depth(pix_fmt)
    across, down = yuv.subsampling(pix_fmt)
    chroma = across * down
    return depth < bits, depth if depth >= bits else -depth, chroma if odd else -chroma


def _tell(container: str, encoder: str, pix_fmt: str, info: ClipInfo) -> None:
    """Log what the output cannot keep as it was."""
    if (info.width % 2 or info.height % 2) and not yuv.is_rgb(pix_fmt):
        logger.info(
            "%dx%d is an odd size: writing %s, since 4:2:0 would lose a row or column of pixels",
            info.width,
            info.height,
            pix_fmt,
        )
    if yuv.depth(pix_fmt) < info.source_bits:
        logger.warning(
            "%s stores %d bits per sample, and the source had %d",
            encoder,
            yuv.depth(pix_fmt),
            info.source_bits,
        )
    square = info.sample_aspect == 1 or container not in ("matroska", "webm", "avi")
    if not square and encoder not in _STORES_ASPECT:
        logger.warning(
            "%s in %s does not store the pixel aspect ratio %s: players will show square pixels; "
            "use .mp4, .nut or h264 to keep it",
            encoder,
            container,
            info.sample_aspect,
        )


def _colour(encoder: str, pix_fmt: str, info: ClipInfo) -> tuple[str, Literal["tv", "pc"]]:
    if yuv.is_rgb(pix_fmt):
        return "gbr", "pc"
    if encoder == "mjpeg":  # JPEG knows one matrix, full range only
        return "smpte170m", "pc"
    if info.colour.matrix not in yuv.LUMA_WEIGHTS:  # RGB, or a matrix that we cannot invert
        return "bt709", "tv"
    return info.colour.matrix, info.colour.range
