"""Suffixes of the files that can be read: one table for datasets, comparisons and messages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

MediaKind = Literal["video", "image"]


def _suffixes(*lines: str) -> frozenset[str]:
    return frozenset(f".{name}" for line in lines for name in line.split())


SUFFIXES: Mapping[MediaKind, frozenset[str]] = {
    "video": _suffixes(
        # MP4, QuickTime and their kin; Matroska; AVI
        "mp4 m4v mov qt 3gp 3gpp 3g2 3gp2 f4v mj2 ismv mkv mk3d webm avi divx",
        # transport and program streams; discs; broadcast
        "ts m2ts m2t mts mpg mpeg mpe m1v m2v mpv vob vro evo dv dif mxf gxf wtv nsv",
        # Windows, Flash, Real, Ogg and other containers
        "wmv asf flv ogv ogm ogx rm rmvb nut ivf swf amv y4m fli flc roq bik dav ser",
        # streams without a container
        "h264 264 avc h265 265 hevc h266 266 vvc obu h261 h263 mjpg mjpeg cavs avs2 avs3 vc1 drc",
        # animations, of which a GIF of one picture is read as an image
        "gif apng",
    ),
    "image": _suffixes(
        "png jpg jpeg jpe jfif jif webp avif avifs heic heif bmp dib tif tiff jp2 j2k j2c jpc jpx",
        "jpf mpo jxl ppm pgm pbm pnm pam pfm tga icb vda vst dds psd qoi exr dpx hdr pcx sgi",
        "bw rgb rgba ras xbm xpm ico icns",
    ),
}
"""Suffixes of the files taken from a folder, in lower case; a file given by name may have any.

Some kinds (`.heic`, `.jxl`) can be read only as far as the installed FFmpeg and Pillow decode them.
Files that cannot are not skipped silently, but reported as failed.
"""

PLAYLISTS: Mapping[str, str] = {
    ".m3u8": "hls",
    ".m3u": "hls",
    ".mpd": "dash",
    ".ffconcat": "concat",
    ".concat": "concat",
}
"""Suffixes of playlists, and FFmpeg's demuxer of each."""


def is_playlist(path: str | os.PathLike[str]) -> bool:
    """Tell by the suffix whether a file is a playlist or concat script, if it is meant as one."""
    return os.path.splitext(path)[1].lower() in PLAYLISTS  # noqa: PTH122 (as in `kind_of`)


def kind_of(name: str | os.PathLike[str]) -> MediaKind | None:
    """Return what a file is by its name; None if it is neither a video nor an image."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 (datasets have millions of names)
    for kind, suffixes in SUFFIXES.items():
        if suffix in suffixes:
            return kind
    return None
