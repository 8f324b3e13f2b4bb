"""The bytes of a latent file, pinned.

After a deliberate change of the format, and of its version:

    WFVAE_REGENERATE=1 python -m pytest tests/latents/test_golden.py
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.latents.samples import describe, full_metadata, write
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.metadata import SCHEMA_VERSION

FOLDER = Path(__file__).parent / "golden"
PLAIN = describe()
SAMPLED = full_metadata()
MOMENTS = describe(posterior="moments", source="variable.webm")
VALUES = torch.arange(4 * 2 * 3 * 4).view(4, 2, 3, 4) / 8
"""Exact in every dtype."""


def encode(name: str) -> bytes:
    stream = io.BytesIO()
    if name == "plain":
        write(stream, VALUES, PLAIN)
    elif name == "sampled":
        write(stream, VALUES, SAMPLED, dtype="float16", frames=4)
    else:
        write(stream, VALUES, MOMENTS, dtype="bfloat16", logvar=-VALUES, pts=[0, 5, 7], frames=3)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["plain", "sampled", "moments"])
def test_bytes_are_pinned(name: str) -> None:
    path = FOLDER / f"{name}-v{SCHEMA_VERSION}.safetensors"
    if os.environ.get("WFVAE_REGENERATE") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(name))
    assert encode(name) == path.read_bytes()


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "without-checksum"])
def test_files_of_version_1_are_read(folder: Path) -> None:
    """Those in `without-checksum` were written before the header held `data_sha256`."""
    with LatentFile(folder / "plain-v1.safetensors") as file:
        assert file.verify() is (folder == FOLDER)
        assert file.metadata == replace(PLAIN, frames=5)
        assert torch.equal(file.read(), VALUES)
        assert file.pts is None
    with LatentFile(folder / "sampled-v1.safetensors") as file:
        assert file.metadata == replace(SAMPLED, frames=4, pad_frames=1)
        assert torch.equal(file.read(), VALUES.half())
    with LatentFile(folder / "moments-v1.safetensors") as file:
        assert file.metadata == replace(MOMENTS, frames=3, pad_frames=2)
        assert torch.equal(file.read(), VALUES.bfloat16())
        assert torch.equal(file.read_logvar(), -VALUES.bfloat16())
        assert file.pts is not None
        assert file.pts.tolist() == [0, 5, 7]
