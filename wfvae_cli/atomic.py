"""Outputs that are whole or absent: written beside their final name and renamed at the end."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from wfvae_cli.errors import OutputError, WfvaeError
from wfvae_cli.local_path import local_path

STDOUT = "-"
"""The target that means standard output."""
_LOCK = ".lock"
"""In a temporary folder, the file that stays locked while a run uses it."""

_NO_SPACE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file reached the size limit of this system or process",
}


def check_output(target: str | Path, *, overwrite: bool = False) -> None:
    """Fail early where an output could not be written; nothing is created.

    Args:
        target: path of the file to come; `-` (standard output) always passes, and so does what
            is no regular file, such as `/dev/null` or a named pipe.
        overwrite: whether a file that exists may be replaced.

    Raises:
        OutputError: the target is a directory or exists already, or the directory that is to
            hold it is missing or not writable.
    """
    if str(target) == STDOUT:
        return
    path = _real(target)
    if path.is_dir():
        raise OutputError(f"{target} is a directory; give the name of a file in it")
    check_directory(path.parent, target)
    if _is_special(path):
        return
    if path.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another name or add --overwrite")


def check_not_input(
    outputs: Iterable[str | Path | None], inputs: Iterable[str | Path | None]
) -> None:
    """Fail where an output is a file that the command reads, by whatever name or link.

    Args:
        outputs: files to be written; None and `-` (standard output) are none.
        inputs: files to be read, `-` for standard input; what does not exist is none. They are
            looked at only where an output exists.

    Raises:
        OutputError: the same file, by device and inode, is among both.
    """
    existing = {}
    for output in outputs:
        if output is not None and str(output) != STDOUT:
            identity = _identity(output)
            if identity is not None:
                existing[identity] = output
    if not existing:
        return
    for source in inputs:
        identity = None if source is None else _identity(source)
        output = None if identity is None else existing.get(identity)
        if output is not None:
            raise OutputError(
                f"{output} is the input {source}: an output never replaces what is read; choose "
                "another name"
            )


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Device and inode of a regular file, links followed; None for anything else."""
    try:
        status = os.fstat(0) if str(path) == STDOUT else local_path(path).stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def check_directory(directory: Path, target: str | Path) -> None:
    """Fail unless `directory` exists and files can be created in it.

    Args:
        directory: the directory that is to hold the output.
        target: what the user asked for, named in messages.

    Raises:
        OutputError: it is missing, no directory, or not writable.
    """
    if not directory.exists():
        raise OutputError(
            f"cannot write {target}: the directory {directory} does not exist; create it first"
        )
    if not directory.is_dir():
        raise OutputError(f"cannot write {target}: {directory} is not a directory")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {target}: no permission to write in {directory}")


@contextlib.contextmanager
def atomic_path(target: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `target` that becomes `target` if the body succeeds.

    The temporary file exists, empty, when the body starts. Whatever ends the body early,
    Ctrl-C included, removes it and leaves `target` as it was. A symbolic link is followed.
    What exists and is no regular file (`/dev/null`, a named pipe) is written in place.

    Args:
        target: the final path.
        overwrite: whether a file that exists may be replaced.

    Yields:
        The path to write to.

    Raises:
        OutputError: see `check_output`; or the disk is full, or the file system fails.
    """
    check_output(target, overwrite=overwrite)
    path = _real(target)
    if _is_special(path):
        with reported(target):
            yield path
        return
    with _part_of(path, target) as part, reported(target, part):
        yield part
        sync_file(part)
        check_output(target, overwrite=overwrite)  # it may have come into being meanwhile
        part.replace(path)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give a hidden folder beside `target`, for files that are moved to their names when complete.

    Args:
        target: what the files make together, such as `frame%05d.png`.

    Yields:
        The folder; it is removed at the end, however that comes, with what is still in it.

    Raises:
        OutputError: it cannot be created.
    """
    with _part_of(target, target, folder=True) as part:
        yield part


def _part_prefix(path: Path) -> str:
    """Return the prefix of the temporary files' names for `path`, and for no other file."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    return f".{path.name[:32]}.{digest}-"


@contextlib.contextmanager
def _part_of(path: Path, target: str | Path, *, folder: bool = False) -> Iterator[Path]:
    """Give a temporary file or folder beside `path`, locked inside, and removed at the end.

    The lock ends with the process, however that ends: a part without one is a killed run's.

    Args:
        path: where the output is to be.
        target: what the user asked for, named in messages.
        folder: whether to make a folder.

    Raises:
        OutputError: it cannot be created.
    """
    _remove_stale_parts(path)
    with contextlib.ExitStack() as stack:
        while True:
            part = path.with_name(f"{_part_prefix(path)}{secrets.token_hex(8)}.part")
            lock = part / _LOCK if folder else part
            # Before it is there, since a signal may come as soon as it is.
            stack.callback(_remove_part, part, folder=folder)
            try:
                if folder:
                    part.mkdir()
                # Not tempfile: its files are private (0600), where outputs follow the user's umask.
                descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except OSError as error:
                raise output_error(target, error) from error
            stack.callback(os.close, descriptor)
            _try_lock(descriptor)
            if lock.exists():  # else another run took it for stale before it was locked
                break
        yield part


def _remove_part(part: Path, *, folder: bool) -> None:
    if folder:
        shutil.rmtree(part, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            part.unlink()


def _remove_stale_parts(path: Path) -> None:
    """Remove what killed runs left of `path`; what has no lock that can be told is kept."""
    prefix = _part_prefix(path)
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and not entry.is_symlink():
                with contextlib.suppress(OSError):
                    _remove_unlocked(Path(entry.path), folder=entry.is_dir())


def _remove_unlocked(part: Path, *, folder: bool) -> None:
    descriptor = os.open(part / _LOCK if folder else part, os.O_WRONLY)
    try:
        if not _try_lock(descriptor):
            return
        _remove_part(part, folder=folder)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file; False where another process has the lock, or there are no locks."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def atomic_file(target: str | Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a binary file that takes the name `target` if the body succeeds.

    Args:
        target: the final path.
        overwrite: whether a file that exists may be replaced.

    Yields:
        The file, open for writing; seekable unless `target` is a pipe.

    Raises:
        OutputError: as `atomic_path`.
    """
    with atomic_path(target, overwrite=overwrite) as path:
        file = path.open("wb")
        try:
            yield file
            file.close()
        except BaseException:
            # Closing flushes, which fails again on a full disk and would hide the first error.
            with contextlib.suppress(OSError):
                file.close()
            raise


@contextlib.contextmanager
def reported(target: str | Path, part: Path | None = None) -> Iterator[None]:
    """Turn operating system errors of writing `target` into `OutputError`.

    Errors that name another file than `target` or `part` are not about this output and pass, as
    do our own errors and `BrokenPipeError`, which is a reader's choice rather than a fault.
    """
    try:
        yield
    except (WfvaeError, BrokenPipeError):
        raise
    except OSError as error:
        ours = {None, str(target), str(_real(target)), str(part)}
        # write() and close() fail without naming a file; open(), rename() and the like name it.
        if error.filename not in ours:
            raise
        raise output_error(target, error) from error


def output_error(target: str | Path, error: OSError) -> OutputError:
    """Make the error that tells the user that writing `target` failed with `error`."""
    if error.errno in _NO_SPACE:
        return OutputError(
            f"cannot write {target}: {_NO_SPACE[error.errno]}; free some space or write "
            "elsewhere (the partial file was removed)"
        )
    return OutputError(f"cannot write {target}: {error.strerror or error}")


def _real(target: str | Path) -> Path:
    # Renaming onto a symbolic link would replace the link and leave its file as it was.
    return Path(os.path.realpath(target))


def _is_special(path: Path) -> bool:
    # Renaming onto /dev/null would replace the device itself.
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def sync_file(path: Path) -> None:
    """Wait until a file's data is on the disk.

    Network file systems report a full disk only here, and a rename must not outrun the data.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
