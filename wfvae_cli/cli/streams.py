"""Standard streams that are closed, full or broken: an error with a code, never a traceback.

A program that is started with a closed descriptor (`wfvae … >&-`) gets that number for the next
file that it opens, and whatever is printed would go there. So closed ones are opened first, on
`/dev/null` and in the direction that fails when it is used.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from wfvae_cli.errors import InputError, OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_FAILING = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_RDWR}
"""Mode of `/dev/null` for each closed descriptor: only stderr accepts what is written to it."""


def repair_streams() -> None:
    """Replace the standard streams by ones whose failures are our errors, or none."""
    for descriptor, flags in _FAILING.items():
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free: this one
    stdin = _Input(0, "r", closefd=False)
    stdin.name = "standard input"  # its name in messages
    sys.stdin = io.TextIOWrapper(io.BufferedReader(stdin))
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr)


def release_stdout() -> None:
    """Redirect stdout to `/dev/null`, so that Python does not flush its buffer to a broken one."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = sys.stdout.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def drop_unwritable_output() -> None:
    """Flush stdout, and drop what it cannot take: the command has failed already."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        release_stdout()


class _Input(io.FileIO):
    """Standard input: what cannot be read is an `InputError`."""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise _unreadable(error) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise _unreadable(error) from error


def _unreadable(error: OSError) -> InputError:
    return InputError(
        f"cannot read standard input ({error.strerror}): pipe a file into it, or name one"
    )


class _Output(io.FileIO):
    """Standard output: what cannot be written is an `OutputError`, but for a closed pipe."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # the reader closed the pipe
        except OSError as error:
            raise OutputError(
                f"cannot write standard output ({error.strerror}): write to a file with -o, or "
                "see where the output goes"
            ) from error


class _Messages(io.FileIO):
    """Standard error: what cannot be written is lost, and changes no exit code."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _text(raw: io.FileIO, former: TextIO | None) -> io.TextIOWrapper:
    """Text over `raw`, encoded as the stream that it replaces."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(former, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=isinstance(raw, _Messages) or raw.isatty(),
    )
