"""Files of `torch.save` that say how they were made.

`torch.save` writes a ZIP archive, and a ZIP archive may end with a comment: there are the strings
that a latent file has in its header. `torch.load` reads such a file like any other, from a path, a
stream or a memory map. The object itself holds tensors, numbers and strings only, so that
`weights_only=True` loads it.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch

_END = b"PK\x05\x06"
_END_BYTES = 22
_MOST_COMMENT = 0xFFFF


def save_object(value: object, file: BinaryIO, strings: Mapping[str, str]) -> None:
    """Write an object and the strings that say how it was made; equal input gives equal bytes.

    Args:
        value: tensors, numbers and strings, in dicts or not.
        file: open for writing, at its start. Not a path, whose name `torch.save` would put into
            the archive.
        strings: at most 64 KiB as JSON, the longest of which is cut out where they are more.
    """
    torch.save(value, file)
    kept = dict(strings)
    while len(comment := _encoded(kept)) > _MOST_COMMENT:
        del kept[max(kept, key=lambda name: len(kept[name]))]
    file.seek(-2, os.SEEK_END)  # the length of the comment, 0 as torch writes it
    file.write(len(comment).to_bytes(2, "little"))
    file.write(comment)


def read_strings(path: Path) -> dict[str, str] | None:
    """Read the strings of a file that `save_object` wrote, without unpickling anything.

    Returns:
        None where the file is missing, cut short, or another program's.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END_BYTES - _MOST_COMMENT))
            tail = file.read()
    except OSError:
        return None
    at = tail.rfind(_END)
    length = int.from_bytes(tail[at + _END_BYTES - 2 : at + _END_BYTES], "little")
    if at < 0 or at + _END_BYTES + length != len(tail):
        return None
    try:
        found = json.loads(tail[at + _END_BYTES :])
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return {str(name): str(text) for name, text in found.items()}


def is_sound(file: Path | BinaryIO) -> bool:
    """Return True where the data of a file match the checksums that its ZIP archive has."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    # The latter two where a damaged header speaks of a password, or of another compression.
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError):
        return False


def _encoded(strings: Mapping[str, str]) -> bytes:
    return json.dumps(dict(strings), sort_keys=True).encode()
