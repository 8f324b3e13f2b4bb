"""Columns of manifests and sidecars, converted to JSON's types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def columns_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a row's values to JSON's types: empty ones are left out, times become text.

    Raises:
        ValueError: a value is no text, number, list or object.
    """
    return {str(name): _plain(name, v) for name, v in values.items() if not _is_empty(v)}


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return checked_text(value, f"the column {name}")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return columns_of(value)
    if isinstance(value, (list, tuple)):
        return [_plain(name, each) for each in value]
    if value is None:
        return None
    if isinstance(value, (bytes, bytearray)):
        raise ValueError(f"the column {name} holds bytes, which JSON cannot: leave it out")
    return str(value)  # dates, decimals


def checked_text(text: str, what: str) -> str:
    """Return a text, checked to be valid Unicode.

    Raises:
        ValueError: it holds half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} is not valid Unicode: {text[error.start]!r} at character {error.start}"
        ) from None
    return text
