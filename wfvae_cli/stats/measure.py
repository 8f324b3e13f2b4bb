"""One clip to its statistics: a video or image encoded, a latent file read as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from wfvae_cli.errors import DeviceError, InputError, UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.stats.accumulate import ClipStats, FailedClip
from wfvae_cli.stats.draw import Draw, Source, latent_window, open_window
from wfvae_cli.stats.report import ModelIdentity

if TYPE_CHECKING:
    from wfvae_cli.stats.accumulate import Latents

_BLOCK = 1 << 22
"""Latents that are read of a file at once."""
Fetch = Callable[[Source], AbstractContextManager[Source]]
"""Has a clip's file at hand on this machine while the block lasts."""
T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """A model that is ready to encode."""

    identity: ModelIdentity
    compute_dtype: str
    """What it computes in, as latent files record it."""
    feed: Callable[[ClipReader, ClipStats], None]
    """Encodes an open clip chunk by chunk into its statistics: mean and log-variance."""


@dataclass(frozen=True)
class MeasuredClip:
    """A clip's statistics, and whose latents they are of."""

    clip: ClipStats
    model: ModelIdentity
    posterior: str
    """`mean` or `sample`: what was measured."""
    compute_dtype: str


def attempt(source: Source, fetch: Fetch, work: Callable[[Source], T]) -> T | FailedClip:
    """Work on a clip whose file is at hand; one that cannot be used is named with the reason."""
    path = source.path
    try:
        with fetch(source) as file:
            path = file.path
            return work(file)
    except (InputError, UsageError, DeviceError) as error:
        # The file's name, which stands beside the reason, is not repeated.
        return FailedClip(source.name, str(error).removeprefix(f"{path}: "))


def measure(source: Source, encoder: Encoder | None, draw: Draw) -> MeasuredClip:
    """Take the statistics of one clip, which depend on nothing but the arguments.

    Args:
        source: a file of this machine.
        encoder: what encodes a video or image; latent files need none.
        draw: which part of the clip to look at.

    Raises:
        InputError: it cannot be read or encoded.
        UsageError: the sampling asks for the impossible.
        DeviceError: the device has no room for it.
    """
    if source.is_latents:
        return _measure_latents(source, draw)
    assert encoder is not None, "videos and images need an encoder"
    reader, identity = open_window(source, draw)
    clip = ClipStats(source.name, identity)
    with reader:
        encoder.feed(reader, clip)
    return MeasuredClip(clip, encoder.identity, "mean", encoder.compute_dtype)


def _measure_latents(source: Source, draw: Draw) -> MeasuredClip:
    with LatentFile(source.path) as file:
        meta = file.metadata
        begin, end = latent_window(source.name, draw, file.latent_frames, meta.strides.time)
        whole = (begin, end) == (0, file.latent_frames)
        identity = source.identity("" if whole else f"latents {begin} to {end}")
        clip = ClipStats(source.name, identity)
        for mean, logvar in _latents(file, begin, end):
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
