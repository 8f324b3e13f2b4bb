"""Encodes the clips of a dataset with one model, and writes their latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from wfvae_cli.dataset.callbacks import Callbacks, Profile
from wfvae_cli.dataset.config import EncodeConfig, ModelFingerprint
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.layouts import LatentFiles, Layout
from wfvae_cli.dataset.musubi import MusubiFiles
from wfvae_cli.dataset.pipeline import Pipeline
from wfvae_cli.dataset.prefetch import Clip, Facts, Limits, Pieces, Reading, Task
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.source import opened
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.dataset.write_behind import Encoded
from wfvae_cli.media.reader import open_clip
from wfvae_cli.models.load import DType, load_model
from wfvae_cli.pipeline.encode import describe, is_constant_rate, stored_values


@dataclass(frozen=True)
class EncodeJob:
    """Everything that a worker has to know; fit to be sent to another machine."""

    place: OutputStore
    recipe: EncodeConfig = field(default_factory=EncodeConfig)
    model: str = "wfvae-tiny"
    device: str = "auto"
    dtype: DType = "auto"
    compile: bool = False
    """Whether the model is compiled, which changes the rounding."""
    threads: int = 4
    """Cores that a model on the CPU computes with; rounding depends on it."""
    readers: int = 2
    """Sources that are opened and decoded at once."""
    hwaccel: str = "none"
    """What decodes videos, as `open_clip` takes it."""
    limits: Limits = field(default_factory=Limits)
    profile: bool = False
    """Whether to wait for the device after every chunk, so that its time is known."""


class ClipWorker:
    """A model that is loaded, and encodes whatever it is given."""

    def __init__(self, job: EncodeJob, watcher: Callbacks | None = None) -> None:
        """Load the model.

        Raises:
            WeightsError, DeviceError: it cannot be.
            UsageError: the model cannot be run as the recipe says.
        """
        self.job = job
        self._model = load_model(
            job.model, device=job.device, dtype=job.dtype, task="encode", compile=job.compile
        )
        if self._model.device.type == "cpu":
            torch.set_num_threads(job.threads)
        self.identity = ModelFingerprint.of(self._model, job.threads)
        self._layout = make_layout(job.place, job.recipe)
        self._pipeline = Pipeline(
            self._model,
            self._read,
            self._write,
            readers=job.readers,
            limits=job.limits,
            chunk=job.recipe.options.chunk,
            tile=job.recipe.options.tile,
            batch=job.recipe.batch,
            watcher=watcher,
            is_timed=job.profile,
        )

    @property
    def capacity(self) -> int:
        """Items that it may keep before the first outcome: it must be given that many."""
        return self._pipeline.capacity

    @property
    def profile(self) -> Profile:
        """Where the time went."""
        return self._pipeline.profile

    def work(self, tasks: Iterator[Task]) -> Iterator[ItemResult]:
        """Encode every task: see `Pipeline.work`."""
        return self._pipeline.work(tasks)

    def stop(self) -> None:
        """Finish what the model has begun, and begin nothing else. From any thread."""
        self._pipeline.stop()

    def _read(self, task: Task, reading: Reading) -> Pieces:
        """Open a clip, unless its output is up to date."""
        item = task.item
        with opened(item, reading.touch) as source:
            if source.sha256 == task.made_of:
                yield self._current(item, source.stamp)
                return
            sampling = self.job.recipe.sampling_of(item)
            threads, hwaccel = self._pipeline.decoder_threads, self.job.hwaccel
            with open_clip(source.path, sampling, threads=threads, hwaccel=hwaccel) as reader:
                facts = Facts(reader.info, source.stamp, source.sha256)
                for chunk in self._pipeline.chunks(reader, item, source.stamp, reading):
                    yield facts, chunk

    def _current(self, item: Item, stamp: str) -> ItemResult:
        """The outcome of an item whose output is there already."""
        found = self._layout.find(item)
        assert found is not None, "an output that was to be kept is gone"
        return ItemResult(
            item.relative,
            item.path,
            "done",
            output=found.output,
            frames=found.frames,
            shape=found.shape,
            bytes=found.bytes,
            stamp=stamp,
            fingerprint=self.job.recipe.fingerprint(item, self.identity),
            data_sha256=found.data_sha256,
        )

    def _write(self, clip: Clip, encoded: Iterator[Encoded]) -> ItemResult:
        """Write one clip, in a thread of its own."""
        item, recipe = clip.task.item, self.job.recipe
        options = recipe.options_of(item, self.identity, clip.facts.identity)
        info = clip.facts.info
        tile = self._pipeline.plan(info).tile
        metadata = describe(info, self._model, options, item.path, tile=tile)
        output = self._layout.open(item, metadata, options)
        pts: list[int] = []
        try:
            for each in encoded:
                with torch.inference_mode():
                    latents, logvar = stored_values(each.posterior, options, output.latent_frames)
                    output.append(latents, logvar)
                pts.extend(each.pts)
            regular = is_constant_rate(pts, clip.facts.info)
            written = output.finish(len(pts), None if regular else pts)
        finally:
            output.close()
        return ItemResult(
            item.relative,
            item.path,
            "done",
            output=written.output,
            frames=len(pts),
            shape=written.shape,
            seconds=round(clip.seconds, 3),
            bytes=written.bytes,
            stamp=clip.facts.stamp,
            fingerprint=recipe.fingerprint(item, self.identity),
            data_sha256=written.data_sha256,
        )


def make_layout(place: OutputStore, recipe: EncodeConfig) -> Layout:
    """How a recipe's outputs are named and written."""
    return LatentFiles(place) if recipe.layout == "wfvae" else MusubiFiles(place, recipe)
