"""Standard input as a file for FFmpeg: looked ahead into, never closed, its end checked."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from wfvae_cli.media.truncation import size_in_header


class Pipe:
    """Bytes from a stream that cannot be sought in.

    FFmpeg reads it front to back, so what passes by is enough to know the sizes that the
    top-level parts of an MP4, or the whole of a Matroska or AVI file, announce.
    """

    def __init__(self, file: BinaryIO, name: str = "standard input") -> None:
        self._file = file
        self._name = name
        self._ahead = b""
        self._passed = 0
        self._next = 0
        """Position of the next MP4 box's header."""
        self._header = b""
        self._is_mp4: bool | None = None
        self._stop: BaseException | None = None
        self._in_header = size_in_header(io.BytesIO(self.peek(1024)))

    def __str__(self) -> str:
        return self._name

    def peek(self, count: int) -> bytes:
        """The first `count` bytes to come, or fewer at the end, left to be read."""
        while len(self._ahead) < count:
            more = self._file.read(count - len(self._ahead))
            if not more:
                break
            self._ahead += more
        return self._ahead[:count]

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes; empty at the end only, or once a signal came, see `check`."""
        try:
            return self._read(count)
        except Exception:
            raise
        except BaseException as stop:  # FFmpeg calls this, and would lose it
            self._stop = stop
            return b""

    def check(self) -> None:
        """Raise what came while FFmpeg was reading and is to end the program, such as Ctrl-C."""
        if self._stop is not None:
            raise self._stop

    def missing(self) -> str | None:
        """Read what FFmpeg left unread, and say what the file then still owes.

        Raises:
            BaseException: as `check`.
        """
        while self._passed < self._promised() and self.read(1 << 16):
            pass
        self.check()
        if self._passed < self._promised():
            return f"its header announces {self._promised()} bytes, {self._passed} came"
        return None

    def _read(self, count: int) -> bytes:
        if self._ahead and count > 0:
            data, self._ahead = self._ahead[:count], self._ahead[count:]
        else:
            data = self._ahead + self._file.read(count)
            self._ahead = b""
        self._follow(data)
        return data

    def _promised(self) -> int:
        if self._in_header is None:
            return self._next if self._is_mp4 else 0
        return self._in_header

    def _follow(self, data: bytes) -> None:
        """Hop from box to box (ISO/IEC 14496-12) over the bytes passing by."""
        end = self._passed + len(data)
        while self._is_mp4 is not False:
            have = self._next + len(self._header)
            take = data[have - self._passed : have - self._passed + 16 - len(self._header)]
            if have >= end or not take:
                break
            self._header += take
            if len(self._header) < 16:
                break
            length, name, wide = struct.unpack(">I4sQ", self._header)
            if self._is_mp4 is None:
                self._is_mp4 = name in (b"ftyp", b"styp")
            length = wide if length == 1 else length
            if length < 8:  # up to the end, or no box
                self._is_mp4 = False
            self._next, self._header = self._next + length, b""
        self._passed = end
