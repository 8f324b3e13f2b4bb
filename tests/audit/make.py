"""Caches as a careless script writes them, for the audit to find what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from wfvae_cli.models.base import LoadedModel
from wfvae_cli.nn.stream import Stream

WIDTH, HEIGHT, FRAMES = 64, 40, 30
SIZE = 32
"""Pixels of a side of what is encoded: another aspect than the source's."""


def write_source(path: Path, seed: int) -> Path:
    """A lossless clip of coloured shapes that move, other ones for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    waves = random.uniform(0.05, 0.35, (3, 4, 3))  # kx, ky and speed, by channel
    phases = random.uniform(0, 6.28, (3, 4))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as box:
        stream = box.add_stream("ffv1", rate=12)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for t in range(FRAMES):
            pixels = np.zeros((HEIGHT, WIDTH, 3))
            for c in range(3):
                for (kx, ky, speed), phase in zip(waves[c], phases[c], strict=True):
                    pixels[..., c] += np.sin(kx * x + ky * y + 4 * speed * t + phase)
            levels = np.array([0.9, 0.6, 0.4]) * (pixels / 8 + 0.5) * 255
            frame = av.VideoFrame.from_ndarray(levels.round().clip(0, 255).astype(np.uint8))
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
    return path


def read_rgb(path: Path) -> Tensor:
    """All frames, uint8 THWC."""
    with av.open(str(path)) as box:
        return torch.from_numpy(
            np.stack([f.to_ndarray(format="rgb24") for f in box.decode(video=0)])
        )


def centre(pixels: Tensor) -> Tensor:
    """The centre of each picture, without scaling."""
    top, left = (HEIGHT - SIZE) // 2, (WIDTH - SIZE) // 2
    return pixels[:, top : top + SIZE, left : left + SIZE]


def signed(pixels: Tensor) -> Tensor:
    """uint8 THWC to CTHW in [-1, 1]."""
    return pixels.permute(3, 0, 1, 2).float() / 127.5 - 1


def posterior(model: LoadedModel, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of CTHW pixels."""
    with torch.inference_mode():
        found = model.vae.encode(clip[None], Stream.whole())
    return found.mean[0].clone(), torch.exp(0.5 * found.logvar[0])


@dataclass(frozen=True)
class Musubi:
    """Writes files as musubi-tuner's own script names them."""

    folder: Path

    def write(
        self,
        stem: str,
        latents: Tensor,
        frames: int,
        position: int = 0,
        dtype: torch.dtype = torch.bfloat16,
    ) -> Path:
        """Write one clip."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{stem}_{position:05d}-{frames:03d}_{WIDTH:04d}x{HEIGHT:04d}_wan.safetensors"
        key = "latents_{}x{}x{}_bfloat16".format(*latents.shape[1:])
        strings = {
            "architecture": "wan",
            "width": str(WIDTH),
            "height": str(HEIGHT),
            "format_version": "1.0.1",
            "frame_count": str(frames),
        }
        path = self.folder / name
        save_file({key: latents.to(dtype).contiguous()}, path, strings)
        return path
