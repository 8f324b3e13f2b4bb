"""The pipeline of clips through a model: prefetched, batched, written in background threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Generic

import torch

from wfvae_cli.errors import DeviceError, TimeLimitError, WfvaeError
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.pipeline.batch import MOST_OPEN_IN_BATCH, batch_size, run_batch
from wfvae_cli.pipeline.channel import ClosedError
from wfvae_cli.pipeline.describe import describe_run
from wfvae_cli.pipeline.in_flight import ClipInFlight, Waiting
from wfvae_cli.pipeline.job import (
    Callbacks,
    Chunk,
    Finished,
    Job,
    ModelOutput,
    NoCallbacks,
    PipelineOptions,
    Profile,
    SourceT,
    TaskT,
    ValueT,
)
from wfvae_cli.pipeline.plan import ChunkPlan, Memory, check_memory
from wfvae_cli.pipeline.prefetch import Clip, Prefetcher
from wfvae_cli.pipeline.writers import Writers

log = logging.getLogger("wfvae")
run_log = logging.getLogger("wfvae.run")
"""Says what a run is done with; see `describe_run`."""

_WRITERS = 3
_OPEN_FOR_EACH_PLACE = 2
"""Open clips for each place of a batch: while some are at last chunks that no other has, the rest
fills it."""
_BRIEFLY = 0.01
"""Seconds to wait for another clip while there are some that could go on."""


class Pipeline(Generic[TaskT, SourceT, ValueT]):
    """Sends clips through a model.

    Args:
        model: from `load_model`; None where the job never needs one.
        job: the work on each clip.
        options: readers, batches, chunks and time limits.
        callbacks: progress callbacks.

    Raises:
        UsageError: the model cannot be run in such chunks.
    """

    def __init__(
        self,
        model: LoadedModel | None,
        job: Job[TaskT, SourceT, ValueT],
        options: PipelineOptions,
        callbacks: Callbacks[TaskT] | None = None,
    ) -> None:
        self.model, self.job, self.options = model, job, options
        self.profile = Profile()
        self._callbacks = callbacks or NoCallbacks[TaskT]()
        # Once for all clips: what is free while others are under way depends on which these are.
        self._memory = None if model is None else Memory.now(model.device)
        if model is not None:
            self._plan_for(64, 64)  # raises before any file is read
        self._prefetcher: Prefetcher[TaskT, SourceT, ValueT] | None = None
        self._stopped = threading.Event()
        self._notices: set[str] = set()
        self._is_described = False

    @property
    def capacity(self) -> int:
        """Tasks that it may keep before the first result: it must be given that many."""
        return 2 * self._most_readers + self._writers + 1 + self._most_held

    @property
    def _most_readers(self) -> int:
        if self.options.batch == 1:
            return self.options.readers
        return max(self.options.readers, _OPEN_FOR_EACH_PLACE * MOST_OPEN_IN_BATCH)

    @property
    def _writers(self) -> int:
        """More than clips that can be open at once: each keeps its writer up to its end."""
        return _WRITERS + (0 if self.options.batch == 1 else self._most_readers)

    @property
    def _most_held(self) -> int:
        batch = self.options.batch
        return 256 if batch == "auto" else 4 * batch if batch > 1 else 0

    def run(self, tasks: Iterator[TaskT]) -> Generator[Finished[TaskT, ValueT], None, None]:
        """Work on every task; results come in the order in which they are ready.

        Args:
            tasks: taken from in other threads; may block until there is more.

        Raises:
            DeviceError: the device is lost.
        """
        begin = time.perf_counter()
        prefetcher = Prefetcher(
            self.job, tasks, self._plan_of, self._check, self.options.readers, self.options.limits
        )
        writers = Writers[TaskT, ValueT](self._writers)
        self._prefetcher = prefetcher
        if self._stopped.is_set():
            prefetcher.stop()
        waiting = Waiting[TaskT, SourceT, ValueT](self._most_held)
        try:
            while True:
                try:
                    chosen = self._choose(waiting, prefetcher)
                except ClosedError:
                    break
                if isinstance(chosen, Finished):
                    yield chosen
                elif chosen:
                    self._step(chosen, waiting, writers, prefetcher)
                yield from writers.finished()
            with self.profile.timing("waited_for_output"):
                left = list(writers.drain())
            yield from left
        except BaseException as error:
            writers.abort(error)
            raise
        finally:
            prefetcher.close()
            self.profile.total += time.perf_counter() - begin

    def stop(self) -> None:
        """Finish what the model has begun, and begin nothing else. From any thread."""
        self._stopped.set()
        if self._prefetcher is not None:
            self._prefetcher.stop()

    def _plan_for(self, width: int, height: int) -> ChunkPlan:
        assert self.model is not None, "this job's clips need a model"
        options = self.options
        return ChunkPlan.of(
            self.model,
            options.chunk,
            width,
            height,
            tile=options.tile,
            task=self.job.halves,
            memory=self._memory,
        )

    def _plan_of(self, source: SourceT) -> ChunkPlan:
        return self._plan_for(source.width, source.height)

    def _check(self, source: SourceT, plan: ChunkPlan, first: Chunk) -> None:
        """Refuse a clip that would take all of this machine's memory."""
        assert self.model is not None
        check_memory(self.model, plan, first.shape[0], source.width, source.height, self.job.halves)

    def _choose(
        self,
        waiting: Waiting[TaskT, SourceT, ValueT],
        prefetcher: Prefetcher[TaskT, SourceT, ValueT],
    ) -> list[ClipInFlight[TaskT, SourceT, ValueT]] | Finished[TaskT, ValueT]:
        """Choose whose chunks go through the model next, or give a result that came without it.

        The list is empty where a clip has only begun to wait, or there was nothing for a moment.

        Raises:
            ClosedError: every clip has been through.
        """
        due = waiting.take_due(prefetcher.readers)
        if due:
            return due
        try:
            with self.profile.timing("waited_for_input"):
                ready = prefetcher.take(_BRIEFLY) if waiting.open else prefetcher.take()
        except ClosedError:
            due = waiting.take_some()
            if due:
                return due
            raise
        if isinstance(ready, Clip):
            assert self.model is not None
            size = batch_size(self.model, self.options.batch, ready.plan, ready.first)
            clip = ClipInFlight[TaskT, SourceT, ValueT](ready, size)
            if clip.is_open:
                prefetcher.grow(min(_OPEN_FOR_EACH_PLACE * size, self._most_readers))
            waiting.add(clip)
            return []
        return ready or waiting.take_some(is_open=True)

    def _step(
        self,
        due: list[ClipInFlight[TaskT, SourceT, ValueT]],
        waiting: Waiting[TaskT, SourceT, ValueT],
        writers: Writers[TaskT, ValueT],
        prefetcher: Prefetcher[TaskT, SourceT, ValueT],
    ) -> None:
        """Send the next chunks of `due` through the model together, and let them wait anew."""
        assert self.model is not None
        due = [clip for clip in due if self._begin(clip, writers)]
        if not due:
            return
        begin = time.perf_counter()
        try:
            with self.profile.timing("in_model"):
                outputs = run_batch(
                    self.model,
                    self.job.halves,
                    [clip.chunk for clip in due],
                    [clip.streams for clip in due],
                    due[0].size,
                    due[0].clip.plan.tile,
                )
                if self.options.is_timed and self.model.device.type == "cuda":
                    torch.cuda.synchronize(self.model.device)
        except Exception as error:
            for clip in due:
                self._fail(clip, error)
            self._recover(error)
            return
        seconds = (time.perf_counter() - begin) / len(due)
        for clip, output in zip(due, outputs, strict=True):
            output = replace(output, seconds=seconds)
            if self._hand_on(clip, output) and self._advance(clip, prefetcher):
                waiting.add(clip)

    def _begin(
        self, clip: ClipInFlight[TaskT, SourceT, ValueT], writers: Writers[TaskT, ValueT]
    ) -> bool:
        """Open what a clip goes into, if it is new; whether the model is to go on with it."""
        if clip.writing is not None:
            return True
        task, plan = clip.clip.task, clip.clip.plan
        if self._stopped.is_set():
            clip.clip.drop()
            return False
        self._tell(plan)
        self._callbacks.started(task)
        try:
            sink = self.job.sink(task, clip.clip.source, plan)
        except Exception as error:
            clip.writing = writers.begin(clip.clip.reading, None)
            self._fail(clip, error)
            return False
        clip.writing = writers.begin(clip.clip.reading, sink)
        return True

    def _hand_on(self, clip: ClipInFlight[TaskT, SourceT, ValueT], output: ModelOutput) -> bool:
        """Let what the model made of a clip's chunk be written; whether there is more to come."""
        writing, chunk = clip.writing, clip.chunk
        assert writing is not None and writing.sink is not None
        try:
            staged = writing.sink.stage(chunk, output)
            with self.profile.timing("waited_for_output"):
                writing.put(staged, last=chunk.ends_task)
        except ClosedError:  # writing failed, and the clip's result has the error
            clip.clip.drop()
            return False
        except Exception as error:
            self._fail(clip, error)
            self._recover(error)
            return False
        self._callbacks.advanced(staged.frames)
        return not chunk.ends_task

    def _advance(
        self,
        clip: ClipInFlight[TaskT, SourceT, ValueT],
        prefetcher: Prefetcher[TaskT, SourceT, ValueT],
    ) -> bool:
        """Wait for a clip's next chunk; whether there is one."""
        try:
            with self.profile.timing("waited_for_input"):
                clip.advance()
        except Exception as error:
            if isinstance(error, TimeLimitError):
                prefetcher.abandon(clip.clip, error)
            self._fail(clip, error)
            return False
        return True

    def _fail(self, clip: ClipInFlight[TaskT, SourceT, ValueT], error: Exception) -> None:
        """End a clip with what the model, or reading on, came to."""
        clip.clip.drop()
        assert clip.writing is not None
        clip.writing.fail(error)

    def _recover(self, error: Exception) -> None:
        """Make the device fit for the next clip; where it is lost, the run ends."""
        assert self.model is not None
        if isinstance(error, WfvaeError) and self.model.device.type == "cuda":
            torch.cuda.empty_cache()  # after running out, the next clip needs what is not in use
        if "CUDA error" in str(error) and not isinstance(error, WfvaeError):
            raise DeviceError(f"the device failed and takes no more work: {error}") from error

    def _tell(self, plan: ChunkPlan) -> None:
        """Say once what the run is done with, and what a user should know of how clips are cut."""
        assert self.model is not None
        if not self._is_described:
            self._is_described = True
            run_log.info(describe_run(self.model, plan))
        for notice in plan.notices:
            if notice not in self._notices:
                self._notices.add(notice)
                log.info(notice)


def run_one(
    model: LoadedModel,
    job: Job[str, SourceT, ValueT],
    task: str,
    options: PipelineOptions,
    progress: Callable[[int], None] | None = None,
) -> tuple[ValueT, Profile]:
    """Send a single clip through a model.

    Args:
        model: from `load_model`.
        job: the work on the clip.
        task: its name in messages.
        options: chunks, tiles and time limits.
        progress: called with the number of further frames that are done.

    Returns:
        The clip's result, and where the time went.

    Raises:
        WfvaeError: what a dataset would record of a file that fails.
    """
    pipeline = Pipeline(model, job, options, _Progress(progress))
    (finished,) = pipeline.run(iter([task]))
    if finished.error is not None:
        raise finished.error
    assert finished.value is not None
    return finished.value, pipeline.profile


class _Progress(NoCallbacks[str]):
    """Callbacks that pass the number of frames on."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self._progress = progress

    def advanced(self, frames: int) -> None:
        """Pass it on."""
        if self._progress is not None:
            self._progress(frames)
