"""Small clips to fill datasets with, and broken ones."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image


def write_clip(
    path: Path, frames: int = 5, width: int = 32, height: int = 24, seed: int = 0, rate: int = 8
) -> Path:
    """A lossless clip of noise, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with av.open(str(path), "w") as box:
        stream = box.add_stream("ffv1" if path.suffix == ".mkv" else "mpeg4", rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for _ in range(frames):
            pixels = random.integers(0, 256, (height, width, 3), np.uint8)
            box.mux(stream.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        box.mux(stream.encode(None))
    return path


def write_image(path: Path, width: int = 24, height: int = 16, seed: int = 0) -> Path:
    """A still of noise, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def contents(folder: Path, pattern: str = "*.safetensors") -> dict[str, bytes]:
    """Every output below a folder, hidden ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob(pattern))}
