"""Taking the items of a dataset to latents and back, and measuring the loss."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from wfvae_cli.dataset.config import ModelFingerprint, RoundtripConfig
from wfvae_cli.dataset.encode_job import ItemFrames
from wfvae_cli.dataset.job import DatasetJob
from wfvae_cli.dataset.media_files import MediaFiles
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.source import Source, opened
from wfvae_cli.media.audio import has_sound
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.reader import open_clip
from wfvae_cli.metrics.clip import ClipMetrics
from wfvae_cli.metrics.result import ClipResult
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.pipeline.job import Heartbeat, Job, PipelineOptions, Ready, Sink
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.pipeline.roundtrip import ClipRecord, Recorder, RoundtripSink, ScoresOnly


@dataclass(frozen=True)
class RoundtripJob(DatasetJob):
    """Take a dataset's videos and images to latents and back."""

    config: RoundtripConfig = field(default_factory=RoundtripConfig)
    recorder: Recorder | None = None
    """Collects more of every clip than the manifest holds; in this process only. Clips whose
    outputs are up to date go through the model for it, and are not written again."""
    is_written: bool = True
    """True where outputs are written; `store` is not used otherwise."""
    halves: ClassVar[Halves] = "both"

    @property
    @override
    def how(self) -> RoundtripConfig:
        return self.config

    @property
    @override
    def revisits(self) -> bool:
        return self.recorder is not None

    @property
    @override
    def pipeline_options(self) -> PipelineOptions:
        is_timed = self.profile or (self.recorder is not None and self.recorder.is_timed)
        return replace(super().pipeline_options, is_timed=is_timed)

    @override
    def outputs(self) -> MediaFiles:
        return MediaFiles(self.store, self.config, self.config.video)

    @override
    def clip_job(
        self, model: LoadedModel, fingerprint: ModelFingerprint
    ) -> Job[Task, ItemFrames, ItemResult]:
        return RoundtripItems(self, model, fingerprint)


class RoundtripItems(Job[Task, ItemFrames, ItemResult]):
    """Takes items there and back with one model."""

    halves: Halves = "both"

    def __init__(
        self, job: RoundtripJob, model: LoadedModel, fingerprint: ModelFingerprint
    ) -> None:
        self._job, self._model, self._fingerprint = job, model, fingerprint
        self._outputs = job.outputs()
        if job.recorder is not None:
            job.recorder.loaded(model)

    @override
    @contextlib.contextmanager
    def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[ItemFrames | Ready[ItemResult]]:
        """Open a clip, unless its output is up to date."""
        job = self._job
        with opened(task.item, heartbeat) as source:
            if _current(task, source) is not None and not job.revisits:
                assert task.current is not None
                yield Ready(replace(task.current, stamp=source.stamp))
                return
            sampling = job.config.sampling_of(task.item)
            with open_clip(source.path, sampling, **job.reader_options) as reader:
                yield ItemFrames(task, source, reader, self._model.vae.strides, heartbeat)

    @override
    def sink(self, task: Task, source: ItemFrames, plan: ChunkPlan) -> Sink[ItemResult]:
        """Begin an item's video or image, and its scores."""
        outputs, config, info = self._outputs, self._job.config, source.info
        item, recorder = task.item, self._job.recorder
        record: ClipRecord = ScoresOnly(ClipMetrics(ms_ssim=config.ms_ssim))
        if recorder is not None:
            record = recorder.begin(item.relative, info, plan)
        current = _current(task, source.file)
        if current is not None or not self._job.is_written:
            plain = ItemResult(item.relative, item.path, "done")

            def measured(scores: ClipResult) -> ItemResult:
                result = current or replace(plain, frames=scores.frames)
                return replace(result, stamp=source.file.stamp, metrics=_metrics(scores))

            video = VideoOptions()
            return RoundtripSink(
                None, source, measured, record=record, video=video, overwrite=False
            )
        name = outputs.name(item, is_image=info.is_image)
        part = outputs.store.part(Path(name).suffix)

        def conclude(scores: ClipResult) -> ItemResult:
            result = outputs.described(item, scores.frames, source.file, self._fingerprint)
            return outputs.publish(part, name, replace(result, metrics=_metrics(scores)))

        path, copies = source.file.path, config.audio == "copy" and not info.is_image
        return _Sink(
            part,
            source,
            conclude,
            record=record,
            compare=config.compare,
            video=VideoOptions() if info.is_image else config.video,
            overwrite=True,
            audio_from=path if copies and has_sound(path) else None,
        )


def _current(task: Task, source: Source) -> ItemResult | None:
    """The result of an item whose output was made of what its source holds now."""
    return task.current if source.sha256 == task.made_of else None


def _metrics(scores: ClipResult) -> dict[str, float]:
    """Take the scores of a whole clip; an identical one has no finite PSNR."""
    found = {
        "psnr": scores.psnr,
        "ssim": scores.ssim,
        "ms_ssim": scores.ms_ssim,
        "flicker_psnr": scores.flicker_psnr,
    }
    return {
        name: round(value, 6)
        for name, value in found.items()
        if value is not None and math.isfinite(value)
    }


class _Sink(RoundtripSink[ItemResult]):
    """Writes into the hidden folder."""

    @override
    def close(self) -> None:
        super().close()
        assert self.target is not None
        Path(self.target).unlink(missing_ok=True)
