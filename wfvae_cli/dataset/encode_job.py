"""Encoding the items of a dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

from typing_extensions import override

from wfvae_cli.dataset.buckets import UnsuitableError
from wfvae_cli.dataset.config import WEIGHTS, EncodeConfig, ModelFingerprint, difference
from wfvae_cli.dataset.cut import Cut, CutSource, find_cut
from wfvae_cli.dataset.exporters import make_exporter
from wfvae_cli.dataset.exporters.base import Exporter, Written
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.job import DatasetJob
from wfvae_cli.dataset.outputs import Existing
from wfvae_cli.dataset.result import SKIPPED, ItemResult, Task, WindowResult
from wfvae_cli.dataset.source import Source, check_unchanged, opened
from wfvae_cli.dataset.windows import Window
from wfvae_cli.errors import InputError
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.base import Task as Halves
from wfvae_cli.pipeline.chunks import convert_on
from wfvae_cli.pipeline.encode import EncodeSink, describe
from wfvae_cli.pipeline.job import Chunk, Heartbeat, Job, ModelOutput, Ready, Sink, Staged
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.strides import Strides

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class EncodeJob(DatasetJob):
    """Encode a dataset's videos and images."""

    config: EncodeConfig = field(default_factory=EncodeConfig)
    halves: ClassVar[Halves] = "encode"

    @property
    @override
    def how(self) -> EncodeConfig:
        return self.config

    @override
    def outputs(self) -> Exporter:
        return make_exporter(self.store, self.config)

    @override
    def clip_job(
        self, model: LoadedModel, fingerprint: ModelFingerprint
    ) -> Job[Task, ItemFrames, ItemResult]:
        return EncodeItems(self, model, fingerprint)


class ItemFrames(CutSource):
    """The frames of an item."""

    def __init__(
        self,
        task: Task,
        file: Source,
        reader: ClipReader,
        strides: Strides,
        heartbeat: Heartbeat,
        cut: Cut | None = None,
        found: Mapping[Window, WindowResult] | None = None,
    ) -> None:
        super().__init__(reader, strides, cut, heartbeat)
        self.task, self.file = task, file
        self.found = found or {}
        """Windows that are up to date."""

    @override
    def verify(self) -> None:
        check_unchanged(self.task.item, self.file.stamp)


class EncodeItems(Job[Task, ItemFrames, ItemResult]):
    """Encodes items with one model, and exports their latents."""

    halves: Halves = "encode"

    def __init__(self, job: EncodeJob, model: LoadedModel, fingerprint: ModelFingerprint) -> None:
        self._job, self._model, self._fingerprint = job, model, fingerprint
        self._config = job.config
        self._exporter = job.outputs()

    def find_cut(
        self, item: Item, file: Source, reader: ClipReader, heartbeat: Heartbeat
    ) -> Cut | None:
        """Choose a clip's bucket and windows, and scale it to its bucket.

        Raises:
            UnsuitableError: no bucket or window takes it.
        """

        def count() -> int:
            frames = 0
            with self.open_reader(item, file) as another:
                for _ in another:
                    heartbeat()
                    frames += 1
            return frames

        cut = find_cut(self._config, item, reader.info, count)
        if cut is not None and cut.bucket is not None:
            reader.resize(cut.bucket.size, self._config.sampling.fit)
        return cut

    def open_reader(self, item: Item, file: Source) -> ClipReader:
        """Open the part of a file that an item is."""
        job = self._job
        return open_clip(file.path, self._config.sampling_of(item), **job.reader_options)

    @override
    @contextlib.contextmanager
    def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[ItemFrames | Ready[ItemResult]]:
        """Open a clip, unless its output is up to date, or no bucket or window takes it."""
        item = task.item
        if item.problem is not None:
            raise InputError(item.problem)
        with opened(item, heartbeat) as file:
            if task.current is not None and file.sha256 == task.made_of:
                yield Ready(replace(task.current, stamp=file.stamp))
                return
            with self.open_reader(item, file) as reader:
                try:
                    cut = self.find_cut(item, file, reader, heartbeat)
                except UnsuitableError as error:
                    yield Ready(self._skipped(task, file, error))
                    return
                found = self._find_windows(item, file, cut)
                if cut is not None and found and len(found) == len(cut.windows):
                    yield Ready(self._of_windows(task, file, cut, found))
                    return
                left = cut
                if cut is not None and found:
                    left = replace(cut, windows=tuple(w for w in cut.windows if w not in found))
                convert_on(self._model.device, reader)
                strides = self._model.vae.strides
                yield ItemFrames(task, file, reader, strides, heartbeat, left, found)

    @override
    def sink(self, task: Task, source: ItemFrames, plan: ChunkPlan) -> Sink[ItemResult]:
        """Begin an item's outputs."""
        cut = source.cut
        if cut is None or not cut.is_named:
            return self._clip_sink(source, plan)

        def begin(number: int) -> EncodeSink[WindowResult, Written]:
            return self._window_sink(source, plan, cut.windows[number], source.origins[number])

        def conclude(results: list[WindowResult]) -> ItemResult:
            made = dict(zip(cut.windows, results, strict=True))
            return self._of_windows(task, source.file, cut, {**source.found, **made})

        return WindowsSink(begin, conclude)

    def _find_windows(
        self, item: Item, file: Source, cut: Cut | None
    ) -> dict[Window, WindowResult]:
        """Find the windows that an earlier run has written, with these options, of this file."""
        if cut is None or not cut.is_named:
            return {}
        now = {**self._config.recorded(item, self._fingerprint), WEIGHTS: self._model.sha256}
        found = {}
        for window in cut.windows:
            there = self._exporter.find(item.part(window))
            if (
                there is not None
                and there.options is not None
                and not difference(there.options, now)
                and there.source_sha256 == file.sha256
            ):
                found[window] = _existing(window, there)
        return found

    def _clip_sink(self, source: ItemFrames, plan: ChunkPlan) -> Sink[ItemResult]:
        item, cut = source.task.item, source.cut

        def conclude(frames: int, written: Written) -> ItemResult:
            self._remove_replaced(source.task, {written.output})
            return replace(
                self._result(item, source.file, cut),
                output=written.output,
                frames=frames,
                shape=written.shape,
                bytes=written.bytes,
                data_sha256=written.data_sha256,
            )

        return self._encode_sink(source, plan, item, 0, conclude)

    def _window_sink(
        self, source: ItemFrames, plan: ChunkPlan, window: Window, origin: int
    ) -> EncodeSink[WindowResult, Written]:
        def conclude(frames: int, written: Written) -> WindowResult:
            return WindowResult(written.output, window.start, frames, written.shape, written.bytes)

        return self._encode_sink(source, plan, source.task.item.part(window), origin, conclude)

    def _encode_sink(
        self,
        source: ItemFrames,
        plan: ChunkPlan,
        item: Item,
        origin: int,
        conclude: Callable[[int, Written], ValueT],
    ) -> EncodeSink[ValueT, Written]:
        """Begin an output, whose first frame is shown at `origin` in the clip's time base."""
        options = self._config.options_of(item, self._fingerprint, source.file.sha256)
        bucket = None if source.cut is None else source.cut.bucket
        if bucket is not None:
            options = replace(options, extra={**options.extra, "bucket": str(bucket)})
        info = replace(source.info, start=source.info.start + origin * source.info.time_base)
        metadata = describe(info, self._model, options, item.path, plan)
        output = self._exporter.open(item, metadata, options)
        return EncodeSink(output, source, options, conclude)

    def _of_windows(
        self, task: Task, file: Source, cut: Cut, windows: Mapping[Window, WindowResult]
    ) -> ItemResult:
        results = tuple(windows[window] for window in sorted(windows))
        self._remove_replaced(task, {each.output for each in results})
        return replace(
            self._result(task.item, file, cut),
            frames=sum(each.frames for each in results),
            bytes=sum(each.bytes for each in results),
            windows=results,
        )

    def _skipped(self, task: Task, file: Source, error: UnsuitableError) -> ItemResult:
        why = str(error)
        # What nothing takes the place of is kept: a slip in --windows must not empty a dataset.
        if task.replaces:
            why += (
                f"; what earlier options made of it is still there ({', '.join(task.replaces[:3])}"
                f"{', …' if len(task.replaces) > 3 else ''}): remove it if it is not wanted"
            )
        result = self._result(task.item, file, None)
        return replace(result, status="skipped", error=why, kind=SKIPPED)

    def _result(self, item: Item, file: Source, cut: Cut | None) -> ItemResult:
        """Make the result of an item, but for its outputs."""
        return ItemResult(
            item.relative,
            item.path,
            "done",
            stamp=file.stamp,
            fingerprint=self._config.fingerprint(item, self._fingerprint),
            bucket=None if cut is None or cut.bucket is None else str(cut.bucket),
            caption=item.caption,
            columns=item.columns or None,
        )

    def _remove_replaced(self, task: Task, outputs: set[str]) -> None:
        """Remove outputs of other options and other names, now that new ones are in place."""
        for name in task.replaces:
            if name not in outputs:
                self._job.store.remove(name)


def _existing(window: Window, there: Existing) -> WindowResult:
    return WindowResult(
        there.output, window.start, there.frames or window.frames, there.shape or (), there.bytes
    )


class WindowsSink(Sink[ItemResult]):
    """Takes the windows of one clip, one after the other.

    Args:
        begin: opens the output of a window, by its number, when its first chunk is there.
        conclude: makes the clip's result of those of its windows.
    """

    def __init__(
        self,
        begin: Callable[[int], EncodeSink[WindowResult, Written]],
        conclude: Callable[[list[WindowResult]], ItemResult],
    ) -> None:
        self._begin, self._conclude = begin, conclude
        self._sinks: list[EncodeSink[WindowResult, Written]] = []
        self._is_within = False
        self._results: list[WindowResult] = []

    @override
    def stage(self, chunk: Chunk, output: ModelOutput) -> Staged:
        """Start to bring a chunk's posterior to the host."""
        if not self._is_within:
            self._sinks.append(self._begin(len(self._sinks)))
        self._is_within = not chunk.last
        staged = self._sinks[-1].stage(chunk, output)
        if not chunk.last:
            return staged
        number = len(self._sinks) - 1

        def write() -> None:
            staged.write()
            self._results.append(self._sinks[number].finish())
            self._sinks[number].close()

        return Staged(staged.frames, write)

    @override
    def finish(self) -> ItemResult:
        """Put the results of all windows together."""
        return self._conclude(self._results)

    @override
    def close(self) -> None:
        """Remove the window that is not complete."""
        for sink in self._sinks[len(self._results) :]:
            sink.close()
