"""Captions and columns of sidecars and manifests, stored with each clip's latents.

`clip.txt` beside `clip.mp4` is its caption. `clip.json` is an object whose `caption` is the caption
and whose other keys are columns. What a manifest's row says comes before either.
"""

from __future__ import annotations

import json
import os
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
    """Add to each item the caption and the columns of its sidecars and its manifest.

    An unusable sidecar becomes the `problem` of its item, and stops no other.
    """
    # Listing folders is much quicker than trying to open two sidecars of each clip.
    names = {folder: _names(folder) for folder in {_folder(item.path) for item in items}}

    def add(item: Item) -> Item:
        try:
            return _with_sidecars(item, names[_folder(item.path)])
        except (InputError, ValueError) as error:
            return replace(item, problem=str(error))

    having = [item for item in items if _has_sidecar(item, names[_folder(item.path)])]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="wfvae-captions") as pool:
        read = dict(zip(map(id, having), pool.map(add, having), strict=True))
    return [read.get(id(item)) or add(item) for item in items]


def _has_sidecar(item: Item, names: frozenset[str]) -> bool:
    stem = _stem(item)
    return stem + ".txt" in names or stem + ".json" in names


def _stem(item: Item) -> str:
    return PurePosixPath(item.path.rpartition("/")[2]).stem


def _with_sidecars(item: Item, known: frozenset[str]) -> Item:
    base = _folder(item.path) + "/" + _stem(item)
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
        raise ValueError(
            f"{where}: expected a caption that is a text, got {str(value)[:80]}: "
            "put it in quotes, or add --no-captions"
        )
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
        is_wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        guess, code = ("UTF-16",) * 2 if is_wide else ("Latin-1 or Windows-1252", "WINDOWS-1252")
        raise ValueError(
            f"{path}: expected a caption in UTF-8, got the byte 0x{data[error.start]:02x} at "
            f"offset {error.start} (perhaps {guess}): convert it, as with iconv -f {code} "
            "-t UTF-8, or add --no-captions"
        ) from None


def _read(path: str, known: frozenset[str]) -> bytes | None:
    """Read a sidecar; None where there is none."""
    if path.rpartition("/")[2] not in known:
        return None
    if remote.is_url(path):
        return remote.read_bytes(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (a name as it came)
            return file.read(_LARGEST + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _names(folder: str) -> frozenset[str]:
    """List the names in a folder; web servers list nothing."""
    if remote.is_web(folder):
        return frozenset()
    if remote.is_url(folder):
        return frozenset(remote.list_names(folder))
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 (names as they come)
    except OSError:
        return frozenset()  # its clips say why when they are opened
