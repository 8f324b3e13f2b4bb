"""Small clips and latents that the command tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.program import wfvae
from tests.cli.reports import scenery
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


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of 3 to 14 frames in two sizes and two folders, and an image."""
    root = tmp_path_factory.mktemp("videos")
    (root / "more").mkdir()
    for index in range(12):
        folder = root / "more" if index % 3 == 0 else root
        size = (32, 32) if index % 2 else (40, 24)
        write_clip(folder / f"{index:02d}.mp4", scenery(index, 3 + index, *size))
    Image.fromarray(scenery(99, 1)[0]).save(root / "still.png")
    return root


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """The latent files of four of the clips."""
    root = tmp_path_factory.mktemp("encoded")
    for name in ("01", "02", "04", "05"):
        answer = wfvae(
            "encode", videos / f"{name}.mp4", "-o", root / f"{name}.safetensors",
            "--posterior", "moments",
        )  # fmt: skip
        assert answer.code == 0, answer
    return root
