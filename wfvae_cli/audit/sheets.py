"""Contact sheets: pictures of what latents decode to."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wfvae_cli.atomic import atomic_path
from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.audit.sources import fit, read_frames, reading_of
from wfvae_cli.dataset.trainer_formats import Content
from wfvae_cli.errors import InputError, WfvaeError
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.nn.stream import Stream

_PICTURES = 6
"""Pictures in a row."""
_LATENTS = 9
"""Latent frames that are decoded, from the first."""
_WIDTH = 320
"""Pixels of a picture, at most."""


def write_sheet(
    entry: CacheEntry,
    content: Content,
    model: LoadedModel,
    folder: Path,
    source: Path | None,
    *,
    overwrite: bool,
) -> Path:
    """Decode the first frames of a clip, and write some of them side by side.

    Args:
        entry: of a cache.
        content: whether its latents are normalised, which is undone.
        model: that made it.
        folder: to write `NAME.png` into.
        source: the clip's source, for a second row; None leaves it out.
        overwrite: whether the file may exist.

    Raises:
        InputError: the latents cannot be read, or are another model's.
        OutputError: the sheet cannot be written.
    """
    if entry.read is None:
        raise InputError(f"{entry.name}: cannot be read")
    latents = entry.read().float()
    channels = model.vae.latent_channels
    if latents.size(0) != channels and latents.size(1) == channels:
        latents = latents.transpose(0, 1)
    if latents.size(0) != channels:
        raise InputError(
            f"{entry.name}: {latents.size(0)} channels, but {model.name} decodes {channels}"
        )
    kept = latents.size(1) if model.vae.whole_clip_only else min(latents.size(1), _LATENTS)
    latents = latents[:, :kept].nan_to_num()
    normalization = model.vae.normalization
    if content == "normalised" and normalization is not None:
        latents = normalization.undo(latents)
    with torch.inference_mode():
        decoded = model.vae.decode(
            latents[None].to(model.device, model.dtype_of("decode")), Stream.whole()
        )
    frames = decoded[0].float().cpu()
    rows = [_pictures(frames)]
    if source is not None:
        reading = reading_of(entry, model.vae.strides, kept)
        try:
            read = read_frames(source, reading.sampling, reading.first + reading.frames)
        except WfvaeError:
            read = None  # the sheet is of the latents; that a source is broken is told elsewhere
        if read is not None and read.size(1) > reading.first:
            part = read[:, reading.first :]
            rows.append(_pictures(fit(part, frames.size(1), reading.width, reading.height)))
    target = folder / f"{_safe(entry.name)}.png"
    with atomic_path(target, overwrite=overwrite) as path:
        _stacked(rows).save(path, format="PNG")
    return target


def _pictures(frames: Tensor) -> list[Image.Image]:
    count = frames.size(1)
    chosen = sorted({round(i * (count - 1) / (_PICTURES - 1)) for i in range(_PICTURES)})
    pictures = []
    for index in chosen:
        values = ((frames[:, index].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        image = Image.fromarray(np.ascontiguousarray(values.permute(1, 2, 0).numpy()))
        image.thumbnail((_WIDTH, _WIDTH), Image.Resampling.BOX)
        pictures.append(image)
    return pictures


def _stacked(rows: list[list[Image.Image]]) -> Image.Image:
    width = max(sum(image.width for image in row) for row in rows)
    sheet = Image.new("RGB", (width, sum(row[0].height for row in rows)))
    top = 0
    for row in rows:
        left = 0
        for image in row:
            sheet.paste(image, (left, top))
            left += image.width
        top += row[0].height
    return sheet


def _safe(name: str) -> str:
    """A file's name of an entry's."""
    return re.sub(r"[^\w.@=+-]+", "_", name.removeprefix(".precomputed/latents/"))[-120:]
