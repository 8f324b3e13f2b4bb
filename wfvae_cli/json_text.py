"""JSON that any encoding can hold, whatever the names of files in it."""

from __future__ import annotations

import json
from typing import Any


def to_json(value: Any, encoding: str = "utf-8", **options: Any) -> str:
    """Dump a value with the characters as they are, or escaped where `encoding` lacks one.

    Bytes of a file name that are not UTF-8 are lone surrogates in Python, which no encoding
    holds; as escapes they are read back as they were.

    Args:
        value: what `json.dumps` takes.
        encoding: that the text will be written in.
        options: of `json.dumps`, such as `indent`.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, **options)
    return text
