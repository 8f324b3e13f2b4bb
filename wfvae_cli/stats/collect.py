"""Statistics of a dataset, of its latents or of its frames' subbands, from those of its clips.

The caller measures the clips, here or elsewhere; they are pulled and merged one at a time, in the
order of the dataset, so that the report does not depend on who was ready first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wfvae_cli.errors import LatentError, UsageError
from wfvae_cli.media.options import Sampling
from wfvae_cli.stats.accumulate import FailedClip, LatentStats
from wfvae_cli.stats.draw import Draw, Source, dataset_options
from wfvae_cli.stats.measure import MeasuredClip
from wfvae_cli.stats.report import ModelIdentity, StatsReport
from wfvae_cli.stats.subband_clip import Kind, SubbandClip
from wfvae_cli.stats.subbands import SubbandStats

_ALL = Draw()
Measure = Callable[[Sequence[Source]], Iterable[MeasuredClip | FailedClip]]
"""Measures clips: one result for each, in their order."""
Analyse = Callable[[Sequence[Source]], Iterable[SubbandClip | FailedClip]]
"""Analyses the frames of clips, likewise."""


@dataclass(frozen=True)
class Collected:
    """A report, and why the run ended."""

    report: StatsReport
    converged: bool
    """True where `Draw.until` was reached before the clips were used up."""


def collect(
    sources: Sequence[Source],
    *,
    by: Measure,
    identity: ModelIdentity | None = None,
    draw: Draw = _ALL,
    run: dict[str, Any] | None = None,
    on_clip: Callable[[LatentStats, FailedClip | None], None] = lambda stats, failed: None,
) -> Collected:
    """Take the statistics of the posterior's mean over a dataset.

    Videos and images are encoded; latent files are read as they are, a normalisation undone. A
    clip that cannot be read or encoded, or that another model made, is named in the report's
    `failed` and left out. Memory does not grow with the clips, beyond 8 bytes for each.

    Args:
        sources: the clips, each with its sampling.
        by: measures the clips.
        identity: of the model whose latents are expected; by default that of the first clip that
            can be read.
        draw: which part of the dataset to look at.
        run: JSON values that tell how the report came about.
        on_clip: called after every clip, with all statistics so far and why it failed, if so.

    Returns:
        The report; `report.summary` raises where no clip is left or a channel is constant.

    Raises:
        UsageError: sampling options for latent files, which have no frames to sample.
    """
    chosen = draw.choose(sources)
    _check_sampling(chosen)
    encodes = not all(source.is_latents for source in chosen)
    collector = _Collector(identity, "mean" if encodes else None)
    stats, converged = collector.stats, False
    for result in by(chosen):
        failures = len(stats.failed)
        collector.take(result)
        on_clip(stats, stats.failed[-1] if len(stats.failed) > failures else None)
        if draw.until is not None and stats.precision().worst <= draw.until:
            converged = True
            break
    run = dict(run or {})
    if draw.until is not None:
        run["converged"] = converged
    return Collected(collector.report(dataset_options(chosen, draw), run), converged)


def collect_subbands(
    sources: Sequence[Source],
    kind: Kind,
    levels: int = 3,
    *,
    by: Analyse,
    draw: Draw = _ALL,
    on_clip: Callable[[SubbandStats, FailedClip | None], None] = lambda stats, failed: None,
) -> SubbandStats:
    """Take the statistics of the Haar subbands of a dataset's frames.

    Args:
        sources: videos, or images.
        kind: which of the two.
        levels: how often the low band is transformed again.
        by: analyses the clips, for `kind` and `levels`.
        draw: which part of the dataset to look at; `until` plays no part.
        on_clip: as of `collect`.

    Raises:
        UsageError: `levels` is out of range.
    """
    chosen = draw.choose(sources)
    stats = SubbandStats(kind, levels, dataset_options(chosen, draw))
    for result in by(chosen):
        if isinstance(result, FailedClip):
            stats.fail(result.name, result.reason)
            on_clip(stats, stats.failed[-1])
        else:
            stats.add(result)
            on_clip(stats, None)
    return stats


@dataclass
class _Collector:
    """Statistics of the clips so far, and what further clips must agree with."""

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
            self.stats.merge(result.stats)
            if result.stats.clips:
                self.compute_dtypes.add(result.compute_dtype)
        except LatentError as error:
            self.stats.fail(result.name, str(error))

    def report(self, options: dict[str, Any], run: dict[str, Any]) -> StatsReport:
        """Make a report of the clips so far."""
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


def _check_sampling(sources: Sequence[Source]) -> None:
    for source in sources:
        if source.is_latents and source.sampling != Sampling():
            raise UsageError(
                f"{source.name} holds latents, which cannot be cut or scaled: --start, "
                "--duration, --frames, --fps, --size and --short-side are for videos and images"
            )
