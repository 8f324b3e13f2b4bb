"""Formats by suffix, checked before the work that fills the file."""

from __future__ import annotations

from pathlib import Path

from wfvae_cli.errors import UsageError

_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


def plot_format(path: Path) -> str:
    """The format that a plot's suffix names: png, svg or pdf.

    Raises:
        UsageError: it names another.
    """
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"expected a plot named *.png, *.svg or *.pdf, got {path.name}") from None


def check_json_path(path: Path) -> None:
    """Refuse a report of statistics whose suffix promises something else than JSON.

    Raises:
        UsageError: it ends in something else than `.json`.
    """
    if path.suffix.lower() not in ("", ".json"):
        raise UsageError(f"expected a report named *.json, got {path.name}")
