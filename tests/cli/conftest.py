"""Small clips and latents that the command tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.program import wfvae
from tests.media.conftest import write_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of 64x48, with sound."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 10, sound=True)


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """What `wfvae encode` makes of `clip`."""
    path = tmp_path_factory.mktemp("latents") / "z.safetensors"
    answer = wfvae("encode", clip, "-o", path)
    assert answer.code == 0, answer
    return path
