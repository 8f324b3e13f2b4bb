"""Latent files to read, change and break."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from wfvae_cli.latents.header import LatentDtype
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.latents.normalization import AppliedNormalization
from wfvae_cli.latents.writer import LatentWriter
from wfvae_cli.strides import Strides

Json = dict[str, Any]


def describe(**changes: Any) -> LatentMetadata:
    """Metadata of a 4-channel clip of 30 x 23 pixels: H' = 3, W' = 4."""
    plain = LatentMetadata(
        model="tiny",
        model_sha256="0123456789abcdef" * 4,
        family="wfvae",
        strides=Strides(4, 8, 8),
        channels=4,
        width=30,
        height=23,
        pad_right=2,
        pad_bottom=1,
        frame_rate=Fraction(30000, 1001),
        time_base=Fraction(1, 30000),
        pixel_format="yuv420p",
        source="clip.mp4",
    )
    return replace(plain, **changes)


def full_metadata(**changes: Any) -> LatentMetadata:
    """Metadata with everything that a header may hold, bar the length."""
    everything = describe(
        posterior="sample",
        seed=7,
        normalization=AppliedNormalization((0.1, -2.0, 0.0, 1e-3), (1.5, 0.5, 1.0, 3.0), "config"),
        compute_dtype="bfloat16",
        start=Fraction(-1, 25),
        sample_aspect=Fraction(64, 45),
        bits=16,
        source_bits=10,
        colour_matrix="bt2020nc",
        colour_range="pc",
        colour_primaries="bt2020",
        colour_transfer="smpte2084",
        pixel_format="yuv420p10le",
        source="naïve ☃.mkv",
        extra={"fingerprint": "abc"},
    )
    return replace(everything, **changes)


def latents(count: int, seed: int = 0, metadata: LatentMetadata | None = None) -> Tensor:
    """Float32 CTHW latents of `count` latent frames."""
    channels, _, height, width = (metadata or describe()).latent_shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((channels, count, height, width), generator=generator)


def write(
    target: Path | BinaryIO,
    values: Tensor,
    metadata: LatentMetadata | None = None,
    *,
    cuts: Iterable[int] = (),
    dtype: LatentDtype = "float32",
    logvar: Tensor | None = None,
    pts: list[int] | None = None,
    frames: int | None = None,
) -> Path | BinaryIO:
    """Write `values` (CTHW), cut before the latent frames `cuts`."""
    metadata = metadata or describe()
    edges = [0, *sorted(cuts), values.size(1)]
    with LatentWriter(target, metadata, dtype) as writer:
        for start, stop in itertools.pairwise(edges):
            part = None if logvar is None else logvar[:, start:stop]
            writer.append(values[:, start:stop], part)
        full = 1 + metadata.strides.time * (values.size(1) - 1)
        writer.finish(full if frames is None else frames, pts)
    return target


def change_header(path: Path, change: Callable[[Json], Json | None]) -> None:
    """Rewrite a file's header, data untouched, after `change` had its way with the JSON."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header: Json = json.loads(data[8:end])
    result = change(header)
    text = json.dumps(header if result is None else result).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def change_metadata(path: Path, **changes: str | None) -> None:
    """Set strings of a file's metadata, or remove those that are None."""

    def change(header: Json) -> None:
        strings = header["__metadata__"] | changes
        header["__metadata__"] = {name: text for name, text in strings.items() if text is not None}

    change_header(path, change)
