"""Detection of a cache's format, and a listing of its clips, whichever program wrote it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wfvae_cli.audit import parquet_files, safetensors_files, tar_files, torch_files
from wfvae_cli.audit.entry import CacheEntry, CacheFormat
from wfvae_cli.errors import InputError
from wfvae_cli.unreadable import why_unreadable

_SUFFIXES = (".safetensors", ".pt", ".tar", ".parquet")
_TEXT_FOLDERS = ("conditions", "_t_e_cache")
"""Folders of trainers for other files than latents, under the same suffixes."""


@dataclass(frozen=True)
class Cache:
    """A folder of latents, or one file of them."""

    path: Path
    format: CacheFormat
    """Format of most of its clips."""
    entries: tuple[CacheEntry, ...]


def open_cache(path: Path) -> Cache:
    """List the clips of a cache, in the order of their names; latents are not read yet.

    Raises:
        InputError: there is no such cache, or it holds no latents that are known here.
        MissingExtraError: it is in parquet, and pyarrow is not installed.
    """
    if not path.exists():
        expected = "a folder of latents, or a file of them"
        raise InputError(f"{path}: {why_unreadable(path, expected, FileNotFoundError())}")
    files = [path] if path.is_file() else list(_files(path))
    root = path.parent if path.is_file() else path
    entries = [entry for file in files for entry in _read(file, file.relative_to(root).as_posix())]
    readable = [entry for entry in entries if entry.read is not None]
    known = readable or [entry for entry in entries if entry.is_damaged]
    if not known:
        raise InputError(
            f"{path}: expected latents of wfvae, musubi-tuner, LTX-2, SimpleTuner, finetrainers, "
            f"FastVideo, Energon or ai-toolkit, got {_without_latents(files, entries)}: give the "
            "folder that the cache was written to"
        )
    form, _ = Counter(entry.format for entry in known).most_common(1)[0]
    return Cache(path, form, tuple(entries))


def _without_latents(files: Sequence[Path], entries: Sequence[CacheEntry]) -> str:
    """Say what there is in place of latents."""
    if not files:
        return f"no file that ends in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"
    broken = "".join(f"; {each.name}: {each.problems[0]}" for each in entries[:3])
    return (
        f"{len(files)} files without any{broken}" if len(files) > 1 else f"a file without{broken}"
    )


def _read(file: Path, name: str) -> Iterator[CacheEntry]:
    match file.suffix:
        case ".tar":
            yield from tar_files.read_entries(file, name)
        case ".parquet":
            yield from parquet_files.read_entries(file, name)
        case ".pt":
            entry = torch_files.read_entry(file, name)
            if entry is not None:
                yield entry
        case _:
            entry = safetensors_files.read_entry(file, name)
            if entry is not None:
                yield entry


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            each for each in folders if not each.startswith(".wfvae-") and each not in _TEXT_FOLDERS
        )
        for name in sorted(names):
            if name.endswith(_SUFFIXES):
                yield Path(folder, name)
