"""From the clips of a dataset to their statistics, one clip and one chunk in memory.

Encoding is the caller's: this floor knows neither models nor devices, only what they give. Who
measures the clips may be the caller's, too: they are merged here in the order of the dataset, so
that the report does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from wfvae_cli.errors import InputError, LatentError, UsageError
from wfvae_cli.media.clip import Sampling
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.stats.accumulate import FailedClip, LatentStats
from wfvae_cli.stats.draw import Draw, Source, open_window
from wfvae_cli.stats.measure import Encoder, Fetch, MeasuredClip, attempt, measure
from wfvae_cli.stats.report import ModelIdentity, StatsReport
from wfvae_cli.stats.subbands import Kind, SubbandStats

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 22
"""Pixels that are read of a file at once."""
_ALL = Draw()
Measure = Callable[[Sequence[Source]], Iterable[MeasuredClip | FailedClip]]
"""Measures clips, here or elsewhere: one result for each, in their order."""
_KINDS: dict[Kind, str] = {"video": "a video", "image": "an image"}


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
    by: Measure | None = None,
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
        by: who measures the clips; by default this thread, with `encoder`.
        on_clip: called after every clip, with all statistics so far and why it failed, if so.

    Returns:
        The report; `report.summary` raises where no clip is left or a channel is constant.

    Raises:
        UsageError: sampling options for latent files, which have no frames to sample.
    """
    chosen = draw.choose(sources)
    _check_sampling(chosen)
    encodes = not all(source.is_latents for source in chosen)
    collector = _Collector(
        identity or (encoder.identity if encoder else None), "mean" if encodes else None
    )
    stats, converged = collector.stats, False
    for result in by(chosen) if by else _measured(chosen, encoder, draw):
        failures = len(stats.failed)
        collector.take(result)
        on_clip(stats, stats.failed[-1] if len(stats.failed) > failures else None)
        if draw.until is not None and stats.precision().worst <= draw.until:
            converged = True
            break
    run = dict(run or {})
    if draw.until is not None:
        run["converged"] = converged
    return Collected(collector.report(_options(chosen, draw), run), converged)


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
        fetch: brings remote files here, one at a time; all are here by default.
        on_clip: as of `collect`.

    Raises:
        UsageError: `levels` is out of range.
    """
    chosen = draw.choose(sources)
    stats = SubbandStats(kind, levels, _options(chosen, draw))
    for source in chosen:
        failures = len(stats.failed)
        failed = attempt(source, fetch, lambda file: _add_frames(file, draw, stats))
        if failed is not None:
            stats.fail(failed.name, failed.reason)
        on_clip(stats, stats.failed[-1] if len(stats.failed) > failures else None)
    return stats


def _measured(
    sources: Sequence[Source], encoder: Encoder | None, draw: Draw
) -> Iterator[MeasuredClip | FailedClip]:
    for source in sources:
        yield attempt(source, nullcontext, lambda file: measure(file, encoder, draw))


@dataclass
class _Collector:
    """What is known of the clips so far."""

    identity: ModelIdentity | None
    posterior: str | None
    compute_dtypes: set[str] = field(default_factory=set)
    stats: LatentStats = field(default_factory=LatentStats)

    def take(self, result: MeasuredClip | FailedClip) -> None:
        """Take in one clip, or name it as failed."""
        if isinstance(result, FailedClip):
            self.stats.fail(result.name, result.reason)
            return
        try:
            self._check_model(result.model)
            self._expect_posterior(result.posterior)
            if self.stats.add(result.clip):
                self.compute_dtypes.add(result.compute_dtype)
        except LatentError as error:
            self.stats.fail(result.clip.name, str(error).removeprefix(f"{result.clip.name}: "))

    def report(self, options: dict[str, Any], run: dict[str, Any]) -> StatsReport:
        """Everything so far as a report."""
        options = {
            "posterior": self.posterior or "mean",
            "compute_dtype": ", ".join(sorted(self.compute_dtypes)),
            **options,
        }
        # Without any clip there is no report to read, only one to be refused.
        unknown = ModelIdentity("unknown", "", "unknown")
        return StatsReport(self.identity or unknown, self.stats, options, run)

    def _check_model(self, found: ModelIdentity) -> None:
        if self.identity is None:
            self.identity = found
        if found.sha256 != self.identity.sha256:
            raise LatentError(
                f"made by {found.name} ({found.sha256[:12]}), where the others are of "
                f"{self.identity.name} ({self.identity.sha256[:12]}): take the statistics of one "
                "model at a time, or name it with --model"
            )

    def _expect_posterior(self, found: str) -> None:
        self.posterior = self.posterior or found
        if found != self.posterior:
            raise LatentError(
                f"holds the posterior's {found}, where the others are of its {self.posterior}: "
                "take the statistics of one at a time"
            )


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
