"""Files of web servers: read in pieces, from the host that the user named and from no other."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.parse import urlsplit

from typing_extensions import override

from wfvae_cli.errors import VideoError
from wfvae_cli.media.inputs import HEAD, Input, Passing
from wfvae_cli.media.truncation import Structure

SILENCE = 30.0
"""Seconds after which a server that sends nothing is given up."""
OPENING = 60.0
"""Seconds after which a server is given up whose file has not shown a frame."""
_TRIES = 3
_NEAR = 1 << 18
"""Bytes that are read rather than asked for anew."""


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects within one host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.hostname != old.hostname or new.scheme not in ("http", "https"):
            raise VideoError(
                f"{req.full_url}: redirects to another host, {newurl}: name that URL if you trust "
                "its host"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def request(url: str, *, start: int = 0, method: str = "GET") -> Any:
    """Ask a web server for a file; redirects are followed within its host only.

    Args:
        url: `http://` or `https://`.
        start: the first byte wanted; servers may send all from 0 on.
        method: `GET` or `HEAD`.

    Returns:
        The response, to be read and closed.

    Raises:
        VideoError: there is no answer within `SILENCE` seconds, or it is a refusal.
    """
    headers = {"User-Agent": "wfvae", "Accept-Encoding": "identity"}
    if method == "GET":
        headers["Range"] = f"bytes={start}-"
    opener = urllib.request.build_opener(_SameHost)
    asked = urllib.request.Request(url, headers=headers, method=method)
    try:
        return opener.open(asked, timeout=SILENCE)
    except VideoError:
        raise
    except urllib.error.HTTPError as error:
        raise VideoError(
            f"{url}: the server answers {error.code} {error.reason}: check the address"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        raise VideoError(f"{url}: {_told(error)}") from error


def _told(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return f"the server sent nothing for {SILENCE:g} s: check it, or download the file first"
    return f"cannot be read from its server ({cause}): check the address and the network"


class WebFile(Input):
    """A file of a web server, as an object that FFmpeg reads and seeks in.

    Where the server sends no ranges, it is read front to back, like a pipe.
    """

    def __init__(self, url: str) -> None:
        """Connect.

        Raises:
            VideoError: see `request`.
        """
        self.name = url
        self._deadline: float | None = time.monotonic() + OPENING
        self._error: BaseException | None = None
        self._position = 0
        self._head = b""
        self._response = request(url)
        self._at = 0
        """Position in the file of the response's next byte."""
        self.rereadable = self._response.status == 206
        self._size = whole_size(self._response)
        self._passing = Passing(self.head(16))

    def __str__(self) -> str:
        return self.name

    @override
    def target(self) -> WebFile:
        self._position = 0
        return self

    def seekable(self) -> bool:
        """Tell PyAV whether `seek` works."""
        return self.rereadable

    @override
    def head(self, count: int) -> bytes:
        want = min(count, HEAD)
        while len(self._head) < want and self._at == len(self._head):
            if not self._receive(want - len(self._head)):
                break
        return self._head[:count]

    @override
    def structure(self) -> Structure | None:
        # Only the parts within the head: walking all of them would take a request for each.
        head = self.head(HEAD)
        found = Structure(head)
        while found.known and found.sound and found.position + Structure.HEAD <= len(head):
            found.advance(head[found.position :][: Structure.HEAD])
        return found if found.has_index or found.has_items else None

    @override
    def announced(self) -> int | None:
        # The size of an MP4 is known from its index alone, which may lie beyond the head.
        return None if Structure(self.head(16)).known else super().announced()

    @property
    @override
    def size(self) -> int | None:
        return self._size

    @override
    def check(self) -> None:
        if self._error is not None:
            raise self._error

    @override
    def is_sound(self) -> bool:
        # A file that was not read from its first to its last byte counts as sound.
        self._passing.finish()
        return self._passing.count != self._size or (
            self._passing.structure.sound and self._passing.structure.position == self._size
        )

    @override
    def break_at(self) -> int | None:
        found = self._passing.structure
        if self._passing.count != self._size or not found.known or found.sound:
            return None
        return found.position

    @override
    def tail(self) -> bytes:
        return self._passing.end if self._passing.count == self._size else b""

    @override
    def opened(self) -> None:
        self._deadline = None

    def close(self) -> None:
        """Close the connection."""
        self._response.close()

    def read(self, count: int) -> bytes:
        """Read up to `count` bytes; none at the end, or once something went wrong, see `check`."""
        try:
            self.check()
            return self._read(count)
        except BaseException as error:  # FFmpeg calls this, and would lose it
            self._error = self._error or error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset`; as `io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size or 0}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position of the next byte to read."""
        return self._position

    def _read(self, count: int) -> bytes:
        if self._position < len(self._head):
            data = self._head[self._position : self._position + count]
        else:
            for _ in range(_TRIES):
                self._go_to(self._position)
                data = self._receive(count)
                if data or self._size is None or self._position >= self._size:
                    break
                if not self.rereadable:
                    break
                self._connect(self._position)
            if not data and self._size is not None and self._position < self._size:
                raise VideoError(
                    f"{self.name}: the connection ended after {self._position} of {self._size} "
                    "bytes: try again, or download the file first"
                )
        new = data[max(0, self._passing.count - self._position) :]
        if new and self._position <= self._passing.count:
            self._passing.take(new)
        self._position += len(data)
        return data

    def _go_to(self, position: int) -> None:
        if self._at <= position <= self._at + _NEAR or not self.rereadable:
            while self._at < position and self._receive(position - self._at):
                pass
        if self._at != position:
            self._connect(position)

    def _connect(self, position: int) -> None:
        self._response.close()
        self._response = request(self.name, start=position)
        self._at = position if self._response.status == 206 else 0

    def _receive(self, count: int) -> bytes:
        """Take what has come of the response, at most `count` bytes."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise VideoError(
                f"{self.name}: showed no frame within {OPENING:g} s: download it first"
            )
        try:
            data: bytes = self._response.read1(count)
        except (OSError, HTTPException) as error:
            if isinstance(error, TimeoutError):
                raise VideoError(f"{self.name}: {_told(error)}") from error
            data = b""
        if self._at == len(self._head) < HEAD:
            self._head += data
        self._at += len(data)
        return data


def whole_size(response: Any) -> int | None:
    """Return the bytes of the whole file that a response is of, if the server says."""
    if response.status == 206:
        whole = (response.headers.get("Content-Range") or "").rpartition("/")[2]
        return int(whole) if whole.isdigit() else None
    length = response.headers.get("Content-Length") or ""
    return int(length) if length.isdigit() else None


def of_url(url: str) -> WebFile:
    """Connect to the host that a URL names.

    Raises:
        VideoError: it is no URL of a web server, or there is no answer.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise VideoError(
            f"{url}: expected http:// or https://: download it first, or pipe it "
            "(ffmpeg -i URL -c copy -f matroska - | wfvae ... -)"
        )
    return WebFile(url)
