"""PSNR of latents and pixels in short types, and in tiles, against float32."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from wfvae_cli.bench.subject import Setting, Subject
from wfvae_cli.media.options import Sampling
from wfvae_cli.models.options import DType
from wfvae_cli.pipeline.tiles import LEAST_POSITIONS


@dataclass(frozen=True)
class PrecisionRow:
    """PSNR of one type or tiling against float32."""

    dtype: str
    tile: int | None
    """Pixels of the side of its tiles; None for whole pictures, as the reference is."""
    latents: float
    """PSNR in dB of the posterior's mean; the peak is float32's largest magnitude, twice."""
    pixels: float
    """PSNR in dB of frames decoded from float32's latents; the peak is their range, 2."""
    roundtrip: float
    """PSNR in dB of frames encoded and decoded in this type."""


def precision(setting: Setting, clip: Path, sampling: Sampling, folder: Path) -> list[PrecisionRow]:
    """Encode and decode in every type that this machine computes in, and compare with float32.

    Where the setting is compiled, so are all but that float32, which then has a row of its own.
    The last row is float32 in tiles of half the picture, or of the setting's size, where they fit.
    """
    whole = replace(setting, dtype="float32", tile="off")
    exact = Subject(replace(whole, compile=False), clip, sampling, folder)
    frames = _pixels(exact)
    types: tuple[DType, ...] = ("float32",) if setting.compile else ()
    others = [replace(whole, dtype=dtype) for dtype in types + _types(exact.device)]
    if (tile := _tile(setting, exact)) is not None:
        others.append(replace(whole, tile=tile))
    rows = []
    for changed in others:
        other = Subject(changed, clip, sampling, folder)
        own, other.latents = other.latents, exact.latents
        decoded = _pixels(other)
        other.latents = own
        rows.append(
            PrecisionRow(
                dtype=other.encoder.compute_dtype + (", compiled" if changed.compile else ""),
                tile=other.plan.tile,
                latents=psnr(own, exact.latents, 2 * exact.latents.abs().max().item()),
                pixels=psnr(decoded, frames, 2.0),
                roundtrip=psnr(_pixels(other), frames, 2.0),
            )
        )
    return rows


def psnr(values: Tensor, reference: Tensor, peak: float) -> float:
    """Peak signal-to-noise ratio in dB; infinite where nothing differs."""
    error = (values.double() - reference.double()).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _types(device: torch.device) -> tuple[DType, ...]:
    """On CUDA `auto` encodes in TF32."""
    return ("auto", "bfloat16", "float16") if device.type == "cuda" else ("bfloat16", "float16")


def _tile(setting: Setting, subject: Subject) -> int | None:
    """The side of the tiles to compare with; None where the picture is too small for two."""
    if isinstance(setting.tile, int):
        return setting.tile
    strides = subject.encoder.vae.strides
    unit = max(strides.height, strides.width)
    half = min(subject.width, subject.height) // 2 // unit
    return half * unit if half >= LEAST_POSITIONS else None


def _pixels(subject: Subject) -> Tensor:
    return torch.cat([frames.clamp(-1, 1).float().cpu() for frames in subject.decoded()], dim=2)
