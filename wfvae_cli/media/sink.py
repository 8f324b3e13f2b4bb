"""Between FFmpeg's muxers and Python: the file that they write to, and what they complain of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import av
import av.logging


class Sink:
    """The file that FFmpeg writes to, which keeps an error until we are back in Python.

    PyAV would carry an exception through FFmpeg too, but loses `KeyboardInterrupt` and prints
    all but the first.
    """

    def __init__(self, file: BinaryIO, *, seekable: bool) -> None:
        self.name = "output"
        self.error: BaseException | None = None
        self._file = file
        self._seekable = seekable
        self._discarding = False

    def write(self, data: bytes) -> int:
        """Write all of `data`, unless something went wrong before."""
        if self.error is None and not self._discarding:
            try:
                self._file.write(data)
            except BaseException as error:
                self.error = error
        return len(data)

    def seekable(self) -> bool:
        """Tell if `seek` works: muxers then go back and complete their headers at the end."""
        return self._seekable

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset`; as `io.IOBase.seek`."""
        try:
            return self._file.seek(offset, whence)
        except BaseException as error:
            self.error = self.error or error
            return 0

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._file.tell()

    def flush(self) -> None:
        """Hand what Python holds back to the system."""
        self._file.flush()

    def check(self) -> None:
        """Raise what went wrong in a call from FFmpeg."""
        if self.error is not None:
            raise self.error

    def discard(self) -> None:
        """Write nothing more: the output is given up."""
        self._discarding = True


@contextlib.contextmanager
def ffmpeg_messages() -> Iterator[list[str]]:
    """Collect FFmpeg's own error messages, which PyAV drops by default."""
    messages: list[str] = []
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as logs:
            try:
                yield messages
            finally:
                messages += [" ".join(text.split()) for _, _, text in logs]
    finally:
        av.logging.set_level(level)


def reason(error: BaseException) -> str:
    """FFmpeg's last message about an error, or what the error says itself."""
    if isinstance(error, av.FFmpegError):
        _, _, message = str(error).partition("last error log: ")
        return " ".join(message.split()) or error.strerror or str(error)
    return str(error)
