"""Reader of FastVideo's caches: rows of parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.audit.safetensors_files import in_cthw
from wfvae_cli.errors import LatentError, MissingExtraError

_BYTES, _SHAPE, _DTYPE = "vae_latent_bytes", "vae_latent_shape", "vae_latent_dtype"
_SIDE = ("id", "file_name", "num_frames", "fps", _SHAPE, _DTYPE)
_FLOATS = ("float32", "float16", "bfloat16")


def read_entries(path: Path, name: str) -> Iterator[CacheEntry]:
    """Give the rows of a parquet file that has FastVideo's columns; none where it has others.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path)
        columns = set(file.schema_arrow.names)
        if not {_BYTES, _SHAPE} <= columns:
            return
        wanted = [column for column in _SIDE if column in columns]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=wanted).to_pylist()
            for index, row in enumerate(rows):
                yield _entry(path, name, group, index, row)
    except (OSError, ValueError) as error:
        problem = (f"cannot be read: {error}",)
        yield CacheEntry(name, path, "FastVideo", problems=problem)


def _entry(path: Path, name: str, group: int, index: int, row: dict[str, Any]) -> CacheEntry:
    shape = tuple(int(side) for side in row.get(_SHAPE) or ())
    dtype = str(row.get(_DTYPE) or "float32")
    label = str(row.get("file_name") or row.get("id") or index)
    told = row.get("num_frames")
    problems = []
    if len(shape) == 4 and isinstance(told, int) and told not in (0, shape[1]):
        problems.append(f"num_frames is {told}, the latents have {shape[1]} frames")
    size = torch.Size(shape).numel() * (4 if dtype == "float32" else 2)
    return CacheEntry(
        f"{name}#{group}.{index}:{label}",
        path,
        "FastVideo",
        shape=shape,
        dtype=dtype,
        bytes=size,
        read=partial(_read, path, group, index, shape, dtype),
        posterior="mean",
        content="raw",
        stem=PurePosixPath(label).stem,
        frame_rate=float(row["fps"]) if row.get("fps") else None,
        problems=tuple(problems),
    )


def _read(path: Path, group: int, index: int, shape: tuple[int, ...], dtype: str) -> Tensor:
    if dtype not in _FLOATS:
        raise LatentError(f"{path}: expected {' or '.join(_FLOATS)}, got {dtype!r}")
    table = _pyarrow().ParquetFile(path).read_row_group(group, columns=[_BYTES])
    data = bytearray(table.column(_BYTES)[index].as_py())
    kind: torch.dtype = getattr(torch, dtype)
    if len(data) != torch.Size(shape).numel() * kind.itemsize:
        raise LatentError(f"{path}: {len(data)} bytes are not {list(shape)} in {dtype}")
    return in_cthw(torch.frombuffer(data, dtype=kind).view(shape))


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "a cache in parquet") from error
    return pyarrow.parquet
