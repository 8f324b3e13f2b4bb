"""Reads and writes that are whole, over files and pipes that may do them in pieces."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from wfvae_cli.atomic import output_error
from wfvae_cli.errors import OutputError, WfvaeError

_PIECE_BYTES = 1 << 20


class Writable(Protocol):
    """Target of written bytes: a file, a pipe, a checksum."""

    def write(self, data: memoryview, /) -> int:
        """Write some of `data`, and say how many bytes."""


class Digest:
    """SHA-256 of what is written to it."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def write(self, data: memoryview | bytes, /) -> int:
        """Take the next bytes."""
        self._sha256.update(data)
        return len(data)

    def hexdigest(self) -> str:
        """Give the digest of all bytes so far."""
        return self._sha256.hexdigest()


def read_up_to(source: IO[bytes], count: int) -> bytes:
    """Read `count` bytes, or fewer only where `source` ends."""
    pieces = []
    while count > 0:
        piece = source.read(min(count, _PIECE_BYTES))
        if not piece:
            break
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def read_into(source: io.FileIO, position: int, target: memoryview) -> None:
    """Fill `target` from `position` of an unbuffered file.

    Raises:
        EOFError: the file ends first.
    """
    source.seek(position)
    while len(target):
        count = source.readinto(target)
        if not count:
            raise EOFError(f"{len(target)} bytes are missing")
        target = target[count:]


def write_all(target: Writable, data: memoryview | bytes) -> None:
    """Write every byte of `data`."""
    view = memoryview(data)
    while len(view):
        view = view[target.write(view) :]


def temporary_file(directory: Path | None) -> io.FileIO:
    """Open an unbuffered file without a name, which is gone when it is closed, however that is."""
    with temporary_errors(directory):
        return tempfile.TemporaryFile(dir=directory, buffering=0)


@contextlib.contextmanager
def temporary_errors(directory: Path | None) -> Iterator[None]:
    """Turn failures of a `temporary_file` in `directory` into `OutputError`."""
    try:
        yield
    except WfvaeError:
        raise
    except (OSError, EOFError) as error:
        where = f"a temporary file for latents in {directory or tempfile.gettempdir()}"
        if isinstance(error, EOFError):
            raise OutputError(f"{where} became shorter while it was used ({error})") from error
        raise output_error(where, error) from error
