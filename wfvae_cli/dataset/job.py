"""The interface of a dataset's jobs: options of its workers."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, TypedDict

from wfvae_cli.dataset.config import Config, ModelFingerprint
from wfvae_cli.dataset.options import default_readers, default_threads
from wfvae_cli.dataset.outputs import Outputs
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.media.options import DATASET_IMAGE_MEMORY
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.models.options import DType
from wfvae_cli.pipeline.job import Job, PipelineOptions
from wfvae_cli.pipeline.options import Limits


class ReaderOptions(TypedDict):
    """Arguments of `open_clip`."""

    threads: int
    hwaccel: str
    image_memory: int


@dataclass(frozen=True)
class DatasetJob(ABC):
    """Options of a worker; fit to be sent to another machine."""

    store: OutputStore
    """Store that outputs are written to."""
    _: KW_ONLY
    model: str = "wfvae-tiny"
    device: str = "auto"
    dtype: DType = "auto"
    compile: bool = False
    """True where the model is compiled, which changes the rounding."""
    threads: int = field(default_factory=default_threads)
    """Cores that a model on the CPU computes with; rounding depends on it."""
    readers: int = field(default_factory=default_readers)
    """Sources that are opened and decoded at once."""
    hwaccel: str = "none"
    """Decoder of videos, as `open_clip` takes it."""
    image_memory: int = DATASET_IMAGE_MEMORY
    """Bytes that decoding one image may take."""
    limits: Limits = field(default_factory=Limits)
    profile: bool = False
    """True to wait for the device after every chunk, so that its time is known."""

    halves: ClassVar[Halves]
    """Halves of the model that are needed."""

    @property
    def revisits(self) -> bool:
        """True where items whose outputs are up to date are worked on, too."""
        return False

    @property
    @abstractmethod
    def how(self) -> Config:
        """Config of the items: the options that decide the outputs' bytes."""

    @abstractmethod
    def outputs(self) -> Outputs:
        """Make the object that names, finds and writes outputs."""

    @abstractmethod
    def clip_job(
        self, model: LoadedModel, fingerprint: ModelFingerprint
    ) -> Job[Task, Any, ItemResult]:
        """Make the pipeline's job: what it does with each item."""

    @property
    def pipeline_options(self) -> PipelineOptions:
        """Options of the pipeline."""
        how = self.how
        return PipelineOptions(
            how.chunk, how.tile, how.batch, self.readers, self.limits, self.profile
        )

    @property
    def reader_options(self) -> ReaderOptions:
        """Arguments of `open_clip` for videos and images."""
        return {
            "threads": max(1, (os.cpu_count() or 1) // self.readers),
            "hwaccel": self.hwaccel,
            "image_memory": self.image_memory,
        }
