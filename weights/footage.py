"""What `wfvae-tiny` is trained on: random crops of real clips, and of photographs in motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from overlay import draw_over
from wfvae_cli.atomic import atomic_file
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip

Pixels = NDArray[np.uint8]

HELD_OUT_CLIPS = (
    "ai_ship",
    "anim_sintel_b",
    "cam_blocks_text",
    "cam_butterfly",
    "cam_dash_street",
    "cam_juggle",
    "cam_sign_book",
    "cam_stream_water",
    "film_tos_c",
    "screen_ui_anim",
)
HELD_OUT_PHOTOS = (
    "budgie_canyon-wren",
    "budgie_roman-colosseum",
    "coral_pets",
    "dali_hong-kong-1078949-640",
    "elementary_rob-bye",
    "popos_jared-evans-119758",
)
# Night drives and dash cameras are many among the clips: kinds are drawn first, then files.
KIND_SHARE = {
    "cam": 0.44,
    "driving": 0.07,
    "anim": 0.12,
    "ai": 0.06,
    "film": 0.08,
    "screen": 0.07,
    "photo": 0.16,
}
DRAWN_SHARE = 0.5
"""Of crops with shapes and text drawn over them."""
SHORT_SIDE = 256
CACHED_FRAMES = 150
VALIDATION_FRAMES = 17


@dataclass(frozen=True)
class Shape:
    """Of a batch: how many crops, their frames, and their height and width in pixels."""

    batch: int
    frames: int
    size: int


@dataclass(frozen=True)
class Crops:
    """A batch."""

    frames: Tensor
    """B3THW in [-1, 1]."""
    names: list[str]
    """What each crop is from; those that were drawn over have a name for their kind."""

    def to(self, device: torch.device) -> Crops:
        """The same on another device."""
        return Crops(self.frames.to(device), self.names)


def decode(path: Path) -> Pixels:
    """A clip's first frames, THWC RGB, scaled to the training size."""
    sampling = Sampling(short_side=SHORT_SIDE, frames=CACHED_FRAMES)
    with open_clip(path, sampling) as clip:
        return np.stack([np.asarray(frame.pixels, np.uint8) for frame in clip])


def kind(name: str) -> str:
    """What a clip counts as when kinds are drawn; the files' prefixes say it."""
    return "driving" if name.startswith(("cam_dash", "cam_night")) else name.split("_")[0]


class Footage:
    """Decoded clips and photographs, memory-mapped from WORK/cache, split into two sets."""

    def __init__(self, data: Path, cache: Path) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self.train: dict[str, dict[str, Pixels]] = {name: {} for name in KIND_SHARE}
        self.held_out: dict[str, Pixels] = {}
        for path in sorted((data / "train").glob("*.mp4")):
            file = cache / f"{path.stem}.npy"
            if not file.exists():
                with atomic_file(file, overwrite=True) as cached:  # other workers decode it, too
                    np.save(cached, decode(path))
            clip = np.load(file, mmap_mode="r")
            if path.stem in HELD_OUT_CLIPS:
                self.held_out[path.stem] = clip[:VALIDATION_FRAMES]
            else:
                self.train[kind(path.stem)][path.stem] = clip
        for path in sorted((data / "train_photos").glob("*.jpg")):
            if path.stem not in HELD_OUT_PHOTOS:
                photo = shrink(Image.open(path).convert("RGB"), 384)
                self.train["photo"][path.stem] = np.asarray(photo)

    def batch(self, shape: Shape, rng: np.random.Generator) -> Crops:
        """Random crops."""
        kinds = rng.choice(list(KIND_SHARE), size=shape.batch, p=list(KIND_SHARE.values()))
        crops, names = [], []
        for name in kinds:
            source = rng.choice(list(self.train[name]))
            cut = pan_and_zoom if name == "photo" else cut_out
            crop, drawn = cut(self.train[name][source], shape, rng), rng.random() < DRAWN_SHARE
            crops.append(draw_over(crop, rng) if drawn else crop)
            names.append(f"drawn/{name}" if drawn else f"{name}/{source}")
        return Crops(torch.stack(crops), names)


def shrink(photo: Image.Image, short_side: int) -> Image.Image:
    """Scale down so that the shorter side has `short_side` pixels, aspect kept."""
    factor = short_side / min(photo.size)
    width, height = (round(side * factor) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def cut_out(clip: Pixels, shape: Shape, rng: np.random.Generator) -> Tensor:
    """A random crop of a clip, 3THW: at times mirrored, backwards or at double speed.

    A clip that is too short is played to and fro.
    """
    frames, height, width, _ = clip.shape
    step = 2 if rng.random() < 0.2 and frames > 2 * shape.frames else 1
    span = (shape.frames - 1) * step + 1
    times = rng.integers(max(1, frames - span + 1)) + np.arange(0, span, step)
    last = frames - 1
    times = last - np.abs(last - times % max(1, 2 * last))
    y = rng.integers(height - shape.size + 1)
    x = rng.integers(width - shape.size + 1)
    crop = clip[times, y : y + shape.size, x : x + shape.size]
    if rng.random() < 0.5:
        crop = crop[:, :, ::-1]
    if rng.random() < 0.3:
        crop = crop[::-1]
    return to_tensor(crop)


def pan_and_zoom(photo: Pixels, shape: Shape, rng: np.random.Generator) -> Tensor:
    """A camera move over a photograph, 3THW; one in five stands still."""
    height, width, _ = photo.shape
    size, times = shape.size, np.arange(shape.frames)
    step = rng.uniform(0.6, 1.0)  # photo pixels a frame pixel
    still = rng.random() < 0.2
    zoom = step * np.exp((0.0 if still else rng.normal(0, 0.006)) * times)
    pan = (0.0 if still else rng.normal(0, 2.0, (2, 1))) * times
    reach = zoom.max() * size / 2 + 1
    centre = np.array([rng.uniform(min(reach, n / 2), max(n - reach, n / 2))
                       for n in (width, height)])[:, None] + pan  # fmt: skip
    axis = np.linspace(-1, 1, size) * (size - 1) / 2
    x = (centre[0][:, None] + zoom[:, None] * axis) / (width - 1) * 2 - 1
    y = (centre[1][:, None] + zoom[:, None] * axis) / (height - 1) * 2 - 1
    grid = torch.empty(shape.frames, size, size, 2)
    grid[..., 0] = torch.from_numpy(x)[:, None, :]
    grid[..., 1] = torch.from_numpy(y)[:, :, None]
    picture = to_tensor(photo[None]).movedim(1, 0).expand(shape.frames, -1, -1, -1)
    crop = F.grid_sample(
        picture, grid, mode="bicubic", padding_mode="reflection", align_corners=True
    )
    return crop.movedim(0, 1).clamp(-1, 1)


def to_tensor(frames: Pixels) -> Tensor:
    """THWC uint8 to 3THW in [-1, 1]."""
    return torch.from_numpy(frames.astype(np.float32)).permute(3, 0, 1, 2) / 127.5 - 1
