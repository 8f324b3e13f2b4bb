"""Estimate of a run: its files, frames and bytes, and about how long it would take.

Files are opened as a run would open them, evenly spread ones where there are very many. The speed
comes from a few chunks of the first clips. Nothing is written.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from typing_extensions import override

from wfvae_cli.dataset.buckets import UnsuitableError
from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.cut import promised_frames
from wfvae_cli.dataset.encode_job import EncodeItems, EncodeJob
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.dataset.options import TAR_FORMATS
from wfvae_cli.dataset.plan import Conflict, plan_run
from wfvae_cli.dataset.result import SKIPPED, Task
from wfvae_cli.dataset.source import Source, at_hand
from wfvae_cli.errors import WfvaeError
from wfvae_cli.latents.header import LatentDtype
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline.chunks import FrameChunk, FrameSource, convert_on
from wfvae_cli.pipeline.job import Chunk, Heartbeat, Job, ModelOutput, Ready, Sink, Staged
from wfvae_cli.pipeline.pipeline import Pipeline
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.pipeline.staging import download

_MOST_SECONDS = 10.0
"""Seconds that opening files may take; those opened by then stand for all."""
_PROBED_CLIPS, _PROBED_CHUNKS = 4, 3
_HEADER_BYTES = 2048
"""Rough size of a latent file's header."""
_BYTES: Mapping[LatentDtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass
class Estimate:
    """Estimate of a run."""

    model: str
    device: str
    dtype: str
    files: int = 0
    current: int = 0
    """Files that are up to date."""
    opened: int = 0
    """Files that the figures below are from; they count all, in proportion."""
    outputs: int = 0
    frames: int = 0
    """Frames of all outputs, those that are up to date included."""
    frames_left: int = 0
    bytes: int = 0
    """Size of all outputs."""
    buckets: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Clips and frames of each."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files that no bucket or window takes, by reason."""
    failed: int = 0
    """Files that cannot be opened."""
    first_error: str | None = None
    frames_per_second: float | None = None
    """Measured speed; None where nothing is left to do."""

    @property
    def hours(self) -> float | None:
        """Hours that a run would take; None where the speed is not known."""
        if self.frames_per_second is None:
            return None
        return self.frames_left / self.frames_per_second / 3600


@dataclass(frozen=True)
class _Look:
    """Facts that opening a file has shown."""

    item: Item
    outputs: int = 0
    frames: int = 0
    bytes: int = 0
    bucket: str | None = None
    skipped: str | None = None
    error: str | None = None


def estimate_run(items: Sequence[Item], job: EncodeJob, conflict: Conflict = "refuse") -> Estimate:
    """Find out what a run would do, and write nothing.

    Args:
        items: all of the run.
        job: what would be done with them.
        conflict: what would be done with outputs that were made with different options.

    Raises:
        OutputError: the run would be refused.
        WeightsError, DeviceError: there is no model to work with.
    """
    model = load_model(
        job.model, device=job.device, dtype=job.dtype, task=job.halves, compile=job.compile
    )
    if model.device.type == "cpu":
        torch.set_num_threads(job.threads)
    encoding = EncodeItems(job, model, ModelFingerprint.of(model, job.threads))
    tasks, settled = _plan(items, job, model, conflict)
    looks = _look_at(items, encoding, job, model)
    result = Estimate(job.model, str(model.device), model.compute_dtype, len(items), len(settled))
    _add_up(result, looks, settled)
    if tasks and result.frames_left:
        result.frames_per_second = _measure(tasks, job, model, encoding)
    return result


def _plan(
    items: Sequence[Item], job: EncodeJob, model: LoadedModel, conflict: Conflict
) -> tuple[list[Task], set[str]]:
    """Find out what is left to do, without making room for it."""
    fingerprint = ModelFingerprint.of(model, job.threads)
    last = last_results(job.store.root / "manifest.jsonl")
    if job.config.format in TAR_FORMATS:  # whose index only a run may look at
        settled = {
            item.relative
            for item in items
            if (known := last.get(item.relative)) is not None
            and (known.status == "done" or known.kind == SKIPPED)
            and known.fingerprint == job.config.fingerprint(item, fingerprint)
        }
        return [Task(item) for item in items if item.relative not in settled], settled
    outputs = job.outputs()
    outputs.check(items)
    plan = plan_run(items, last, outputs, fingerprint, conflict)
    return list(plan.tasks), {result.item for result in (*plan.done, *plan.kept)}


def _look_at(
    items: Sequence[Item], encoding: EncodeItems, job: EncodeJob, model: LoadedModel
) -> list[_Look]:
    """Open files, as many as time allows, from the whole dataset."""
    deadline = time.monotonic() + _MOST_SECONDS
    looks: list[_Look] = []
    with ThreadPoolExecutor(job.readers, thread_name_prefix="wfvae-look") as pool:
        # In a scattered order, so that those that were opened are evenly spread.
        chosen = sorted(items, key=lambda item: zlib.crc32(os.fsencode(item.relative)))
        for begin in range(0, len(chosen), 8 * job.readers):
            part = chosen[begin : begin + 8 * job.readers]
            looks += pool.map(lambda item: _look(item, encoding, job, model), part)
            if time.monotonic() > deadline:
                break
    return looks


def _look(item: Item, encoding: EncodeItems, job: EncodeJob, model: LoadedModel) -> _Look:
    if item.problem is not None:
        return _Look(item, error=item.problem)
    try:
        with at_hand(item, _ignore) as (path, marked):
            file = Source(path, marked, "")
            with encoding.open_reader(item, file) as reader:
                cut = encoding.find_cut(item, file, reader, _ignore)
                info = reader.info
    except UnsuitableError as error:
        return _Look(item, skipped=str(error))
    except WfvaeError as error:
        return _Look(item, error=str(error))
    lengths = (
        [promised_frames(info) or 1] if cut is None else [window.frames for window in cut.windows]
    )
    strides, options = model.vae.strides, job.config.options
    width, height = strides.padded_size(info.width, info.height)
    positions = (
        sum(map(strides.latent_frames, lengths))
        * (width // strides.width)
        * (height // strides.height)
    )
    tensors = 2 if options.posterior == "moments" else 1
    size = positions * model.vae.latent_channels * _BYTES[options.save_dtype] * tensors
    bucket = None if cut is None or cut.bucket is None else str(cut.bucket)
    size += _HEADER_BYTES * len(lengths)
    return _Look(item, len(lengths), sum(lengths), size, bucket)


def _ignore() -> None:
    """Ignore a heartbeat."""


def _add_up(result: Estimate, looks: Sequence[_Look], settled: set[str]) -> None:
    """Sum up what was seen of some files, in proportion to all."""
    result.opened = len(looks)
    share = result.files / max(1, len(looks))

    def all_of(number: int) -> int:
        return round(number * share)

    result.outputs = all_of(sum(look.outputs for look in looks))
    result.frames = all_of(sum(look.frames for look in looks))
    left = [look.frames for look in looks if look.item.relative not in settled]
    result.frames_left = all_of(sum(left))
    result.bytes = all_of(sum(look.bytes for look in looks))
    result.failed = all_of(sum(look.error is not None for look in looks))
    result.first_error = next((look.error for look in looks if look.error is not None), None)
    clips, frames = Counter[str](), Counter[str]()
    for look in looks:
        if look.bucket is not None:
            clips[look.bucket] += look.outputs
            frames[look.bucket] += look.frames
        if look.skipped is not None:
            result.skipped[look.skipped] += 1
    result.skipped = Counter({why: all_of(count) for why, count in result.skipped.items()})
    result.buckets = {name: (all_of(clips[name]), all_of(frames[name])) for name in clips}


def _measure(
    tasks: Sequence[Task], job: EncodeJob, model: LoadedModel, encoding: EncodeItems
) -> float | None:
    """Measure frames per second of a few chunks, once the device has warmed up."""
    probe = _Probe(encoding, model)
    best = None
    for _ in range(2):  # the first time, kernels are chosen and memory is taken
        pipeline = Pipeline(model, probe, job.pipeline_options)
        begin = time.perf_counter()
        finished = list(pipeline.run(iter(tasks[:_PROBED_CLIPS])))
        frames = sum(each.value or 0 for each in finished)
        best = frames / (time.perf_counter() - begin) if frames else None
    return best


class _ProbeFrames(FrameSource):
    """The first chunks of a clip."""

    @override
    def chunks(self, plan: ChunkPlan) -> Iterator[FrameChunk]:
        """Group frames into padded chunks, and end early."""
        for number, chunk in enumerate(itertools.islice(super().chunks(plan), _PROBED_CHUNKS), 1):
            yield replace(chunk, last=chunk.last or number == _PROBED_CHUNKS)
            if chunk.last:
                return


class _Probe(Job[Task, _ProbeFrames, int]):
    """Encodes the first chunks of clips, and keeps nothing; the results are numbers of frames."""

    halves = "encode"

    def __init__(self, encoding: EncodeItems, model: LoadedModel) -> None:
        self._encoding, self._model = encoding, model

    @override
    @contextlib.contextmanager
    def open(self, task: Task, heartbeat: Heartbeat) -> Iterator[_ProbeFrames | Ready[int]]:
        """Open a clip as a run would."""
        with at_hand(task.item, heartbeat) as (path, marked):
            file = Source(path, marked, "")
            with self._encoding.open_reader(task.item, file) as reader:
                try:
                    self._encoding.find_cut(task.item, file, reader, heartbeat)
                except UnsuitableError:
                    yield Ready(0)
                    return
                convert_on(self._model.device, reader)
                yield _ProbeFrames(reader, self._model.vae.strides, heartbeat)

    @override
    def sink(self, task: Task, source: _ProbeFrames, plan: ChunkPlan) -> Sink[int]:
        """Count frames."""
        return _CountingSink()


class _CountingSink(Sink[int]):
    def __init__(self) -> None:
        self._frames = 0

    @override
    def stage(self, chunk: Chunk, output: ModelOutput) -> Staged:
        assert isinstance(chunk, FrameChunk) and output.posterior is not None
        moments = download(torch.cat(output.posterior, dim=1))
        self._frames += len(chunk.pts)

        def write() -> None:
            moments.wait()

        return Staged(len(chunk.pts), write)

    @override
    def finish(self) -> int:
        return self._frames
