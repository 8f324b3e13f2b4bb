"""`manifest.jsonl`: a line for every item that was dealt with, readable whenever a run dies."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout
from typing_extensions import override

from wfvae_cli.atomic import reported
from wfvae_cli.dataset import remote
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.errors import OutputError

_log = logging.getLogger("wfvae")

_BLOCK = 1 << 16
_LONGEST_LINE = 1 << 20
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of file systems without locks: there, nothing keeps two runs apart."""
_SEND_EVERY = 30.0
"""Seconds between two times that a manifest is sent to a store."""


class RunManifest:
    """Appends results to a manifest, which this process has for itself until it is closed.

    Each line is one `write` to a file opened for appending, so that a kill leaves whole lines; if
    a machine dies in the middle of one, opening it again cuts that piece off.

    Raises:
        OutputError: it cannot be written, or another run writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # A file of its own: some systems let nobody read a file that is locked.
        self._lock_file = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
        with reported(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            with reported(path):
                self._lock()
                self._cut_torn_line()
        except BaseException:
            os.close(self._descriptor)
            self._unlock()
            raise

    def append(self, result: ItemResult) -> None:
        """Add a line."""
        line = json.dumps(result.to_json()).encode() + b"\n"
        with reported(self.path):
            while line:
                line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """Make the lines safe, and let others write."""
        with contextlib.suppress(OSError):
            os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._unlock()

    def __enter__(self) -> RunManifest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            self._lock_file.acquire(timeout=0)
        except NotImplementedError:
            return  # no locks on this file system
        except Timeout:
            raise OutputError(
                f"{self.path}: another run is writing here: wait for it, choose another -o, or "
                "give each run a --shard of its own"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _unlock(self) -> None:
        if self._lock_file.is_locked:
            # Unlink before the release: afterwards, the lock may be another run's.
            with contextlib.suppress(OSError):
                os.unlink(self._lock_file.lock_file)  # noqa: PTH108 (a name as it came)
            self._lock_file.release()

    def _cut_torn_line(self) -> None:
        end = size = os.fstat(self._descriptor).st_size
        while end:
            begin = max(0, end - _BLOCK)
            os.lseek(self._descriptor, begin, os.SEEK_SET)
            at = os.read(self._descriptor, end - begin).rfind(b"\n")
            if at >= 0:
                end = begin + at + 1
                break
            end = begin
        if end < size:
            os.ftruncate(self._descriptor, end)


class MirroredManifest(RunManifest):
    """A manifest of a remote store: kept on this machine, and sent there every so often.

    What a killed run had not sent is found out from the outputs themselves.

    Raises:
        InputError, OutputError: the store does not answer.
    """

    def __init__(self, path: Path, url: str) -> None:
        path.unlink(missing_ok=True)
        if remote.size(url) is not None:
            remote.download(url, str(path), lambda: None)
        self._url, self._sent = url, time.monotonic()
        super().__init__(path)

    @override
    def append(self, result: ItemResult) -> None:
        """Add a line, and send all of them if the last time was a while ago."""
        super().append(result)
        if time.monotonic() - self._sent > _SEND_EVERY:
            self._send()

    @override
    def close(self) -> None:
        """Send the lines."""
        try:
            self._send()
        finally:
            super().close()

    def _send(self) -> None:
        remote.upload(self.path, self._url)
        self._sent = time.monotonic()


def read_outcomes(path: Path) -> Iterator[ItemResult]:
    """Read the lines of a manifest, oldest first.

    A torn line at its end is left aside, as are lines that are damaged or hold something else:
    their items are looked at as if the manifest did not name them. How many is logged.

    Raises:
        OutputError: it is a list of inputs, which the user should keep.
    """
    damaged: list[tuple[int, str]] = []
    for number, line in enumerate(_lines(path), 1):
        try:
            values = json.loads(line)
            if isinstance(values, dict) and "path" in values and "item" not in values:
                raise OutputError(
                    f"{path}, line {number}: not a manifest of wfvae, but a list of inputs: move "
                    "it away, or choose another -o"
                )
            yield ItemResult.from_json(values)
        except (ValueError, TypeError, RecursionError) as error:
            damaged.append((number, str(error)[:200]))
    if damaged:
        number, reason = damaged[0]
        _log.warning(
            "%s: ignoring %d damaged lines, the first is line %d (%s)",
            path,
            len(damaged),
            number,
            reason,
        )


def _lines(path: Path) -> Iterator[bytes]:
    """The lines that end; of one that is too long to be ours, an empty one."""
    try:
        with path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                is_long = False
                while line and not line.endswith(b"\n"):
                    line, is_long = file.readline(_LONGEST_LINE), True
                if line:
                    yield b"" if is_long else line
    except FileNotFoundError:
        return


def last_results(path: Path) -> dict[str, ItemResult]:
    """Read the last line of each item of a manifest, by the item's name."""
    return {result.item: result for result in read_outcomes(path)}
