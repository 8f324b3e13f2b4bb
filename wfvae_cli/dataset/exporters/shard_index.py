"""The index beside a group of tar shards: what made them, and which clips each holds."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.windows import Window

_log = logging.getLogger("wfvae")

_SCHEMA = "wfvae-shards"


@dataclass(frozen=True)
class ShardIndex:
    """The index of a finished group."""

    path: Path
    tars: Mapping[str, int]
    """Bytes of each shard, by name."""
    options: Mapping[str, str]
    results: Sequence[ItemResult]
    sources: Mapping[str, str]
    """SHA-256 of the source of each item that is done."""

    @property
    def is_whole(self) -> bool:
        """True where every shard is there, of its recorded size."""
        folder = self.path.parent
        return all(_size(folder / name) == size for name, size in self.tars.items())

    def encoded(self) -> bytes:
        """Return the content of its file."""
        content = {
            "schema": _SCHEMA,
            "schema_version": 1,
            "options": dict(self.options),
            "shards": dict(self.tars),
            "items": [result.to_json() for result in self.results],
            "sources": dict(self.sources),
        }
        return json.dumps(content, indent=1).encode() + b"\n"


def names_of(result: ItemResult) -> list[str]:
    """Return the names of an item's clips: one, or that of each window.

    Their `output` does not tell: once they are packed, it names the shard.
    """
    if result.windows is None:
        return [result.item]
    return [f"{result.item}_{Window(each.start, each.frames)}" for each in result.windows]


def read_index(path: Path) -> ShardIndex | None:
    """Read an index; None where there is none, or a damaged one."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["schema"] != _SCHEMA:
            return None
        tars, options, sources = content["shards"], content["options"], content["sources"]
        if not all(_is_shard_of(path, name) and type(size) is int for name, size in tars.items()):
            raise ValueError("it names shards of another group")
        for texts in (options, sources):
            if not all(isinstance(value, str) for value in texts.values()):
                raise TypeError("expected strings")
        items = [ItemResult.from_json(values) for values in content["items"]]
        return ShardIndex(path, tars, options, items, sources)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _log.warning("%s: ignoring a damaged index (%s)", path, str(error)[:200])
        return None


def listed_clips(path: Path, shard: str) -> set[str]:
    """Return the clips that an index says are in a shard; none where there is no index."""
    index = read_index(path) if path.exists() else None
    return {
        name
        for result in (() if index is None else index.results)
        if result.status == "done"
        for name, output in zip(names_of(result), outputs_of(result), strict=True)
        if output == shard
    }


def outputs_of(result: ItemResult) -> list[str | None]:
    """Return the shard of each clip of an item, in the order of their names."""
    if result.windows is None:
        return [result.output]
    return [window.output for window in result.windows]


def _is_shard_of(index: Path, name: str) -> bool:
    """Return True where `name` is one that `TarShards` gives a shard of this index."""
    number = name.removeprefix(f"{index.stem}-").removesuffix(".tar")
    return number.isdecimal() and name == f"{index.stem}-{number}.tar"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
