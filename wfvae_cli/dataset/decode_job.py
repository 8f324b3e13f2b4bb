"""Decoding the items of a dataset of latents."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from wfvae_cli.dataset.config import DecodeConfig, ModelFingerprint
from wfvae_cli.dataset.job import DatasetJob
from wfvae_cli.dataset.media_files import MediaFiles
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.source import Source, check_unchanged, opened
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.pipeline.decode import DecodeSink, LatentSource, check_made_by
from wfvae_cli.pipeline.job import Heartbeat, Job, Ready, Sink
from wfvae_cli.pipeline.plan import ChunkPlan


@dataclass(frozen=True)
class DecodeJob(DatasetJob):
    """Decode a dataset's latent files into videos and images."""

    config: DecodeConfig = field(default_factory=DecodeConfig)
    halves: ClassVar[Halves] = "decode"

    @property
    @override
    def how(self) -> DecodeConfig:
        return self.config

    @override
    def outputs(self) -> MediaFiles:
        return MediaFiles(self.store, self.config, self.config.video)

    @override
    def clip_job(
        self, model: LoadedModel, fingerprint: ModelFingerprint
    ) -> Job[Task, ItemLatents, ItemResult]:
        return DecodeItems(self, model, fingerprint)


class ItemLatents(LatentSource):
    """The latents of an item."""

    def __init__(self, task: Task, source: Source, file: LatentFile, heartbeat: Heartbeat) -> None:
        super().__init__(file, heartbeat)
        self.task, self.source = task, source

    @override
    def verify(self) -> None:
        check_unchanged(self.task.item, self.source.stamp)


class DecodeItems(Job[Task, ItemLatents, ItemResult]):
    """Decodes items with one model."""

    halves: Halves = "decode"

    def __init__(self, job: DecodeJob, model: LoadedModel, fingerprint: ModelFingerprint) -> None:
        self._job, self._model, self._fingerprint = job, model, fingerprint
        self._outputs = job.outputs()

    @override
    @contextlib.contextmanager
    def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[ItemLatents | Ready[ItemResult]]:
        """Open a latent file, unless its output is up to date."""
        config = self._job.config
        with opened(task.item, heartbeat) as source:
            if task.current is not None and source.sha256 == task.made_of:
                yield Ready(replace(task.current, stamp=source.stamp))
                return
            with LatentFile(source.path) as file:
                check_made_by(file, self._model, force=config.force)
                yield ItemLatents(task, source, file, heartbeat)

    @override
    def sink(self, task: Task, source: ItemLatents, plan: ChunkPlan) -> Sink[ItemResult]:
        """Begin an item's video or image."""
        outputs, is_image = self._outputs, source.file.metadata.is_image
        name = outputs.name(task.item, is_image=is_image)
        part = outputs.store.part(Path(name).suffix)

        def conclude(frames: int) -> ItemResult:
            result = outputs.described(task.item, frames, source.source, self._fingerprint)
            return outputs.publish(part, name, result)

        video = VideoOptions() if is_image else self._job.config.video
        wanted = self._job.config.part
        return _Sink(part, source, conclude, part=wanted, video=video, overwrite=True)


class _Sink(DecodeSink[ItemResult]):
    """Writes into the hidden folder."""

    def close(self) -> None:
        """Remove what is not complete."""
        super().close()
        Path(self.target).unlink(missing_ok=True)
