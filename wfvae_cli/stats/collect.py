"""From the clips of a dataset to their statistics, one clip and one chunk in memory.

Encoding is the caller's: this floor knows neither models nor devices, only what they give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from wfvae_cli.errors import DeviceError, InputError, LatentError, UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.media.clip import Sampling
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.stats.accumulate import ClipStats, FailedClip, LatentStats
from wfvae_cli.stats.draw import Draw, Source, latent_window, open_window
from wfvae_cli.stats.report import ModelIdentity, StatsReport
from wfvae_cli.stats.subbands import Kind, SubbandStats

if TYPE_CHECKING:
    from torch import Tensor

    from wfvae_cli.stats.accumulate import Latents

_BLOCK = 1 << 22
"""Latents, or pixels, that are read of a file at once."""
_ALL = Draw()
Fetch = Callable[[Source], AbstractContextManager[Source]]
"""Has a clip's file at hand on this machine while the block lasts."""
_KINDS: dict[Kind, str] = {"video": "a video", "image": "an image"}


@dataclass(frozen=True)
class Encoder:
    """A model that is ready to encode."""

    identity: ModelIdentity
    compute_dtype: str
    """What it computes in, as latent files record it."""
    feed: Callable[[ClipReader, ClipStats], None]
    """Encodes an open clip chunk by chunk into its statistics: mean and log-variance."""


@dataclass(frozen=True)
class Collected:
    """What came out, and why it ended."""

    report: StatsReport
    converged: bool
    """Whether `Draw.until` was reached before the clips were used up."""


def collect(
    sources: Sequence[Source],
    encoder: Encoder | None = None,
    *,
    identity: ModelIdentity | None = None,
    draw: Draw = _ALL,
    run: dict[str, Any] | None = None,
    fetch: Fetch = nullcontext,
    on_clip: Callable[[LatentStats, FailedClip | None], None] = lambda stats, failed: None,
) -> Collected:
    """Take the statistics of the posterior's mean over a dataset.

    Videos and images are encoded; latent files are read as they are, a normalisation undone. A
    clip that cannot be read or encoded, or that another model made, is named in the report's
    `failed` and left out. Memory does not grow with the clips, beyond 8 bytes for each.

    Args:
        sources: the clips, each with its sampling.
        encoder: what encodes videos and images; None where all are latent files.
        identity: of the model that made the latent files; by default the encoder's, or else
            that of the first one that can be read.
        draw: which part of the dataset to look at.
        run: JSON values that tell how the report came about.
        fetch: brings remote files here, one at a time; all are here by default.
        on_clip: called after every clip, with all statistics so far and why it failed, if so.

    Returns:
        The report; `report.summary` raises where no clip is left or a channel is constant.

    Raises:
        UsageError: sampling options for latent files, which have no frames to sample.
    """
    collector = _Collector(encoder, identity or (encoder.identity if encoder else None), draw)
    chosen = draw.choose(sources)
    _check_sampling(chosen)
    stats, converged = collector.stats, False
    for source in chosen:
        failures = len(stats.failed)
        _each(source, fetch, collector.add, stats)
        on_clip(stats, stats.failed[-1] if len(stats.failed) > failures else None)
        if draw.until is not None and stats.precision().worst <= draw.until:
            converged = True
            break
    run = dict(run or {})
    if draw.until is not None:
        run["converged"] = converged
    return Collected(collector.report(chosen, run), converged)


def collect_subbands(
    sources: Sequence[Source],
    kind: Kind,
    levels: int = 3,
    *,
    draw: Draw = _ALL,
    fetch: Fetch = nullcontext,
    on_clip: Callable[[SubbandStats, FailedClip | None], None] = lambda stats, failed: None,
) -> SubbandStats:
    """Analyse the Haar subbands of a dataset's frames; no model takes part.

    Args:
        sources: videos, or images.
        kind: which of the two; a clip of the other kind fails.
        levels: how often the low band is transformed again.
        draw: which part of the dataset to look at; `until` plays no part.
        fetch: as of `collect`.
        on_clip: as of `collect`.

    Raises:
        UsageError: `levels` is out of range.
    """
    chosen = draw.choose(sources)
    stats = SubbandStats(kind, levels, _options(chosen, draw))
    for source in chosen:
        failures = len(stats.failed)
        _each(source, fetch, lambda file: _add_frames(file, draw, stats), stats)
        on_clip(stats, stats.failed[-1] if len(stats.failed) > failures else None)
    return stats


def _each(
    source: Source,
    fetch: Fetch,
    add: Callable[[Source], None],
    stats: LatentStats | SubbandStats,
) -> None:
    """Take in one clip, or name it as failed."""
    path = source.path
    try:
        with fetch(source) as file:
            path = file.path
            add(file)
    except (InputError, UsageError, DeviceError) as error:
        # The file's name, which stands beside the reason, is not repeated.
        stats.fail(source.name, str(error).removeprefix(f"{path}: "))


@dataclass
class _Collector:
    """What is known of the clips so far."""

    encoder: Encoder | None
    identity: ModelIdentity | None
    draw: Draw
    stats: LatentStats = field(default_factory=LatentStats)
    posterior: str | None = None
    compute_dtypes: set[str] = field(default_factory=set)

    def add(self, source: Source) -> None:
        """Take in one clip, or raise what is wrong with it."""
        if source.is_latents:
            self._add_latents(source)
            return
        encoder = self.encoder
        assert encoder is not None, "videos and images need an encoder"
        self._expect_posterior("mean")
        reader, identity = open_window(source, self.draw)
        clip = ClipStats(source.name, identity)
        with reader:
            encoder.feed(reader, clip)
        self._take(clip, encoder.compute_dtype)

    def report(self, sources: Sequence[Source], run: dict[str, Any]) -> StatsReport:
        """Everything so far as a report."""
        options = {
            "posterior": self.posterior or "mean",
            "compute_dtype": ", ".join(sorted(self.compute_dtypes)),
            **_options(sources, self.draw),
        }
        # Without any clip there is no report to read, only one to be refused.
        unknown = ModelIdentity("unknown", "", "unknown")
        return StatsReport(self.identity or unknown, self.stats, options, run)

    def _add_latents(self, source: Source) -> None:
        with LatentFile(source.path) as file:
            meta = file.metadata
            self._check_model(meta)
            self._expect_posterior("sample" if meta.posterior == "sample" else "mean")
            begin, end = latent_window(
                source.name, self.draw, file.latent_frames, meta.strides.time
            )
            whole = (begin, end) == (0, file.latent_frames)
            identity = source.identity("" if whole else f"latents {begin} to {end}")
            clip = ClipStats(source.name, identity)
            for mean, logvar in _latents(file, begin, end):
                clip.update(mean, logvar)
        self._take(clip, meta.compute_dtype)

    def _take(self, clip: ClipStats, compute_dtype: str) -> None:
        if self.stats.add(clip):
            self.compute_dtypes.add(compute_dtype)

    def _check_model(self, meta: LatentMetadata) -> None:
        found = ModelIdentity(meta.model, meta.model_sha256, meta.family)
        if self.identity is None:
            self.identity = found
        if found.sha256 != self.identity.sha256:
            raise LatentError(
                f"made by {found.name} ({found.sha256[:12]}), where the others are of "
                f"{self.identity.name} ({self.identity.sha256[:12]}): take the statistics of one "
                "model at a time, or name it with --model"
            )

    def _expect_posterior(self, found: str) -> None:
        self.posterior = self.posterior or ("mean" if self.encoder is not None else found)
        if found != self.posterior:
            raise LatentError(
                f"holds the posterior's {found}, where the others are of its {self.posterior}: "
                "take the statistics of one at a time"
            )


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


def _add_frames(source: Source, draw: Draw, stats: SubbandStats) -> None:
    """Take in the frames of one clip, or raise what is wrong with it."""
    if source.is_latents:
        raise InputError("latents; subbands are of the frames: give videos or images")
    reader, identity = open_window(source, draw)
    with reader:
        found: Kind = "image" if reader.info.is_image else "video"
        if found != stats.kind:
            raise InputError(
                f"this is {_KINDS[found]}, and {_KINDS[stats.kind]} is expected: videos are "
                "analysed in 3D and images in 2D, one kind at a time"
            )
        stats.begin_clip(source.name, identity)
        try:
            for frames in _frames(reader):
                stats.update(frames)
        except InputError as error:
            stats.abort_clip(str(error).removeprefix(f"{source.path}: "))
        else:
            stats.end_clip()


def _frames(reader: ClipReader) -> Iterator[Tensor]:
    """A clip's frames as [3, t, H, W] in [-1, 1], some at a time."""
    import numpy as np
    import torch

    size = max(1, _BLOCK // (reader.info.width * reader.info.height))
    half = (2**reader.info.bits - 1) / 2
    group = []
    for frame in reader:
        group.append(frame.pixels)
        if len(group) == size:
            yield torch.from_numpy(np.stack(group)).permute(3, 0, 1, 2).float() / half - 1
            group = []
    if group:
        yield torch.from_numpy(np.stack(group)).permute(3, 0, 1, 2).float() / half - 1


def _check_sampling(sources: Sequence[Source]) -> None:
    for source in sources:
        if source.is_latents and source.sampling != Sampling():
            raise UsageError(
                f"{source.name} holds latents, which cannot be cut or scaled: --start, "
                "--duration, --frames, --fps, --size and --short-side are for videos and images"
            )


def _options(sources: Sequence[Source], draw: Draw) -> dict[str, Any]:
    """What reports must agree on to be merged: what was done to the frames of every clip."""
    options: dict[str, Any] = {}
    media = [source.sampling for source in sources if not source.is_latents]
    for name, default in ((each.name, each.default) for each in fields(Sampling)):
        found = {getattr(sampling, name) for sampling in media}
        # Manifests give parts of clips of their own; those are in the clips' identities.
        if len(found) == 1 and (value := found.pop()) != default:
            options[name] = value if isinstance(value, int | float | str) else str(value)
    if sizes := {sampling.size for sampling in media} - {None}:
        options["size"] = ", ".join(
            f"{size[0]}x{size[1]}" for size in sorted(sizes, key=str) if size
        )
    if options.get("size") is None:
        options.pop("fit", None)
    else:
        options.setdefault("fit", Sampling().fit)
    if draw.sample_frames is not None:
        options["sample_frames"] = draw.sample_frames
    return options
