"""Videos, their latents, and reports: what the tests of `wfvae stats` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.cli.program import wfvae

PNG = b"\x89PNG\r\n"


def scenery(seed: int, frames: int, width: int = 32, height: int = 32) -> list[NDArray[np.uint8]]:
    """A smooth random picture that moves to the left."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 4, (width + frames) // 4 + 1, 3), dtype=np.uint8)
    wide = Image.fromarray(small).resize((width + frames, height), Image.Resampling.BICUBIC)
    whole = np.asarray(wide)
    return [np.ascontiguousarray(whole[:, k : k + width]) for k in range(frames)]


def report(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text())
    assert isinstance(values, dict)
    return values


def measure(tmp_path: Path, *arguments: str | Path, name: str = "stats.json") -> dict[str, Any]:
    answer = wfvae("stats", *arguments, "-o", tmp_path / name)
    assert answer.code == 0, answer
    return report(tmp_path / name)
