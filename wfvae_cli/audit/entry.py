"""One clip of a cache, as every reader gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from wfvae_cli.dataset.trainer_formats import Content
from wfvae_cli.latents.metadata import LatentMetadata

CacheFormat = Literal[
    "wfvae", "wfvae tar shards", "Energon", "musubi-tuner", "LTX-2 trainer", "SimpleTuner",
    "finetrainers", "FastVideo", "ai-toolkit",
]  # fmt: skip
Posterior = Literal["mean", "sample", "moments"]


@dataclass(frozen=True)
class CacheEntry:
    """A clip's latents in a cache; reading them is left to `read`."""

    name: str
    """Unique name in the cache: a path, with `#` and the member's key in tar and parquet."""
    path: Path
    """The file that holds it."""
    format: CacheFormat
    shape: tuple[int, ...] = ()
    """Shape as stored."""
    dtype: str = ""
    """torch's name, such as `bfloat16`."""
    bytes: int = 0
    """Size on disk, of the file or the member."""
    read: Callable[[], Tensor] | None = None
    """Read `[C, T, H, W]` in the stored dtype; None where the file cannot be read."""
    read_logvar: Callable[[], Tensor] | None = None
    """Read the log-variance, of the same shape; None where none is stored beside the mean."""
    posterior: Posterior | None = None
    """Part of the posterior that is stored, as far as the format or the header says."""
    content: Content | None = None
    """Raw or normalised latents, as far as the format or the header says."""
    metadata: LatentMetadata | None = None
    """The strings of our own files."""
    stem: str | None = None
    """Name of the source without folder and suffix."""
    stem_sha256: str | None = None
    """The hash of that name, where only it is known."""
    family: str | None = None
    """Family of the model, as far as the format says."""
    frames: int | None = None
    """Frames of the clip, where known."""
    position: int = 0
    """The first frame of the clip in its source."""
    source_size: tuple[int, int] | None = None
    """Width and height of the source's pictures, where known."""
    frame_rate: float | None = None
    is_damaged: bool = False
    """True where it cannot be read, but says that it is one of our latent files."""
    problems: tuple[str, ...] = field(default=())
    """Contradictions between its names, header and shapes."""

    @property
    def grid(self) -> tuple[int, int, int, int] | None:
        """`[C, T, H, W]` of what `read` gives; None where it cannot be read."""
        shape = self.shape[1:] if len(self.shape) == 5 and self.shape[0] == 1 else self.shape
        if len(shape) == 3:
            shape = (shape[0], 1, *shape[1:])
        if len(shape) != 4 or self.read is None:
            return None
        channels, frames, height, width = shape
        # finetrainers stores mean and log-variance as one tensor, our own files as two.
        halved = self.posterior == "moments" and self.metadata is None
        return channels // 2 if halved else channels, frames, height, width
