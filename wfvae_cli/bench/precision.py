"""What a type rounds away: PSNR of latents and pixels against float32."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from wfvae_cli.bench.subject import Setting, Subject
from wfvae_cli.media.clip import Sampling
from wfvae_cli.models.load import DType


@dataclass(frozen=True)
class PrecisionRow:
    """One way to compute, against float32."""

    dtype: str
    latents: float
    """PSNR in dB of the posterior's mean; the peak is float32's largest magnitude, twice."""
    pixels: float
    """PSNR in dB of frames decoded from float32's latents; the peak is their range, 2."""
    roundtrip: float
    """PSNR in dB of frames encoded and decoded in this type."""


def precision(setting: Setting, clip: Path, sampling: Sampling, folder: Path) -> list[PrecisionRow]:
    """Encode and decode in every type that this machine computes in, and compare with float32.

    Where the setting is compiled, so are all but that float32, which then has a row of its own.
    """
    exact = Subject(replace(setting, dtype="float32", compile=False), clip, sampling, folder)
    frames = _pixels(exact)
    rows = []
    types = _types(exact.device)
    for dtype in ("float32", *types) if setting.compile else types:
        other = Subject(replace(setting, dtype=dtype), clip, sampling, folder)
        own, other.latents = other.latents, exact.latents
        decoded = _pixels(other)
        other.latents = own
        rows.append(
            PrecisionRow(
                dtype=other.encoder.compute_dtype + (", compiled" if setting.compile else ""),
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


def _pixels(subject: Subject) -> Tensor:
    return torch.cat([frames.clamp(-1, 1).float().cpu() for frames in subject.decoded()], dim=2)
