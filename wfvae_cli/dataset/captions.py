"""Captions and columns: what sidecars and manifests say of each clip, to travel with its latents.

`clip.txt` beside `clip.mp4` is its caption. `clip.json` is an object whose `caption` is the caption
and whose other keys are columns. What a manifest's row says comes before either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from wfvae_cli.dataset import remote
from wfvae_cli.dataset.columns import columns_of
from wfvae_cli.dataset.items import Item
from wfvae_cli.errors import InputError

_CAPTION = "caption"
_LARGEST = 1 << 20
"""Bytes of a sidecar: a latent file's header holds its text."""
_READERS = 16
"""Threads that look for sidecars: on a network file system each look takes a while."""


def add_captions(items: Sequence[Item]) -> list[Item]:
    """Give each item the caption and the columns that its sidecars and its manifest say.

    A sidecar that cannot be used is the problem of its item, and stops no other.
    """
    folders: dict[str, frozenset[str]] = {}
    for folder in {_folder(item.path) for item in items if item.is_url}:
        folders[folder] = _names(folder)

    def add(item: Item) -> Item:
        try:
            return _with_sidecars(item, folders.get(_folder(item.path)))
        except (InputError, ValueError) as error:
            return replace(item, problem=str(error))

    with ThreadPoolExecutor(_READERS, thread_name_prefix="wfvae-captions") as pool:
        return list(pool.map(add, items))


def _with_sidecars(item: Item, known: frozenset[str] | None) -> Item:
    stem = str(PurePosixPath(item.path.rpartition("/")[2]).with_suffix(""))
    base = _folder(item.path) + "/" + stem
    caption: str | None = None
    columns: dict[str, Any] = {}
    data = _read(base + ".json", known)
    if data is not None:
        columns = columns_of(_parse_object(base + ".json", data))
        caption = _caption(base + ".json", columns.pop(_CAPTION, None))
    data = _read(base + ".txt", known)
    if data is not None:
        caption = _decode(base + ".txt", data).strip()
    said = dict(item.columns)
    caption = _caption(item.path, said.pop(_CAPTION, caption))
    return replace(item, caption=caption, columns={**columns, **said})


def _caption(where: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where}: expected a caption that is a text, got {value!r}")
    return value


def _parse_object(path: str, data: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(_decode(path, data))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: expected a caption's sidecar, and it is not JSON: {error}"
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f"{path}: expected an object with a caption and columns, got {str(values)[:80]}: move "
            "it away, or add --no-captions"
        )
    return values


def _decode(path: str, data: bytes) -> str:
    """Decode a text file, with or without a byte order mark.

    Raises:
        ValueError: it is not UTF-8.
    """
    if len(data) > _LARGEST:
        raise ValueError(f"{path}: expected a caption of at most {_LARGEST >> 10} KiB, got more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "Latin-1 or Windows-1252"
        raise ValueError(
            f"{path}: expected a caption in UTF-8, got the byte 0x{data[error.start]:02x} at "
            f"offset {error.start} (perhaps {guess}): convert it with iconv -t utf-8, or add "
            "--no-captions"
        ) from None


def _read(path: str, known: frozenset[str] | None) -> bytes | None:
    """Read a sidecar; None where there is none."""
    if known is not None:
        return remote.read_bytes(path) if path.rpartition("/")[2] in known else None
    if remote.is_url(path):
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (a name as it came)
            return file.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _names(folder: str) -> frozenset[str]:
    """Give the names of a store's folder; web servers list nothing."""
    if remote.is_web(folder):
        return frozenset()
    return frozenset(remote.list_names(folder))
