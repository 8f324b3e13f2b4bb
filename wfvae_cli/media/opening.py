"""Opens inputs with FFmpeg, each reading what was named and nothing else, or says why not."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from wfvae_cli.errors import VideoError
from wfvae_cli.media.inputs import Input, LocalFile
from wfvae_cli.media.suffixes import PLAYLISTS, is_playlist
from wfvae_cli.unreadable import why_unreadable

_HEAD = 4096
_READABLE_TEXT = re.compile(
    rb"P[1-7fF]\s|YUV4MPEG2 |#\?RADIANCE|/\* XPM \*/|(?s:/\*.*\*/\s*)?#define\s+\w+_width\s"
)
"""Magic of picture formats with text headers: PBM to PFM, Y4M, HDR, XPM, XBM."""
_SAFETENSORS = b'\0\0\0{"'
"""Bytes 5 to 9 of a safetensors file: the end of its header's length, and how the header begins."""
_LATENTS_REFUSED = "a safetensors file, not a video or an image: wfvae decode takes latents"

_OPENING_OTHERS = frozenset(
    {"avisynth", "concat", "dash", "dvdvideo", "hls", "imf", "lavfi", "mlv", "rtp", "rtsp", "sap"}
    | {"sdp", "tty", "vapoursynth", "vobsub", "webm_dash_manifest"}
)
"""Demuxers that open other files or sockets than the one given, or that draw text (`tty`)."""
_GENERATE_PTS = 1
"""FFmpeg's AVFMT_FLAG_GENPTS."""
_SCRIPTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"<MPD", b"[playlist]")
"""Magic of playlists, concat scripts and session descriptions."""


def check_exists(path: Path, *, trusted: bool = False) -> None:
    """Check that `path` is there, is not empty, and is neither prose nor a playlist.

    Args:
        path: path as the user gave it.
        trusted: see `reader.open_clip`.

    Raises:
        VideoError: it is not.
    """
    try:
        if not path.exists():
            raise FileNotFoundError
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        why = why_unreadable(path, "a video or an image", error)
        raise VideoError(f"{path}: {why}") from error
    if not head:
        raise VideoError(f"{path}: the file is empty: copy or download it again")
    if _is_script(head):
        if not (trusted and is_playlist(path)):
            raise VideoError(f"{path}: {_script_refused(path, trusted)}")
    elif _is_text(head) and not _READABLE_TEXT.match(head):
        raise VideoError(f"{path}: {_text_refused(head)}")
    if head[5:10] == _SAFETENSORS:
        raise VideoError(f"{path}: {_LATENTS_REFUSED}")


def open_container(
    source: Input, accelerator: HWAccel | None = None, *, trusted: bool = False
) -> InputContainer:
    """Open a container with FFmpeg.

    Args:
        source: the input to read.
        accelerator: hardware decoder, which has to be available; None for software.
        trusted: whether a playlist may open what lies beside or below it.

    Raises:
        VideoError: FFmpeg cannot; the message says why.
    """
    try:
        container = open_only(source, accelerator, trusted=trusted)
    except (av.error.FFmpegError, OSError, ValueError, OverflowError) as error:
        source.check()
        if isinstance(error, VideoError):
            raise
        message = _last_message(source, trusted) or getattr(error, "strerror", None) or ""
        raise VideoError(f"{source.name}: {explain_unreadable(source, message)}") from error
    # PyAV asks for missing timestamps to be made up, of frames in the order of decoding: those of
    # H.264 in AVI would go back and forth. See `rate.Clock` for what is done without.
    container.flags &= ~_GENERATE_PTS
    return container


def open_only(
    source: Input, accelerator: HWAccel | None = None, *, trusted: bool = False
) -> InputContainer:
    """Open a container so that FFmpeg cannot open anything but `source`; errors are PyAV's.

    Args:
        source: the input to read.
        accelerator: see `open_container`.
        trusted: see `open_container`.
    """
    options = {"protocol_whitelist": "file", "pattern_type": "none"}
    playlist = None
    if not isinstance(source, LocalFile):
        options["protocol_whitelist"] = "none"
    elif trusted:
        playlist = PLAYLISTS.get(source.path.suffix.lower())
    options["format_whitelist"] = _formats(playlist)
    if playlist == "concat":
        options["safe"] = "1"  # relative names without .. only
    arguments: dict[str, Any] = {"metadata_errors": "replace", "container_options": options}
    if isinstance(source, LocalFile) and playlist not in (None, "concat"):
        arguments["io_open"] = _opening_beside(source.path)
    container = av.open(source.target(), "r", hwaccel=accelerator, **arguments)
    assert isinstance(container, InputContainer)
    return container


@functools.cache
def _formats(playlist: str | None) -> str:
    """The demuxers that may be used: all that stay with one file, and that of a playlist."""
    names = {name for each in av.formats_available for name in each.split(",")}
    return ",".join(sorted((names - _OPENING_OTHERS) | ({playlist} if playlist else set())))


def _opening_beside(playlist: Path) -> Callable[[str, int, Mapping[str, str]], BinaryIO]:
    """Return an opener for the files that a playlist names, if they lie beside or below it."""
    root = playlist.resolve().parent

    def open_beside(url: str, flags: int, options: Mapping[str, str]) -> BinaryIO:
        path = Path(url.removeprefix("file:")).resolve()
        if not path.is_file():
            path = Path(unquote(url.removeprefix("file:"))).resolve()
        if "://" in url or root not in path.parents:
            raise VideoError(
                f"{playlist}: names {url}, which does not lie beside or below it: a playlist may "
                "open nothing else; name that file itself"
            )
        try:
            return path.open("rb")
        except OSError as error:
            raise VideoError(
                f"{playlist}: {path}: {why_unreadable(path, 'a part of the video', error)}"
            ) from error

    return open_beside


def _last_message(source: Input, trusted: bool) -> str | None:
    """Open a file that cannot be opened once more, for what FFmpeg has to say about it.

    FFmpeg's logger is global and calls Python from its own threads, which must not wait for the
    interpreter while a decoder is being freed elsewhere: it is captured while no other thread
    decodes.
    """
    if threading.active_count() > 1 or not isinstance(source, LocalFile):
        return None
    level = av.logging.get_level()
    # PANIC keeps errors for the exception without passing them on to Python's loggers.
    av.logging.set_level(av.logging.PANIC)
    try:
        open_only(source, trusted=trusted).close()
    except av.error.FFmpegError:
        last = av.logging.get_last_error()[1]
        return last[2].strip() if last else None
    finally:
        av.logging.set_level(level)
    return None


def _text_refused(head: bytes) -> str:
    if b'"wfvae-stats"' in head:
        return (
            "statistics of latents, not a video or an image: wfvae info shows them, and wfvae "
            "stats --merge combines them"
        )
    return "a text file, not a video or an image: is it the right file?"


def explain_unreadable(source: Input, message: str) -> str:
    """Say why FFmpeg could not open or decode `source`.

    Args:
        source: the opened input.
        message: FFmpeg's own words.
    """
    said = f" (FFmpeg: {message})" if message else ""
    head = source.head(_HEAD)
    if head[5:10] == _SAFETENSORS:
        return _LATENTS_REFUSED
    if _is_script(head):
        return _script_refused(None, trusted=False)
    if _is_text(head) and not _READABLE_TEXT.match(head):
        return _text_refused(head)
    found = source.structure()
    if found is not None and found.is_mp4 and not found.has_index:
        if found.has_items:
            return f"a HEIF image of a kind that is not supported{said}: convert it to PNG or AVIF"
        if source.rereadable:
            return (
                f"an MP4 without its index (moov), so nothing in it can be found{said}: the "
                "recording or download was cut off; get the whole file"
            )
    if not source.rereadable:
        return (
            f"not a video that can be read front to back{said}. MP4 and MOV keep their index at "
            "the end: name the file, or pipe it as Matroska (ffmpeg -i IN -c copy -f matroska -)"
        )
    return f"neither a video nor an image that FFmpeg can read{said}: is it what its name says?"


def _script_refused(path: Path | None, trusted: bool) -> str:
    if trusted and path is not None:
        return (
            "a playlist under another name, which would open other files: name the video itself, "
            "or call the file .m3u8 or .ffconcat if it is meant to be one"
        )
    return "a playlist or script, which would open other files: name the video itself"


def _is_script(head: bytes) -> bool:
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return begin.startswith(_SCRIPTS) or (begin.startswith(b"<?xml") and b"<MPD" in begin)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < _HEAD - 4:  # not merely a character cut in two
            return False
        text = head[: error.start].decode()
    return all(char.isprintable() or char.isspace() for char in text)
