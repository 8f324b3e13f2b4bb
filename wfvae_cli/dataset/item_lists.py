"""Manifests that list inputs: `.txt`, `.csv`, `.jsonl` and `.parquet`."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from wfvae_cli.dataset import remote
from wfvae_cli.dataset.columns import columns_of
from wfvae_cli.dataset.windows import Windows
from wfvae_cli.errors import InputError
from wfvae_cli.unreadable import why_unreadable

MANIFEST_SUFFIXES = (".txt", ".csv", ".jsonl", ".parquet")
_OURS = ("path", "start", "duration", "frames", "id", "windows")
"""Columns that select what is taken; all others are stored with the latents."""
OPTIONAL = "start, duration, frames, id, windows and caption, if wanted"
"""Columns with a meaning beside `path`, as messages list them."""
_LONGEST_CELL = 1 << 27
"""Characters of a CSV cell, such as a caption; the csv module's own limit is 128 Ki."""


@dataclass(frozen=True)
class Row:
    """One line of a manifest."""

    path: str
    """Path as written: relative to the manifest, absolute, or a URL."""
    start: float | None = None
    """Time in seconds."""
    duration: float | None = None
    """Time in seconds."""
    frames: int | None = None
    """The most frames to take, in place of `--frames`."""
    id: str | None = None
    """A name below the output folder, `/` allowed."""
    windows: Windows | None = None
    """Windows to take, in place of `--windows`."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """All other columns, fit for JSON; what is empty is left out."""


def read_rows(source: str) -> Iterator[Row]:
    """Read a manifest from front to back.

    `.txt` has a path on every line, blank lines and those after `#` aside. `.csv` has a header
    line that names the column `path`, and may name `start`, `duration` (seconds), `frames`, `id`,
    `windows` (as of `--windows`) and others, such as `caption`. `.jsonl` has an object with these
    keys on every line, and `.parquet` has these columns.

    Raises:
        InputError: it cannot be read, or a line is malformed; the message names the line.
        MissingExtraError: `.parquet` needs pyarrow.
    """
    if PurePosixPath(source).suffix.lower() == ".parquet":
        from wfvae_cli.dataset.parquet import read_parquet

        yield from _rows(source, "row", read_parquet(source))
        return
    try:
        text = _read(source)
    except FileNotFoundError as error:
        raise InputError(f"{source}: {why_unreadable(source, 'a manifest', error)}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source}: cannot be read as a manifest: it is not UTF-8, with the byte "
            f"0x{error.object[error.start]:02x} at offset {error.start}: convert it, as with iconv"
        ) from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read as a manifest: {error}") from error
    # Not splitlines, which also splits at U+2028, U+0085 and the like: they are text in a line.
    lines = text.replace("\r\n", "\n").split("\n")
    match PurePosixPath(source).suffix.lower():
        case ".txt":
            rows = _from_text(lines)
        case ".csv":
            rows = _from_csv(text, source)
        case _:
            rows = _from_json(lines, source)
    yield from _rows(source, "line", rows)


def _rows(source: str, what: str, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> Iterator[Row]:
    for number, values in rows:
        try:
            yield _row(values)
        except ValueError as error:  # also of a name that no file system takes
            raise InputError(f"{source}, {what} {number}: {error}") from None


def _read(source: str) -> str:
    if remote.is_url(source):
        return remote.read_bytes(source).decode("utf-8-sig")
    return Path(source).read_bytes().decode("utf-8-sig")


def _from_text(lines: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        path = line.strip()
        if path and not path.startswith("#"):
            yield number, {"path": path}


def _from_csv(text: str, source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if "path" not in (reader.fieldnames or ()):
            raise InputError(
                f"{source}: expected a header line with the column path (and {OPTIONAL}), got "
                f"{', '.join(reader.fieldnames or ())[:200] or 'nothing'}"
            )
        for values in reader:
            yield reader.line_num, values
    except csv.Error as error:
        raise InputError(f"{source}, line {reader.line_num}: not CSV: {error}") from None


def _from_json(lines: list[str], source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{source}, line {number}: not JSON: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"{source}, line {number}: expected an object, got {line[:80]!r}")
        yield number, values


def _row(values: Mapping[str, Any]) -> Row:
    path = values.get("path")
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"expected a path, got {repr(path)[:200]}")
    _check_name(path)
    start, duration = _seconds(values, "start"), _seconds(values, "duration")
    if duration == 0:
        raise ValueError("expected a duration above 0 seconds, got 0")
    if None in values:  # where `csv` puts what no column is for
        raise ValueError("more fields than columns: put texts that hold commas in double quotes")
    rest = columns_of({name: value for name, value in values.items() if name not in _OURS})
    frames, name = _frames(values), _id(values.get("id"))
    return Row(path.strip(), start, duration, frames, name, _windows(values), rest)


def _frames(values: Mapping[str, Any]) -> int | None:
    value = values.get("frames")
    if value is None or value == "":
        return None
    try:
        number = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if not (number >= 1 and number.is_integer()):
        raise ValueError(
            f"expected a number of frames to take, 1 or more, got {repr(value)[:200]}: correct it, "
            "or give the column another name if it says something else"
        )
    return int(number)


def _windows(values: Mapping[str, Any]) -> Windows | None:
    text = values.get("windows")
    return None if text is None or text == "" else Windows.parse(str(text))


def _seconds(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"expected a {name} in seconds, got {repr(value)[:200]}")
    return number


def _id(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ValueError(f"expected an id that is a string, got {repr(value)[:200]}")
    name = str(value)
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"expected an id that is a relative path without '..', got {name[:200]!r}")
    _check_name(name)
    return name


def _check_name(name: str) -> None:
    """Refuse a name that no file can have: with a NUL, or surrogates that stand for no byte."""
    try:
        if b"\0" not in os.fsencode(name):
            return
    except UnicodeEncodeError:
        pass
    raise ValueError(f"expected the name of a file, got {name[:200]!r}")
