"""Paths of local files, however they are named."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

_SCHEME = "file://"


def local_path(source: str | Path) -> Path:
    """Return the path that `source` is, or that a `file://` URL stands for."""
    if isinstance(source, str) and source.startswith(_SCHEME):
        return Path(unquote(urlsplit(source).path))
    return Path(source)
