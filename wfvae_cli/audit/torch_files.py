"""Readers of caches that `torch.save` wrote: LTX-2's, SimpleTuner's, finetrainers'.

Nothing is unpickled but tensors, numbers and strings (`weights_only=True`).
"""

from __future__ import annotations

import io
import pickle
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.audit.safetensors_files import in_cthw
from wfvae_cli.dataset.exporters.pt_file import read_strings
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.pipeline.encode import SOURCE_SIZE

_LTX_KEYS = ("latents", "num_frames", "height", "width")
_FINETRAINERS = re.compile(r"(?P<kind>\w+?)-(\d+-)?\d+\.pt")
_GLOBAL = re.compile(r"Unsupported global: GLOBAL (\S+)")
_HASH = re.compile(r"[0-9a-f]{64}")


def read_entry(path: Path, name: str) -> CacheEntry | None:
    """Recognise a `.pt` file by what it holds; None where it holds no latents."""
    size = path.stat().st_size
    try:
        value = load(path)
    except LatentError as error:
        return CacheEntry(
            name, path, "SimpleTuner", bytes=size, problems=(f"cannot be read: {error}",)
        )
    found = _recognise(path, name, value, size)
    strings = None if found is None else read_strings(path)
    return found if found is None or strings is None else _with_strings(found, strings)


def load(source: Path | bytes) -> Any:
    """Unpickle tensors, numbers and strings, and nothing else.

    Raises:
        LatentError: the file is damaged, or needs code to be unpickled.
    """
    try:
        if isinstance(source, bytes):
            return torch.load(io.BytesIO(source), map_location="cpu", weights_only=True)
        return torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        # torch's message is long, and tells how to run the code in the file.
        named = _GLOBAL.search(str(error))
        what = f"it calls for {named[1]}" if named else str(error).partition("\n")[0][:200]
        raise LatentError(
            f"it holds more than tensors, numbers and strings, and is not unpickled ({what})"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise LatentError(f"not a file of torch.save, or damaged ({error})") from None


def _recognise(path: Path, name: str, value: Any, size: int) -> CacheEntry | None:
    if isinstance(value, Tensor):
        if value.ndim < 3:
            return None
        is_hash = _HASH.fullmatch(path.stem) is not None
        return _entry(
            CacheEntry(
                name,
                path,
                "SimpleTuner",
                bytes=size,
                content="normalised",
                stem=None if is_hash else path.stem,
                stem_sha256=path.stem if is_hash else None,
            ),
            value,
            None,
        )
    if not isinstance(value, dict) or not isinstance(value.get("latents"), Tensor):
        return None
    latents = value["latents"]
    if all(key in value for key in _LTX_KEYS):
        counts = tuple(int(value[key]) for key in _LTX_KEYS[1:])
        problems = () if counts == tuple(latents.shape[1:]) else (_counts(counts, latents),)
        rate = value.get("fps")
        return _entry(
            CacheEntry(
                name,
                path,
                "LTX-2 trainer",
                bytes=size,
                posterior="mean",
                content="normalised",
                stem=path.stem,
                family="ltx2",
                frame_rate=float(rate) if isinstance(rate, int | float) else None,
                problems=problems,
            ),
            latents,
            "latents",
        )
    if _FINETRAINERS.fullmatch(path.name):
        mean = value.get("latents_mean")
        channels = latents.size(1 if latents.ndim == 5 else 0)
        moments = isinstance(mean, Tensor) and mean.numel() * 2 == channels
        entry = CacheEntry(
            name,
            path,
            "finetrainers",
            bytes=size,
            posterior="moments" if moments else None,
            content="raw",
        )
        return _entry(entry, latents, "latents")
    return None


def _entry(entry: CacheEntry, latents: Tensor, key: str | None) -> CacheEntry:
    return replace(
        entry,
        shape=tuple(latents.shape),
        dtype=str(latents.dtype).removeprefix("torch."),
        read=partial(_read, entry.path, key, entry.posterior == "moments"),
    )


def _with_strings(entry: CacheEntry, strings: dict[str, str]) -> CacheEntry:
    """Add what our own exporters say of a file."""
    try:
        info = LatentMetadata.from_strings(strings)
    except LatentError:
        return entry
    width, cross, height = info.extra.get(SOURCE_SIZE, "").partition("x")
    return replace(
        entry,
        posterior=info.posterior,
        metadata=info,
        stem=Path(info.source).stem or entry.stem,
        family=info.family,
        frames=info.frames,
        source_size=(int(width), int(height)) if cross and width.isdecimal() else None,
        frame_rate=None if info.frame_rate is None else float(info.frame_rate),
    )


def _counts(counts: tuple[int, ...], latents: Tensor) -> str:
    return (
        f"num_frames, height, width say {list(counts)}, the latents are {list(latents.shape)}: "
        "they count latents"
    )


def _read(path: Path, key: str | None, moments: bool) -> Tensor:
    value = load(path)
    latents = in_cthw(value if key is None else value[key])
    return latents[: latents.size(0) // 2] if moments else latents
