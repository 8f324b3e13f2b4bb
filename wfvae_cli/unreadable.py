"""Messages on inputs that cannot be read: the reason, what was expected, what to check."""

from __future__ import annotations

import contextlib
import difflib
import os
from pathlib import Path


def why_unreadable(path: str | os.PathLike[str], expected: str, error: OSError) -> str:
    """Return the text of a message after the name of an input that cannot be opened or read.

    Args:
        path: the input, as the user named it.
        expected: what it should be, with its article: `a latent file`.
        error: what opening or reading it raised.
    """
    path = Path(path)
    if isinstance(error, FileNotFoundError):
        return _absent(path, expected)
    if isinstance(error, IsADirectoryError):
        return f"a folder: expected {expected}; name a file in it"
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return f"cannot be opened ({reason}): expected {expected}; check who may read it"
    if isinstance(error, NotADirectoryError):
        return f"cannot be opened ({reason}): expected {expected}; check its path"
    return f"cannot be read ({reason}): check the disk, or copy {expected} there again"


def _absent(path: Path, expected: str) -> str:
    parent = path.parent
    if not parent.is_dir():
        return (
            f"no such file: expected {expected}; the folder {parent} does not exist either, "
            "check the path"
        )
    near: list[str] = []
    with contextlib.suppress(OSError):  # a folder that may not be listed
        near = difflib.get_close_matches(path.name, [entry.name for entry in parent.iterdir()], n=1)
    if near:
        return f"no such file: expected {expected}; did you mean {parent / near[0]}?"
    return f"no such file in {parent.absolute()}: expected {expected}; check its name"
