"""Inputs that FFmpeg reads a clip's bytes from: a file, or a pipe."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from wfvae_cli.media.truncation import (
    TAIL,
    Structure,
    announced_size,
    is_mxf,
    mxf_footer,
    structure_of,
)

HEAD = 1 << 18
"""Bytes of a file that cannot be read twice in which its headers are looked for."""

_PADDING = 1 << 20
"""Bytes of zeros at an end that count as padding, whatever follows."""


class Input(ABC):
    """One source of bytes, to be given to FFmpeg.

    Attributes:
        name: its name in messages: a path, a URL or `standard input`.
        rereadable: whether it can be read again from any point.
    """

    name: str
    rereadable = True

    @abstractmethod
    def target(self) -> object:
        """Return what `av.open` takes to read the input from its beginning."""

    @abstractmethod
    def head(self, count: int) -> bytes:
        """Return the first bytes, at most `count`."""

    @abstractmethod
    def structure(self) -> Structure | None:
        """Return the container's parts as far as they have come; None where that is not known."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Bytes of the whole; None where that is not known (yet)."""

    def view(self) -> BinaryIO:
        """Open the input, or as much of it as can be read twice, for a look at its headers."""
        return io.BytesIO(self.head(HEAD))

    def check(self) -> None:  # noqa: B027 (files have nothing to do here)
        """Raise what went wrong while FFmpeg was reading, such as Ctrl-C or a lost connection."""

    def finish(self) -> None:  # noqa: B027 (files have nothing to do here)
        """Read what FFmpeg left unread, so that `size` and `structure` are final."""

    def is_sound(self) -> bool:
        """Tell if each part of the container was followed by another one, or by the end."""
        found = self.structure()
        return found is not None and found.sound and found.position == self.size

    def break_at(self) -> int | None:
        """Return where the first part lies that its container does not know.

        None if there is none, or if only padding follows: zeros, or bytes beyond the announced
        end.
        """
        found = self.structure()
        if found is None or found.sound or not found.known:
            return None
        head = self.head(1024)
        announced = mxf_footer(head) or None if is_mxf(head) else announced_size(head)
        goes_on = self._goes_on(found.position) if announced is None else found.position < announced
        return found.position if goes_on else None

    def _goes_on(self, position: int) -> bool:
        """Tell if anything but zeros lies behind a position."""
        with self.view() as file:
            file.seek(position)
            return bool(file.read(_PADDING).strip(b"\0"))

    def tail(self) -> bytes:
        """Return the last `TAIL` bytes, once all have come."""
        with self.view() as file:
            file.seek(max(0, (self.size or 0) - TAIL))
            return file.read()

    def opened(self) -> None:  # noqa: B027 (files have nothing to do here)
        """Take note that frames come, so that no time limit for opening applies any more."""

    def close(self) -> None:  # noqa: B027 (files are FFmpeg's, standard input is the caller's)
        """Let go of what was opened for it."""

    def announced(self) -> int | None:
        """Return the bytes that the container says it has; None where it does not."""
        size = announced_size(self.head(1024))
        if size is not None:
            return size
        found = self.structure()
        return found.position if found is not None and found.known else None


class Passing:
    """The parts of a container, followed over its bytes as they pass by, from the first on."""

    def __init__(self, head: bytes) -> None:
        self.structure = Structure(head)
        self.count = 0
        """Bytes that have passed."""
        self.end = b""
        """The last `TAIL` of them."""
        self._tail = b""
        """The bytes that passed last, from the next part on."""

    def take(self, data: bytes) -> None:
        """Take the next bytes."""
        begin = self.structure.position - self.count
        self.count += len(data)
        self.end = (self.end + data[-TAIL:])[-TAIL:]
        if self.structure.sound and begin < len(data):
            self._tail += data[max(begin, 0) :]
            while len(self._tail) >= Structure.HEAD and self.structure.sound:
                self._hop()

    def finish(self) -> None:
        """Take note that no more bytes come."""
        while self._tail and self.structure.sound:
            self._hop()

    def _hop(self) -> None:
        before = self.structure.position
        self.structure.advance(self._tail[: Structure.HEAD])
        self._tail = self._tail[self.structure.position - before :]


class LocalFile(Input):
    """A file of this machine, which FFmpeg opens by itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    @override
    def target(self) -> str:
        # Without the prefix, FFmpeg would take a name with a colon for a URL.
        return f"file:{self.path}"

    @override
    def head(self, count: int) -> bytes:
        with self.path.open("rb") as file:
            return file.read(count)

    @override
    def structure(self) -> Structure:
        with self.view() as file:
            return structure_of(file)

    @property
    @override
    def size(self) -> int:
        return self.path.stat().st_size

    @override
    def view(self) -> BinaryIO:
        return self.path.open("rb")

    @override
    def announced(self) -> int | None:
        # A Matroska file's header is enough: its parts are not walked.
        head = self.head(1024)
        size = announced_size(head)
        if size is not None or head[:4] == b"\x1a\x45\xdf\xa3":
            return size
        return super().announced()


class Buffered(Input):
    """A whole file in memory, which came through a pipe."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self._data = data

    @override
    def target(self) -> BinaryIO:
        return self.view()

    @override
    def head(self, count: int) -> bytes:
        return self._data[:count]

    @override
    def structure(self) -> Structure:
        return structure_of(self.view())

    @property
    @override
    def size(self) -> int:
        return len(self._data)

    @override
    def view(self) -> BinaryIO:
        return io.BytesIO(self._data)


class Pipe(Input):
    """Bytes from a stream that cannot be sought in, which can be looked ahead into.

    FFmpeg reads it front to back, so what passes by is enough to know the parts that the
    container is made of.

    Args:
        file: where they come from.
        name: its name in messages.
        owned: whether `close` closes the file.
    """

    rereadable = False

    def __init__(
        self, file: BinaryIO, name: str = "standard input", *, owned: bool = False
    ) -> None:
        self.name = name
        self._owned = owned
        self._file = file
        self._ahead = b""
        self._stop: BaseException | None = None
        self._ended = False
        self._first = self.peek(1024)
        self._passing = Passing(self._first)

    def __str__(self) -> str:
        return self.name

    @override
    def target(self) -> Pipe:
        return self

    @override
    def head(self, count: int) -> bytes:
        # Bytes that have passed cannot be read again.
        return self._first[:count] if self._passing.count else self.peek(count)

    @override
    def structure(self) -> Structure:
        return self._passing.structure

    @property
    @override
    def size(self) -> int | None:
        return self._passing.count if self._ended else None

    def peek(self, count: int) -> bytes:
        """Return the first `count` bytes to come, or fewer at the end, left to be read."""
        while len(self._ahead) < count:
            more = self._file.read(count - len(self._ahead))
            if not more:
                break
            self._ahead += more
        return self._ahead[:count]

    def read(self, count: int = -1) -> bytes:
        """Read up to `count` bytes; none at the end only, or once a signal came, see `check`."""
        try:
            data = self._file.read(count) if not self._ahead else self._read_ahead(count)
        except Exception:
            raise
        except BaseException as stop:  # FFmpeg calls this, and would lose it
            self._stop = stop
            return b""
        self._passing.take(data)
        return data

    @override
    def _goes_on(self, position: int) -> bool:
        return position < self._passing.count

    @override
    def tail(self) -> bytes:
        return self._passing.end

    @override
    def check(self) -> None:
        if self._stop is not None:
            raise self._stop

    @override
    def finish(self) -> None:
        while self._passing.count < (self.announced() or 0) and self.read(1 << 16):
            pass
        self.check()
        self._ended = True
        self._passing.finish()

    @override
    def close(self) -> None:
        if self._owned:
            self._file.close()

    def _read_ahead(self, count: int) -> bytes:
        if count < 0:
            data, self._ahead = self._ahead + self._file.read(), b""
        else:
            data, self._ahead = self._ahead[:count], self._ahead[count:]
        return data
