"""The statistics of one clip: of latents that are stored, and of the frames' subbands."""

from __future__ import annotations

import contextlib
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.errors import InputError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.stats.accumulate import ClipStats, FailedClip, LatentStats
from wfvae_cli.stats.draw import Draw, Source, latent_window, open_window
from wfvae_cli.stats.moments import Moments
from wfvae_cli.stats.musubi import MusubiCache, is_musubi
from wfvae_cli.stats.report import ExpectedModel, ModelIdentity
from wfvae_cli.stats.sketch import Histogram, QuantileSketch
from wfvae_cli.stats.subband_clip import Kind, SubbandClip

if TYPE_CHECKING:
    from torch import Tensor

    from wfvae_cli.latents.normalization import AppliedNormalization, Normalization
    from wfvae_cli.stats.accumulate import Latents

_LATENTS = 1 << 22
"""Latents that are read of a file at once."""
_PIXELS = 1 << 22
"""Pixels that are read of a file at once."""
_KINDS: dict[Kind, str] = {"video": "a video", "image": "an image"}
_ALL = Draw()


@dataclass(frozen=True)
class MeasuredClip:
    """A clip's statistics, and whose latents they are of."""

    name: str
    stats: LatentStats
    """Statistics of this clip alone; it is in `failed` where its values are unusable."""
    model: ModelIdentity
    posterior: str
    """`mean` or `sample`: what was measured."""
    compute_dtype: str
    """Dtype that the model computed in, as latent files record it."""

    @classmethod
    def of(
        cls, clip: ClipStats, model: ModelIdentity, posterior: str, compute_dtype: str
    ) -> MeasuredClip:
        """Conclude a clip."""
        stats = LatentStats()
        stats.add(clip)
        return cls(clip.name, stats, model, posterior, compute_dtype)

    @property
    def values(self) -> int:
        """Number of latents; 0 where the clip failed."""
        moments = self.stats.moments if self.stats.clips else None
        return 0 if moments is None else moments.count * len(moments.mean)

    def pack(self) -> bytes:
        """Compress it; no digit is lost, and nothing is executed where it is unpacked."""
        values: dict[str, Any] = {
            "name": self.name,
            "model": asdict(self.model),
            "posterior": self.posterior,
            "compute_dtype": self.compute_dtype,
            "failed": [asdict(failed) for failed in self.stats.failed],
        }
        if self.stats.clips:
            sketch, kl = self.stats.sketch, self.stats.kl
            values["number"] = self.stats.clip_ids[0]
            values["moments"] = self.stats.moments.to_state()
            values["histogram"] = _sparse(self.stats.histogram.counts)
            values["sketch"] = [sketch.zeros.tolist(), sketch.first, _sparse(sketch.counts)]
            values["kl"] = None if kl is None else kl.tolist()
        return zlib.compress(json.dumps(values).encode(), level=1)

    @classmethod
    def unpack(cls, data: bytes) -> MeasuredClip:
        """Undo `pack`."""
        values = json.loads(zlib.decompress(data))
        stats = LatentStats()
        stats.failed += [FailedClip(**failed) for failed in values["failed"]]
        if "number" in values:
            zeros, first, counts = values["sketch"]
            kl = values["kl"]
            stats = LatentStats.of_clip(
                values["number"],
                Moments.from_state(values["moments"]),
                Histogram(_dense(values["histogram"])),
                QuantileSketch(np.asarray(zeros, dtype=np.int64), first, _dense(counts)),
                None if kl is None else np.asarray(kl, dtype=np.float64),
            )
        model = ModelIdentity(**values["model"])
        return cls(values["name"], stats, model, values["posterior"], values["compute_dtype"])


def _sparse(counts: NDArray[np.int64]) -> list[list[int]]:
    """Give the shape of an array, most of which is zero, and what is not zero, and where."""
    at = np.flatnonzero(counts)
    return [list(counts.shape), at.tolist(), counts.ravel()[at].tolist()]


def _dense(state: list[list[int]]) -> NDArray[np.int64]:
    shape, at, found = state
    counts = np.zeros(math.prod(shape), dtype=np.int64)
    counts[at] = found
    return counts.reshape(shape)


class _StoredLatents(Protocol):
    """A latent file, or another one that is read like it."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    def has_logvar(self) -> bool: ...

    def read(self, start: int, stop: int, *, check_finite: bool) -> Tensor: ...

    def read_logvar(self, start: int, stop: int, *, check_finite: bool) -> Tensor: ...


def measure_latents(
    source: Source,
    draw: Draw,
    heartbeat: Callable[[], None] = lambda: None,
    expected: ExpectedModel | None = None,
) -> MeasuredClip:
    """Take the statistics of a latent file, a normalisation undone.

    Args:
        source: a file of this machine, a member of a tar shard, or a cache of musubi-tuner.
        draw: which part of it to look at.
        heartbeat: called for every block that was read.
        expected: the model that made it, which the headers of caches do not name.

    Raises:
        InputError: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        opened: str | BinaryIO = source.path
        if source.size is not None:
            opened = cast(BinaryIO, stack.enter_context(source.open_member()))
        file: _StoredLatents
        applied: AppliedNormalization | Normalization | None
        if source.size is None and is_musubi(source.path):
            file = cache = stack.enter_context(MusubiCache(source.path, expected))
            strides, applied, model = cache.strides, cache.applied, cache.model
            posterior, compute_dtype = "mean", cache.compute_dtype
        else:
            file = latents = stack.enter_context(LatentFile(opened))
            meta = latents.metadata
            strides, applied = meta.strides, meta.normalization
            model = ModelIdentity(meta.model, meta.model_sha256, meta.family)
            posterior = "sample" if meta.posterior == "sample" else "mean"
            compute_dtype = meta.compute_dtype
        total = file.shape[1]
        begin, end = latent_window(source.name, draw, total, strides)
        whole = (begin, end) == (0, total)
        clip = ClipStats(source.name, source.identity("" if whole else f"latents {begin} to {end}"))
        for mean, logvar in _blocks(file, begin, end, applied):
            heartbeat()
            clip.update(mean, logvar)
    return MeasuredClip.of(clip, model, posterior, compute_dtype)


def _blocks(
    file: _StoredLatents,
    begin: int,
    end: int,
    applied: AppliedNormalization | Normalization | None,
) -> Iterator[tuple[Latents, Latents | None]]:
    """Read mean and log-variance, a block at a time, not normalised."""
    channels, _, height, width = file.shape
    step = max(1, _LATENTS // (channels * height * width))
    for start in range(begin, end, step):
        stop = min(start + step, end)
        mean = file.read(start, stop, check_finite=False)
        logvar = file.read_logvar(start, stop, check_finite=False) if file.has_logvar else None
        if applied is not None:
            mean = applied.undo(mean.double())
        yield mean, logvar


def analyse_clip(
    source: Source,
    kind: Kind,
    levels: int,
    draw: Draw = _ALL,
    heartbeat: Callable[[], None] = lambda: None,
) -> SubbandClip:
    """Transform the frames of one clip into their Haar subbands.

    Args:
        source: a file of this machine.
        kind: what it must be.
        levels: how often the low band is transformed again.
        draw: which part of the clip to look at.
        heartbeat: called whenever there is more of it.

    Raises:
        InputError: it cannot be read, or is of the other kind.
        UsageError: the sampling asks for the impossible.
    """
    if source.is_latents:
        raise InputError("latents; subbands are of the frames: give videos or images")
    reader, identity = open_window(source, draw)
    with reader:
        heartbeat()
        found: Kind = "image" if reader.info.is_image else "video"
        if found != kind:
            raise InputError(
                f"this is {_KINDS[found]}, and {_KINDS[kind]} is expected: videos are analysed "
                "in 3D and images in 2D, one kind at a time"
            )
        clip = SubbandClip(source.name, kind, levels, identity)
        for frames in _frames(reader, heartbeat):
            clip.update(frames)
    clip.end()
    return clip


def _frames(reader: ClipReader, heartbeat: Callable[[], None]) -> Iterator[Tensor]:
    """Read a clip's frames as [3, t, H, W] in [-1, 1], some at a time."""
    import torch

    size = max(1, _PIXELS // (reader.info.width * reader.info.height))
    half = (2**reader.info.bits - 1) / 2
    group = []
    for frame in reader:
        heartbeat()
        group.append(frame.pixels)
        if len(group) == size:
            yield torch.from_numpy(np.stack(group)).permute(3, 0, 1, 2).float() / half - 1
            group = []
    if group:
        yield torch.from_numpy(np.stack(group)).permute(3, 0, 1, 2).float() / half - 1
