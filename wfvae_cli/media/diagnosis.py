"""Opens inputs, or says why they cannot be opened and what to do about it."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from wfvae_cli.errors import VideoError
from wfvae_cli.media.pipe import Pipe
from wfvae_cli.media.truncation import inspect
from wfvae_cli.unreadable import why_unreadable

_HEAD = 4096
_READABLE_TEXT = (b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml", b"<MPD", b"YUV4MPEG2 ", b"#?RADIANCE")
"""How playlists begin, and pictures whose header is text, as all the rest may look."""
_PORTABLE_MAP = re.compile(rb"P[1-7fF]\s")
"""How PBM, PGM, PPM, PAM and PFM begin, of text or binary."""
_SAFETENSORS = b'\0\0\0{"'
"""Bytes 5 to 9 of a safetensors file: the end of its header's length, and how the header begins."""


def check_exists(path: Path) -> None:
    """Raise a `VideoError` unless `path` is a file with something in it that is not prose."""
    try:
        if not path.exists():
            raise FileNotFoundError
        with path.open("rb") as file:
            head = file.read(_HEAD) if path.is_file() else b"?"
    except OSError as error:
        why = why_unreadable(path, "a video or an image", error)
        raise VideoError(f"{path}: {why}") from error
    if not head:
        raise VideoError(f"{path}: the file is empty: copy or download it again")
    readable = head.startswith(_READABLE_TEXT) or _PORTABLE_MAP.match(head)
    if _is_text(head) and not readable:
        raise VideoError(f"{path}: a text file, not a video or an image: is it the right file?")
    if head[5:10] == _SAFETENSORS:
        raise VideoError(
            f"{path}: a safetensors file, not a video or an image: wfvae decode takes latents"
        )


def open_container(source: Path | str | Pipe, accelerator: HWAccel | None = None) -> InputContainer:
    """Open a container with FFmpeg.

    Args:
        source: a file, a URL (any string), or standard input.
        accelerator: what decodes, if not software; it has to be there.

    Raises:
        VideoError: FFmpeg cannot; the message says why.
    """
    file = f"file:{source}" if isinstance(source, Path) else source
    try:
        container = av.open(file, "r", metadata_errors="replace", hwaccel=accelerator)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(source, Pipe):
            source.check()
        message = _last_message(file) if isinstance(file, str) else None
        reason = explain_unreadable(source, message or getattr(error, "strerror", None) or "")
        raise VideoError(f"{source}: {reason}") from error
    if container.format.name == "tty":  # FFmpeg shows text files as films of a terminal
        container.close()
        raise VideoError(f"{source}: a text file, not a video or an image")
    return container


def _last_message(file: str) -> str | None:
    """Open a file that cannot be opened once more, for what FFmpeg has to say about it.

    FFmpeg's logger is global and calls Python from its own threads, which must not wait for the
    interpreter while a decoder is being freed elsewhere: it is listened to while nobody else runs.
    """
    if threading.active_count() > 1:
        return None
    level = av.logging.get_level()
    # PANIC keeps errors for the exception without passing them on to Python's loggers.
    av.logging.set_level(av.logging.PANIC)
    try:
        av.open(file, "r", metadata_errors="replace").close()
    except av.error.FFmpegError:
        last = av.logging.get_last_error()[1]
        return last[2].strip() if last else None
    finally:
        av.logging.set_level(level)
    return None


def explain_unreadable(source: Path | str | Pipe, message: str) -> str:
    """Say why FFmpeg could not open `source`.

    Args:
        source: what was opened.
        message: FFmpeg's own words.
    """
    said = f" (FFmpeg: {message})" if message else ""
    if isinstance(source, Pipe):
        return (
            f"not a video that can be read from a pipe{said}. MP4 and MOV keep their index at "
            "the end: name the file, or pipe it as Matroska (ffmpeg -i IN -c copy -f matroska -)"
        )
    if isinstance(source, Path) and inspect(source).lacks_index:
        return (
            f"an MP4 without its index (moov), so nothing in it can be found{said}: the "
            "recording or download was cut off; get the whole file"
        )
    return f"neither a video nor an image that FFmpeg can read{said}: is it what its name says?"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < _HEAD - 4:  # not merely a character cut in two
            return False
        text = head[: error.start].decode()
    return all(char.isprintable() or char.isspace() for char in text)
