"""What a clip's statistics are once they are measured; and how, where it is a latent file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wfvae_cli.latents.file import LatentFile
from wfvae_cli.stats.accumulate import ClipStats
from wfvae_cli.stats.draw import Draw, Source, latent_window
from wfvae_cli.stats.report import ModelIdentity

if TYPE_CHECKING:
    from wfvae_cli.stats.accumulate import Latents

_BLOCK = 1 << 22
"""Latents that are read of a file at once."""


@dataclass(frozen=True)
class MeasuredClip:
    """A clip's statistics, and whose latents they are of."""

    clip: ClipStats
    model: ModelIdentity
    posterior: str
    """`mean` or `sample`: what was measured."""
    compute_dtype: str
    """What the model computed in, as latent files record it."""


def measure_latents(
    source: Source, draw: Draw, alive: Callable[[], None] = lambda: None
) -> MeasuredClip:
    """Take the statistics of a latent file, a normalisation undone.

    Args:
        source: a file of this machine.
        draw: which part of it to look at.
        alive: called for every block that was read.

    Raises:
        InputError: it cannot be read.
    """
    with LatentFile(source.path) as file:
        meta = file.metadata
        begin, end = latent_window(source.name, draw, file.latent_frames, meta.strides.time)
        whole = (begin, end) == (0, file.latent_frames)
        identity = source.identity("" if whole else f"latents {begin} to {end}")
        clip = ClipStats(source.name, identity)
        for mean, logvar in _latents(file, begin, end):
            alive()
            clip.update(mean, logvar)
    model = ModelIdentity(meta.model, meta.model_sha256, meta.family)
    posterior = "sample" if meta.posterior == "sample" else "mean"
    return MeasuredClip(clip, model, posterior, meta.compute_dtype)


def _latents(file: LatentFile, begin: int, end: int) -> Iterator[tuple[Latents, Latents | None]]:
    """Mean and log-variance of a file's latent frames, a block at a time, not normalised."""
    channels, _, height, width = file.shape
    step = max(1, _BLOCK // (channels * height * width))
    applied = file.metadata.normalization
    for start in range(begin, end, step):
        stop = min(start + step, end)
        mean = file.read(start, stop, check_finite=False)
        logvar = file.read_logvar(start, stop, check_finite=False) if file.has_logvar else None
        if applied is not None:
            mean = mean.double()
            shift = mean.new_tensor(applied.shift).view(-1, 1, 1, 1)
            scale = mean.new_tensor(applied.scale).view(-1, 1, 1, 1)
            mean = mean / scale + shift
        yield mean, logvar
