"""Memory limits for pictures: an estimate of what is free, and an error for what does not fit."""

from __future__ import annotations

from pathlib import Path

from wfvae_cli.errors import VideoError

MAX_PIXELS = 1 << 28
"""Pixels of the largest picture accepted, as in FFmpeg: headers can ask for any memory."""

_MIB = 1 << 20
_FFMPEG_MARGIN = 128
"""Pixels that FFmpeg adds to each side before it compares a picture with `MAX_PIXELS`."""
_ALWAYS = 64 * _MIB
"""Bytes that a picture may always take: less than loading the program does."""
_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""Smallest limit of a control group (version 1) that stands for no limit, in bytes."""


def free_memory() -> int:
    """Bytes that this process can still take: of the system, and of its Linux control group."""
    import psutil  # here, because only large pictures need it

    return min([psutil.virtual_memory().available, *_free_in_cgroups()])


def check_size(name: str, size: tuple[int, int]) -> None:
    """Refuse a picture of more pixels than FFmpeg, which scales it, can handle.

    Args:
        name: name of the file in messages.
        size: width and height in pixels.

    Raises:
        VideoError: it is too large, or has no pixels.
    """
    width, height = size
    if width < 1 or height < 1:
        raise VideoError(f"{name}: the image is damaged: its size is {width}x{height}")
    if (width + _FFMPEG_MARGIN) * (height + _FFMPEG_MARGIN) > MAX_PIXELS:
        raise VideoError(
            f"{name}: {width}x{height} pixels, more than the {MAX_PIXELS} allowed: "
            "scale it down first"
        )


def check_memory(name: str, work: str, needed: int, limit: int | None) -> None:
    """Refuse a picture before it is decoded, if decoding would take too much memory.

    Args:
        name: name of the file in messages.
        work: what takes the memory, such as "decoding its 640x480 pixels".
        needed: bytes that it takes at most.
        limit: bytes that it may take; None is half of what is free.

    Raises:
        VideoError: it would.
    """
    if limit is None and needed <= _ALWAYS:
        return  # asking what is free takes longer than decoding a small picture
    allowed = free_memory() // 2 if limit is None else limit
    if needed > allowed:
        whose = "half of the memory that is free" if limit is None else "the limit for one image"
        raise VideoError(
            f"{name}: {work} takes up to {needed // _MIB} MiB of memory, more than {whose} "
            f"({allowed // _MIB} MiB): scale it down first"
        )


def _free_in_cgroups() -> list[int]:
    """Bytes left in each control group, of either version, that holds this process."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _CGROUPS / "memory" if controllers else _CGROUPS
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if not controllers:
            files = ("memory.max", "memory.current", "inactive_file")
        # A group is bound by the limits of those above it, too.
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if (free := _free_in(folder, *files)) is not None:
                left.append(free)
            if folder == root:
                break
    return left


def _free_in(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Bytes left in one control group; None where it has no limit, or cannot be read."""
    try:
        most = int((folder / limit).read_text())  # "max" is not a number
        used = int((folder / usage).read_text())
        if most >= _UNLIMITED:
            return None
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, most - used + int(stat.get(cache, 0)))  # cached files are evicted on demand
    except (OSError, ValueError):
        return None
