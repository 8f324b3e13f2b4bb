"""Readers of tar shards: ours, and Energon's."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from torch import Tensor

from wfvae_cli.audit import safetensors_files, torch_files
from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.metadata import LatentMetadata


def read_entries(path: Path, name: str) -> Iterator[CacheEntry]:
    """Recognise the clips of a tar by their members' suffixes."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = {member.name: member for member in tar if member.isfile()}
    except (tarfile.TarError, OSError) as error:
        problem = (f"cannot be read: {error}",)
        yield CacheEntry(name, path, "wfvae tar shards", problems=problem)
        return
    for member in members.values():
        key, _, suffix = member.name.partition(".")
        begin, size = member.offset_data, member.size
        label = f"{name}#{key}"
        if suffix == "safetensors":
            opened = partial(_member, path, begin, size)
            yield safetensors_files.ours(path, label, size, opened)
        elif suffix == "pth":
            side = members.get(f"{key}.json")
            strings = b"{}" if side is None else _bytes(path, side.offset_data, side.size)
            yield _energon(path, label, begin, size, strings)


def _energon(path: Path, name: str, begin: int, size: int, strings: bytes) -> CacheEntry:
    try:
        value = torch_files.load(_bytes(path, begin, size))
        if not isinstance(value, Tensor):
            raise LatentError(f"expected a tensor, got {type(value).__name__}")
        fields = json.loads(strings)
    except (LatentError, ValueError) as error:
        problem = (f"cannot be read: {error}",)
        return CacheEntry(name, path, "Energon", bytes=size, problems=problem)
    fields = fields if isinstance(fields, dict) else {}
    try:
        info = LatentMetadata.from_strings({str(k): str(v) for k, v in fields.items()})
    except LatentError:
        info = None
    source = info.source if info is not None else str(fields.get("video_path", ""))
    frames = info.frames if info is not None else fields.get("processed_frames")
    return CacheEntry(
        name,
        path,
        "Energon",
        shape=tuple(value.shape),
        dtype=str(value.dtype).removeprefix("torch."),
        bytes=size,
        read=partial(_read, path, begin, size),
        posterior="mean" if info is not None else None,
        content="normalised",
        metadata=info,
        stem=PurePosixPath(source).stem or None,
        family=None if info is None else info.family,
        frames=frames if isinstance(frames, int) else None,
        frame_rate=None if info is None or info.frame_rate is None else float(info.frame_rate),
    )


def _bytes(path: Path, begin: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(size)


def _member(path: Path, begin: int, size: int) -> io.BytesIO:
    return io.BytesIO(_bytes(path, begin, size))


def _read(path: Path, begin: int, size: int) -> Tensor:
    return safetensors_files.in_cthw(torch_files.load(_bytes(path, begin, size)))
