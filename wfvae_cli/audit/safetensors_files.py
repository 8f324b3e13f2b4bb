"""Readers of caches in safetensors: our latent files, musubi-tuner's and ai-toolkit's."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from wfvae_cli.audit.entry import CacheEntry, CacheFormat
from wfvae_cli.dataset.exporters.musubi import ARCHITECTURES
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.header import SAFETENSORS_DTYPES, Header, read_header
from wfvae_cli.latents.metadata import SCHEMA, LatentMetadata
from wfvae_cli.latents.raw import read_into
from wfvae_cli.pipeline.encode import SOURCE_SIZE

_DTYPES = {short: name for name, short in SAFETENSORS_DTYPES.items()}
_FAMILIES = {
    **{arch.full: family for family, arch in ARCHITECTURES.items()},
    "hunyuan_video": "hunyuanvideo",
}
_RAW = ("hunyuan_video", "hunyuan_video_1_5")
_TIME_STRIDE = 4
_WINDOW = re.compile(r"(\d{5})-(\d{3,})")
_SIZE = re.compile(r"(\d{4,})x(\d{4,})")
_LATENT_KEY = re.compile(r"latents_(\d+)x(\d+)x(\d+)_(\w+)")


def read_entry(path: Path, name: str) -> CacheEntry | None:
    """Recognise a safetensors file by its header; None where it is no latents'."""
    if path.name.endswith("_te.safetensors"):  # text, beside the latents of musubi-tuner
        return None
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            header = read_header(file, size)
    except (LatentError, OSError) as error:
        return CacheEntry(name, path, "wfvae", bytes=size, problems=(f"cannot be read: {error}",))
    if header.metadata.get("schema") == SCHEMA:
        entry = ours(path, name, size)
        turned = None if entry.read is not None else _turned_axes(header)
        return entry if turned is None else replace(entry, problems=(*entry.problems, turned))
    if header.metadata.get("architecture") and any(map(_LATENT_KEY.fullmatch, header.tensors)):
        return _musubi(path, name, header, size)
    if path.parent.name == "_latent_cache" and "latent" in header.tensors:
        return _ai_toolkit(path, name, header, size)
    return None


def ours(
    path: Path,
    name: str,
    size: int,
    opened: Callable[[], Path | BinaryIO] | None = None,
) -> CacheEntry:
    """Describe one of our latent files, or such a member of a tar."""
    form: CacheFormat = "wfvae" if opened is None else "wfvae tar shards"
    source = opened or (lambda: path)
    try:
        with LatentFile(source()) as file:
            info, dtype = file.metadata, file.dtype
    except LatentError as error:
        problem = (f"cannot be read: {error}",)
        return CacheEntry(name, path, form, bytes=size, is_damaged=True, problems=problem)
    width, cross, height = info.extra.get(SOURCE_SIZE, "").partition("x")
    known = cross and width.isdecimal() and height.isdecimal()
    return CacheEntry(
        name,
        path,
        form,
        shape=info.latent_shape,
        dtype=dtype,
        bytes=size,
        read=partial(_read_ours, source),
        read_logvar=partial(_read_our_logvar, source) if info.posterior == "moments" else None,
        posterior=info.posterior,
        content="raw" if info.normalization is None else "normalised",
        metadata=info,
        stem=Path(info.source).stem or None,
        family=info.family,
        frames=info.frames,
        source_size=(int(width), int(height)) if known else None,
        frame_rate=None if info.frame_rate is None else float(info.frame_rate),
    )


def _turned_axes(header: Header) -> str | None:
    """Say which axes of one of our files are transposed; None where that is not what is wrong."""
    try:
        channels, frames, height, width = LatentMetadata.from_strings(header.metadata).latent_shape
    except LatentError:
        return None
    names: dict[tuple[int, ...], str] = {
        (channels, frames, width, height): "height and width of the latents transposed",
        (frames, channels, height, width): "channels and time of the latents transposed",
    }
    tensor = header.tensors.get("latents")
    return None if tensor is None else names.get(tensor.shape)


def _musubi(path: Path, name: str, header: Header, size: int) -> CacheEntry:
    key = next(key for key in header.tensors if _LATENT_KEY.fullmatch(key))
    shape, strings = header.tensors[key].shape, header.metadata
    full = strings["architecture"]
    parts = path.name.removesuffix(".safetensors").split("_")
    problems: list[str] = []
    match = _LATENT_KEY.fullmatch(key)
    assert match is not None
    if tuple(map(int, match.groups()[:3])) != shape[1:]:
        problems.append(f"the tensor {key} has the shape {list(shape)}")
    pixels = _SIZE.fullmatch(parts[-2]) if len(parts) >= 3 else None
    window = _WINDOW.fullmatch(parts[-3]) if len(parts) >= 4 else None
    if pixels is None:
        problems.append("the name does not end in _WIDTHxHEIGHT_ARCHITECTURE")
        source_size = None
    else:
        source_size = int(pixels[1]), int(pixels[2])
        if (strings.get("width"), strings.get("height")) != tuple(map(str, source_size)):
            problems.append(
                f"the name says {parts[-2]}, the header {strings.get('width')}x"
                f"{strings.get('height')}"
            )
    frames = int(window[2]) if window else 1
    if len(shape) == 4 and -(-(frames - 1) // _TIME_STRIDE) + 1 != shape[1]:
        problems.append(f"{shape[1]} latent frames do not fit the {frames} frames of the name")
    stem = "_".join(parts[: -3 if window else -2])
    return CacheEntry(
        name,
        path,
        "musubi-tuner",
        shape=shape,
        dtype=_DTYPES.get(header.tensors[key].dtype, header.tensors[key].dtype),
        bytes=size,
        read=partial(_read_tensor, path, key),
        posterior="sample" if full == "hunyuan_video" else "mean",
        content="raw" if full in _RAW else "normalised",
        stem=stem,
        family=_FAMILIES.get(full),
        frames=frames,
        position=int(window[1]) if window else 0,
        source_size=source_size,
        problems=tuple(problems),
    )


def _ai_toolkit(path: Path, name: str, header: Header, size: int) -> CacheEntry:
    tensor = header.tensors["latent"]
    return CacheEntry(
        name,
        path,
        "ai-toolkit",
        shape=tensor.shape,
        dtype=_DTYPES.get(tensor.dtype, tensor.dtype),
        bytes=size,
        read=partial(_read_tensor, path, "latent"),
        posterior="sample",
        content="normalised",
        stem=path.stem.rpartition("_")[0] or path.stem,
    )


def _read_ours(source: Callable[[], Path | BinaryIO]) -> Tensor:
    with LatentFile(source()) as file:
        return file.read(check_finite=False)


def _read_our_logvar(source: Callable[[], Path | BinaryIO]) -> Tensor:
    with LatentFile(source()) as file:
        return file.read_logvar(check_finite=False)


def _read_tensor(path: Path, key: str) -> Tensor:
    """Read one tensor of a safetensors file as `[C, T, H, W]`."""
    with path.open("rb", buffering=0) as file:
        assert isinstance(file, io.FileIO)
        header = read_header(file, path.stat().st_size)
        entry = header.tensors[key]
        if entry.dtype not in _DTYPES:
            raise LatentError(f"{path}: expected floating-point latents, got {entry.dtype}")
        result = torch.empty(entry.shape, dtype=getattr(torch, _DTYPES[entry.dtype]))
        flat = result.view(-1).view(torch.uint8).numpy()
        try:
            read_into(file, header.data_start + entry.begin, flat.data)
        except EOFError as error:
            raise LatentError(f"{path}: truncated ({error})") from None
    return in_cthw(result)


def in_cthw(latents: Tensor) -> Tensor:
    """Take off a batch of one, and give an image its one frame.

    Raises:
        LatentError: the latents have another rank.
    """
    if latents.ndim == 5 and latents.size(0) == 1:
        latents = latents[0]
    if latents.ndim == 3:
        latents = latents[:, None]
    if latents.ndim != 4:
        raise LatentError(f"expected latents [C, T, H, W], got the shape {list(latents.shape)}")
    return latents
