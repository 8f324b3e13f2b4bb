"""Encodes the items of a dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from wfvae_cli.dataset.config import EncodeConfig, ModelFingerprint
from wfvae_cli.dataset.exporters import make_exporter
from wfvae_cli.dataset.exporters.base import Exporter, Written
from wfvae_cli.dataset.job import DatasetJob
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.source import Source, check_unchanged, opened
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.pipeline.chunks import FrameSource, convert_on
from wfvae_cli.pipeline.encode import EncodeSink, describe
from wfvae_cli.pipeline.job import Heartbeat, Job, Ready, Sink
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.strides import Strides


@dataclass(frozen=True)
class EncodeJob(DatasetJob):
    """Encode a dataset's videos and images."""

    config: EncodeConfig = field(default_factory=EncodeConfig)
    halves: ClassVar[Halves] = "encode"

    @property
    def how(self) -> EncodeConfig:
        """What decides the outputs' bytes."""
        return self.config

    def outputs(self) -> Exporter:
        """Give the exporter."""
        return make_exporter(self.store, self.config)

    def clip_job(
        self, model: LoadedModel, fingerprint: ModelFingerprint
    ) -> Job[Task, ItemFrames, ItemResult]:
        """Give what the pipeline does with each item."""
        return EncodeItems(self, model, fingerprint)


class ItemFrames(FrameSource):
    """The frames of an item."""

    def __init__(
        self, task: Task, file: Source, reader: ClipReader, strides: Strides, heartbeat: Heartbeat
    ) -> None:
        super().__init__(reader, strides, heartbeat)
        self.task, self.file = task, file

    def verify(self) -> None:
        """Check that nobody wrote to the file meanwhile."""
        check_unchanged(self.task.item, self.file.stamp)


class EncodeItems(Job[Task, ItemFrames, ItemResult]):
    """Encodes items with one model, and exports their latents."""

    halves: Halves = "encode"

    def __init__(self, job: EncodeJob, model: LoadedModel, fingerprint: ModelFingerprint) -> None:
        self._job, self._model, self._fingerprint = job, model, fingerprint
        self._exporter = job.outputs()

    @contextlib.contextmanager
    def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[ItemFrames | Ready[ItemResult]]:
        """Open a clip, unless its output is up to date."""
        item, job = task.item, self._job
        with opened(item, heartbeat) as file:
            if task.current is not None and file.sha256 == task.made_of:
                yield Ready(replace(task.current, stamp=file.stamp))
                return
            sampling = job.config.sampling_of(item)
            with open_clip(file.path, sampling, **job.reader_options) as reader:
                convert_on(self._model.device, reader)
                yield ItemFrames(task, file, reader, self._model.vae.strides, heartbeat)

    def sink(self, task: Task, source: ItemFrames, plan: ChunkPlan) -> Sink[ItemResult]:
        """Begin an item's output."""
        item, config = task.item, self._job.config
        options = config.options_of(item, self._fingerprint, source.file.sha256)
        metadata = describe(source.info, self._model, options, item.path, plan)

        def conclude(frames: int, written: Written) -> ItemResult:
            return ItemResult(
                item.relative,
                item.path,
                "done",
                output=written.output,
                frames=frames,
                shape=written.shape,
                bytes=written.bytes,
                stamp=source.file.stamp,
                fingerprint=config.fingerprint(item, self._fingerprint),
                data_sha256=written.data_sha256,
            )

        output = self._exporter.open(item, metadata, options)
        return EncodeSink(output, source, options, conclude)
