"""Hardware decoders: lookup, use, and the pixel formats of their frames.

Decoding falls back to software wherever the device or the codec is missing, and says so.
"""

from __future__ import annotations

import functools
import logging

import av
from av.codec.hwaccel import HWAccel, HWDeviceType, hwdevices_available
from av.video.codeccontext import VideoCodecContext

from wfvae_cli.errors import UsageError

_LOG = logging.getLogger("wfvae")

NONE, AUTO = "none", "auto"
_KEEPS_PROPERTIES = 18
"""The first version of PyAV whose downloaded frames keep their colours, times and rotation."""
_STORED_AS = {
    "nv12": "yuv420p",
    "nv16": "yuv422p",
    "nv24": "yuv444p",
    "p010le": "yuv420p10le",
    "p210le": "yuv422p10le",
    "p410le": "yuv444p10le",
    "p012le": "yuv420p12le",
}
"""Pixel formats of hardware decoders -> the format of software decoders for the same samples."""


def check(name: str) -> None:
    """Raise a `UsageError` unless `name` is `none`, `auto` or one of FFmpeg's kinds of device."""
    known = [NONE, AUTO, *sorted(set(HWDeviceType.__members__) - {NONE})]
    if name not in known:
        raise UsageError(f"expected --hwaccel to be one of {', '.join(known)}, got {name!r}")


def find(name: str) -> HWAccel | None:
    """Return the device to decode with, or None for software.

    Where what was asked for cannot be had, that is logged, once in a process.

    Args:
        name: `none`; a kind of device such as `cuda`; or `auto`, the first one that works.

    Raises:
        UsageError: the name is unknown.
    """
    check(name)
    device = None if name == NONE else _usable(name)
    return None if device is None else HWAccel(device, allow_software_fallback=True)


@functools.cache
def _usable(name: str) -> str | None:
    """The kind of device that `name` stands for, if it works here."""
    kinds = hwdevices_available() if name == AUTO else [name]
    for kind in kinds:
        why_not = _obstacle(kind)
        if why_not is None:
            return kind
    if name == AUTO:
        why_not = f"none of {', '.join(kinds) or 'none'} works here"
    _LOG.warning("no hardware decoder (%s): %s; decoding in software", name, why_not)
    return None


def _obstacle(kind: str) -> str | None:
    """Return the reason that this kind of device cannot decode; None where it can."""
    if int(av.__version__.split(".")[0]) < _KEEPS_PROPERTIES:
        return (
            f"PyAV {av.__version__} loses the colours of its frames, version "
            f"{_KEEPS_PROPERTIES} or later is needed"
        )
    if kind not in hwdevices_available():
        return "this FFmpeg was built without it"
    try:
        HWAccel(kind).create(av.Codec("h264", "r"))
    except NotImplementedError:  # PyAV's word for a codec without this kind of device
        return "it is none that FFmpeg's own decoders use"
    except av.error.FFmpegError as error:
        return f"it cannot be opened ({error.strerror})"
    return None


def in_use(context: VideoCodecContext) -> bool:
    """Tell whether a decoder that has given a frame runs on a device.

    It falls back by itself where the device refuses the profile, depth or size of a stream.
    """
    formats = (config.format for config in context.codec.hardware_configs)
    on_device = {fmt.name for fmt in formats if fmt is not None}
    return context.is_hwaccel and context.pix_fmt in on_device


def stored_as(pixel_format: str) -> str:
    """Return the stream's own pixel format, of frames that came from a device as `pixel_format`.

    Devices interleave the chroma planes; a file made of such frames is to say what a file made
    by software decoding says.
    """
    return _STORED_AS.get(pixel_format, pixel_format)
