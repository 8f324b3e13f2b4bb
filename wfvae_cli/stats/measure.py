"""The statistics of one clip: of latents that are stored, and of the frames' subbands."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from wfvae_cli.errors import InputError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.stats.accumulate import ClipStats, LatentStats
from wfvae_cli.stats.draw import Draw, Source, latent_window, open_window
from wfvae_cli.stats.musubi import MusubiCache, is_musubi
from wfvae_cli.stats.report import ExpectedModel, ModelIdentity
from wfvae_cli.stats.subband_clip import Kind, SubbandClip

if TYPE_CHECKING:
    from torch import Tensor

    from wfvae_cli.latents.metadata import AppliedNormalization
    from wfvae_cli.models.base import Normalization
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
    """Of this clip alone; it is in `failed` where its values are unusable."""
    model: ModelIdentity
    posterior: str
    """`mean` or `sample`: what was measured."""
    compute_dtype: str
    """What the model computed in, as latent files record it."""

    @classmethod
    def of(
        cls, clip: ClipStats, model: ModelIdentity, posterior: str, compute_dtype: str
    ) -> MeasuredClip:
        """Conclude a clip."""
        stats = LatentStats()
        stats.add(clip)
        return cls(clip.name, stats, model, posterior, compute_dtype)

    def pack(self) -> bytes:
        """Compress it, most of which are counts of zero; no digit is lost."""
        values = {
            "name": self.name,
            "stats": self.stats.to_state(),
            "model": asdict(self.model),
            "posterior": self.posterior,
            "compute_dtype": self.compute_dtype,
        }
        return zlib.compress(json.dumps(values).encode(), level=1)

    @classmethod
    def unpack(cls, data: bytes) -> MeasuredClip:
        """Undo `pack`."""
        values = json.loads(zlib.decompress(data))
        model = ModelIdentity(**values.pop("model"))
        return cls(stats=LatentStats.from_state(values.pop("stats")), model=model, **values)


class _StoredLatents(Protocol):
    """What is read of a latent file."""

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
            stride, applied, model = cache.stride, cache.applied, cache.model
            posterior, compute_dtype = "mean", cache.compute_dtype
        else:
            file = latents = stack.enter_context(LatentFile(opened))
            meta = latents.metadata
            stride, applied = meta.strides.time, meta.normalization
            model = ModelIdentity(meta.model, meta.model_sha256, meta.family)
            posterior = "sample" if meta.posterior == "sample" else "mean"
            compute_dtype = meta.compute_dtype
        total = file.shape[1]
        begin, end = latent_window(source.name, draw, total, stride)
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
            mean = mean.double()
            shift = mean.new_tensor(applied.shift).view(-1, 1, 1, 1)
            scale = mean.new_tensor(applied.scale).view(-1, 1, 1, 1)
            mean = mean / scale + shift
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


def pack_subbands(clip: SubbandClip) -> bytes:
    """Compress a complete clip's sums; no digit is lost."""
    values: dict[str, Any] = {"name": clip.name, "kind": clip.kind, "levels": clip.levels}
    values |= {"identity": clip.identity, "sums": clip.sums.to_state()}
    return zlib.compress(json.dumps(values).encode(), level=1)


def unpack_subbands(data: bytes) -> SubbandClip:
    """Undo `pack_subbands`."""
    values = json.loads(zlib.decompress(data))
    sums = values.pop("sums")
    clip = SubbandClip(**values)
    clip.sums.add_state(sums)
    return clip


def _frames(reader: ClipReader, heartbeat: Callable[[], None]) -> Iterator[Tensor]:
    """Read a clip's frames as [3, t, H, W] in [-1, 1], some at a time."""
    import numpy as np
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
