"""The file behind an item: its stamp and hash, and a local copy of a remote one."""

from __future__ import annotations

import contextlib
import hashlib
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wfvae_cli.dataset import remote
from wfvae_cli.dataset.items import Item
from wfvae_cli.errors import ChangedError, VideoError, WfvaeError
from wfvae_cli.media.images import PATTERN, sequence

_PIECE = 1 << 20
_MOST_HASHES = 1024
_HASHES: dict[tuple[str, str], str] = {}
"""Hashes by path and stamp: a film of a thousand scenes is a thousand items, read once."""


@dataclass(frozen=True)
class Source:
    """A local file to open; a temporary copy, where the item is remote."""

    path: str
    stamp: str
    sha256: str
    """Hash of the content; of the contents in order, where there are several files."""


def stamp(path: str) -> str:
    """Size and time of change: if they stay, so did the content.

    Raises:
        InputError: there is no such file, or it is no regular one.
    """
    if remote.is_url(path):
        return remote.stamp(path)
    try:
        parts = [Path(part).stat() for part in _files(path)]
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror or error}") from error
    if not all(stat.S_ISREG(part.st_mode) for part in parts):
        raise VideoError(f"{path}: expected a regular file, got a pipe, device or folder")
    size, changed = sum(p.st_size for p in parts), max(p.st_mtime_ns for p in parts)
    return f"{size}:{changed}"


@contextlib.contextmanager
def at_hand(item: Item, heartbeat: Callable[[], None]) -> Iterator[tuple[str, str]]:
    """Make an item's file local: the file itself, or a temporary copy of a remote one.

    Args:
        item: which one.
        heartbeat: called for every piece that came.

    Yields:
        What to open, and the item's `stamp`. Errors that name the copy name the item instead.

    Raises:
        InputError: it cannot be had.
    """
    marked = stamp(item.path)
    if not item.is_url:
        yield item.path, marked
        return
    suffix = Path(item.path).suffix[:16]
    with tempfile.TemporaryDirectory(prefix="wfvae-") as folder:
        copy = str(Path(folder) / f"source{suffix}")
        try:
            remote.download(item.path, copy, heartbeat)
            yield copy, marked
        except WfvaeError as error:
            if copy not in str(error):
                raise
            raise type(error)(str(error).replace(copy, item.path)) from error


@contextlib.contextmanager
def opened(item: Item, heartbeat: Callable[[], None]) -> Iterator[Source]:
    """Open an item's file locally, and hash its content.

    Args:
        item: which one.
        heartbeat: called for every piece that was read.

    Raises:
        InputError: it cannot be read.
    """
    with at_hand(item, heartbeat) as (path, marked):
        yield Source(path, marked, content_sha256(path, marked, heartbeat))


def check_unchanged(item: Item, marked: str) -> None:
    """Check that a file has not changed since its stamp was taken.

    Args:
        item: which one; a remote file was read as the copy that it was.
        marked: its `stamp` before.

    Raises:
        ChangedError: it has another one now.
    """
    if not item.is_url and stamp(item.path) != marked:
        raise ChangedError(f"{item.path}: changed while it was read")


def content_sha256(path: str, marked: str, heartbeat: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file's content, in hex.

    Args:
        path: a file of this machine, or a pattern of numbered images.
        marked: its `stamp`; while it stays, the file is not read again.
        heartbeat: called for every piece that was read.
    """
    known = _HASHES.get((path, marked))
    if known is not None:
        return known
    digest = hashlib.sha256()
    try:
        for part in _files(path):
            with open(part, "rb", buffering=0) as file:  # noqa: PTH123 (a name as it came)
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    heartbeat()
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror or error}") from error
    if len(_HASHES) >= _MOST_HASHES:
        _HASHES.clear()
    _HASHES[path, marked] = digest.hexdigest()
    return digest.hexdigest()


def _files(path: str) -> list[str]:
    name = Path(path)
    if PATTERN.search(name.name) and not name.exists():
        return [str(part) for part in sequence(name)]
    return [path]
