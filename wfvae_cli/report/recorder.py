"""Losses of one model on clips, collected over roundtrips for pages, plots and tables."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wfvae_cli.errors import InputError
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.metrics.clip import ClipMetrics, PairObserver
from wfvae_cli.metrics.compare import Measures
from wfvae_cli.metrics.frechet import FrechetDistance
from wfvae_cli.metrics.result import ClipResult, Comparison, FailedFile, FileResult, JsonValue
from wfvae_cli.metrics.stills import WorstFrames
from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.report.report import Report, ReportClip, ReportModel
from wfvae_cli.stats.accumulate import ClipStats, LatentStats
from wfvae_cli.stats.report import ModelIdentity, StatsReport

log = logging.getLogger("wfvae")

_STORED_BYTES = 4
"""Bytes of a latent value as `wfvae encode` stores it by default."""


@dataclass(frozen=True)
class Worst:
    """Selection of the stills to write of every clip."""

    count: int
    folder: Path
    overwrite: bool = False


class ModelRecorder:
    """Collects scores, stills, pages' clips and latents of one model.

    A `Recorder` of roundtrips: clips may be open at once, each in one thread.

    Args:
        name: what pages and tables call the model.
        measures: what to measure of every clip.
        worst: which stills to write.
        report: the page, if there is one, and the model's place on it.
        facts: what pages say of the run beside what the model itself says.
    """

    def __init__(
        self,
        name: str,
        measures: Measures,
        *,
        worst: Worst | None = None,
        report: tuple[Report, int] | None = None,
        facts: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self.name, self.measures = name, measures
        self._worst, self._report = worst, report
        self._facts = dict(facts or {})
        self._lock = threading.Lock()
        self._identity: ModelIdentity | None = None
        self._compute_dtype = ""
        self._files: dict[str, ClipResult] = {}
        self._failed: dict[str, str] = {}
        self._latents = LatentStats()

    @property
    def is_timed(self) -> bool:
        """True where the page is to say how long the model took."""
        return self._report is not None

    @property
    def identity(self) -> ModelIdentity:
        """Identity of the model, which has been loaded."""
        assert self._identity is not None, "nothing has run"
        return self._identity

    @property
    def comparison(self) -> Comparison:
        """The scores of all clips so far, by name."""
        return Comparison(
            tuple(FileResult(name, self._files[name]) for name in sorted(self._files)),
            tuple(FailedFile(name, self._failed[name]) for name in sorted(self._failed)),
        )

    def loaded(self, model: LoadedModel) -> None:
        """Take what identifies the model; the weights are not held on to."""
        self._identity = ModelIdentity(model.name, model.sha256, model.vae.family)
        self._compute_dtype = model.compute_dtype
        self._facts = {**ReportModel.of(model).facts, **self._facts}

    def begin(self, name: str, info: ClipInfo, plan: ChunkPlan) -> ClipRecorder:
        """Begin a clip."""
        del plan  # where chunks begin is seen of what comes
        page = None
        if self._report is not None:
            report, place = self._report
            page = report.clip(name, place, frame_rate=info.frame_rate, image=info.is_image)
        stills = None
        if self._worst is not None:
            worst = self._worst
            stills = WorstFrames(
                worst.count, name=name, directory=worst.folder, overwrite=worst.overwrite
            )
        return ClipRecorder(self, name, page, stills)

    def fail(self, name: str, error: str) -> None:
        """Name a clip that there are no figures of."""
        with self._lock:
            self._failed[name] = error
        if self._report is not None:
            report, place = self._report
            report.fail(name, place, error)

    def take(
        self, name: str, result: ClipResult, latents: ClipStats, parts: list[FrechetDistance]
    ) -> None:
        """Take in a clip that has come to its end."""
        with self._lock:
            self._files[name] = result
            for distance, part in zip(self.measures.distances, parts, strict=True):
                assert isinstance(distance, FrechetDistance)
                distance.merge(part)
            if self._report is not None:
                self._latents.add(latents)

    @property
    def latents(self) -> StatsReport | None:
        """Statistics of the latents; None where there are too few for any."""
        options = {"posterior": "mean", "compute_dtype": self._compute_dtype}
        report = StatsReport(self.identity, self._latents, options)
        try:
            return report if report.summary.clips else None
        except InputError as error:
            log.info("%s: the page has no statistics of its latents: %s", self.name, error)
            return None

    def finish(self) -> None:
        """Give the page what is known of the model, after its last clip."""
        if self._report is None:
            return
        report, place = self._report
        facts = {"model": self.identity.name, **self._facts}
        report.set_model(place, ReportModel(self.name, facts, self.latents))
        report.set_distances(place, self.measures.figures)


class ClipRecorder:
    """Collects one clip: a `ClipRecord`."""

    def __init__(
        self,
        owner: ModelRecorder,
        name: str,
        page: ReportClip | None,
        stills: WorstFrames | None,
    ) -> None:
        self._owner, self._name, self._page, self._stills = owner, name, page, stills
        measures = owner.measures
        self._parts: list[FrechetDistance] = []
        for distance in measures.distances:
            assert isinstance(distance, FrechetDistance)
            self._parts.append(distance.part())
        observers: list[PairObserver] = [*self._parts]
        observers += [each for each in (page, stills) if each is not None]
        self.metrics = ClipMetrics(
            ms_ssim=measures.ms_ssim, lpips=measures.lpips, observers=observers
        )
        self._latents = ClipStats(name)
        self._chunks: list[int] = []
        self._frames = self._values = 0
        self._seconds = 0.0

    def encoded(self, posterior: Posterior, frames: int, seconds: float) -> None:
        """Take the next chunk's posterior."""
        self._chunks.append(self._frames)
        self._frames += frames
        self._seconds += seconds
        self._values += posterior.mean.numel()
        if self._page is not None:
            self._latents.update(posterior.mean[0], posterior.logvar[0])

    def close(self, result: ClipResult | None) -> None:
        """Finish the clip's files, and hand its figures over."""
        if self._page is not None:
            self._page.describe(
                seconds=self._seconds,
                latent_bytes=self._values * _STORED_BYTES,
                chunks=self._chunks,
            )
        for each in (self._page, self._stills):
            if each is not None:
                each.close(result)
        if result is not None:
            self._owner.take(self._name, result, self._latents, self._parts)
