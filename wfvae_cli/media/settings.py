"""Options of encoders and muxers: quality, colour tags, reproducible files."""

from __future__ import annotations

import re

import av

from wfvae_cli.errors import UsageError
from wfvae_cli.media import yuv
from wfvae_cli.media.clip import ClipInfo

CRF = {
    "libx264": (18, 51),
    "libx264rgb": (18, 51),
    "libx265": (20, 51),
    "libsvtav1": (24, 63),
    "libaom-av1": (20, 63),
    "libvpx-vp9": (20, 63),
    "libvpx": (10, 63),
}
"""Default and highest constant rate factor: visually close to lossless, and the worst."""

THREADS = 8
"""Encoder threads. Fixed, since what x264 writes depends on their number (not on the cores)."""

AVFMT_TS_NEGATIVE = 0x40000
"""FFmpeg's flag of containers in which times may begin below 0 (by an edit list)."""

GRID_CODECS = ("mpeg4", "mpeg2video", "mpeg1video")
"""Encoders that know frame numbers only, and are steered by a quantiser."""


def quality(encoder: str, crf: float | None) -> dict[str, str]:
    """Return the options that set quality and size.

    Args:
        encoder: FFmpeg's name.
        crf: constant rate factor; None for the default.

    Raises:
        UsageError: `crf` is out of range, or the encoder has none.
    """
    if encoder not in CRF:
        if crf is not None:
            raise UsageError(
                f"{encoder} has no constant rate factor; --crf is for {', '.join(sorted(CRF))}"
            )
        # Encoders of the MPEG-4 Part 2 age default to 200 kbit/s, too little for any clip.
        quantiser = {"flags": "+bitexact+qscale", "global_quality": str(2 * 118)}  # FF_QP2LAMBDA
        return quantiser if encoder in (*GRID_CODECS, "mjpeg") else {}
    default, worst = CRF[encoder]
    if crf is not None and not 0 <= crf <= worst:
        raise UsageError(f"expected --crf of 0 (best) to {worst} for {encoder}, got {crf:g}")
    options = {"crf": f"{default if crf is None else crf:g}"}
    return options | {"b": "0"} if encoder.startswith("libvpx") else options


def reproducible(encoder: str) -> dict[str, str]:
    """Return the options that make equal input equal bytes, however many cores there are."""
    options = {"flags": "+bitexact", "threads": str(THREADS)}
    if encoder in ("libx264", "libx264rgb"):
        # PyAV asks for slices, whose number costs bits; threads over frames do not. The
        # macroblock tree's vector code (AVX-512) reads memory it never wrote, and its
        # approximate reciprocals differ between makers of CPUs; files are as small without.
        # The preset leaves the cores to the model: 40% less work than x264's default, in files
        # of the same size that are half a decibel worse.
        return options | {"preset": "faster", "x264-params": "sliced-threads=0:mbtree=0"}
    if encoder == "libx265":
        return options | {"x265-params": "frame-threads=4:info=0:log-level=none"}
    if encoder == "ffv1":
        return options | {"level": "3", "slices": "16", "slicecrc": "1", "g": "1"}
    return options


def tags(info: ClipInfo, stored: yuv.PictureFormat) -> dict[str, str]:
    """Return the options that tell players how the colours are stored."""
    colours = {
        "colorspace": "rgb" if stored.matrix == "gbr" else stored.matrix,
        "color_range": stored.range,
        "color_primaries": info.colour.primaries,
        "color_trc": info.colour.transfer,
    }
    if yuv.subsampling(stored.pix_fmt)[0] == 2:
        colours["chroma_sample_location"] = "left" if stored.chroma == "left" else "center"
    return colours


def timing(container: str) -> dict[str, str]:
    """Return the options that keep the first frame at 0 in this container."""
    # B-frames make the first dts negative. An edit list hides that, and Matroska stores no dts;
    # other containers would show the whole clip later.
    keeps_pts = av.ContainerFormat(container, "w").flags & AVFMT_TS_NEGATIVE
    return {} if keeps_pts or container in ("matroska", "webm") else {"bf": "0"}


def muxing(container: str, streaming: bool) -> dict[str, str]:
    """Return the options of the muxer; `streaming` where it cannot seek in its output."""
    # Sound is fed beside the pictures, so a second of patience is plenty; FFmpeg's ten would
    # hold ten seconds of lossless video in memory where the sound pauses.
    options = {"fflags": "+bitexact", "max_interleave_delta": "1000000"}
    if streaming and re.fullmatch("mp4|mov|ipod|3gp|3g2", container):
        # Not empty_moov, which cannot have the edit list that keeps timestamps.
        options["movflags"] = "frag_keyframe+delay_moov"
    return options
