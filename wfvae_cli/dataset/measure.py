"""List clips, and pull their statistics from an engine, in order; a journal keeps them.

The results are given in the order of the dataset, wherever they come from, so that merging them
gives the same bytes whatever the engine, the number of workers, or their deaths.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from wfvae_cli import __version__
from wfvae_cli.atomic import reported
from wfvae_cli.dataset.config import sampling_of
from wfvae_cli.dataset.engine import Engine, Gate
from wfvae_cli.dataset.items import SUFFIXES, Item, find_inputs
from wfvae_cli.dataset.measure_job import AnyClip, Measured, MeasureJob, Packed
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.dataset.shard import Shard
from wfvae_cli.dataset.source import stamp
from wfvae_cli.errors import InputError, OutputError, PartialFailureError, UsageError
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.media.options import Sampling
from wfvae_cli.models.load import describe_checkpoint, find_strides
from wfvae_cli.pipeline.job import NoCallbacks
from wfvae_cli.stats.accumulate import FailedClip
from wfvae_cli.stats.draw import Draw, Source
from wfvae_cli.stats.report import ExpectedModel, ModelIdentity
from wfvae_cli.stats.subband_clip import Kind

Measure = Callable[[Sequence[Source]], Iterator[Any]]
"""Measures clips: one result for each, in their order."""

_log = logging.getLogger("wfvae")
_MOST_WAITING = 1024
"""Results that may wait for one that is due before them."""
_MOST_LOOSE = 32
"""Waiting results that need not be compressed."""
_SCHEMA = "wfvae-stats-part"


def list_clips(
    sources: Sequence[str], include: Sequence[str], exclude: Sequence[str], sampling: Sampling
) -> list[Source]:
    """List every clip of the dataset, with its own part of the file where a list names one."""
    return [
        Source(
            item.path,
            item.relative,
            sampling_of(sampling, item),
            begin=item.begin,
            size=item.size,
        )
        for item in find_inputs(sources, kinds=SUFFIXES, include=include, exclude=exclude)
    ]


def share_of(clips: Sequence[Source], text: str, draw: Draw) -> list[Source]:
    """Choose the clips to measure, and return those of a shard.

    Clips are chosen from the whole dataset, so that all shards together measure what one run does.

    Raises:
        UsageError: it is no shard.
        InputError: it holds none.
    """
    shard = Shard.parse(text)
    chosen = draw.choose(clips)
    share = [clip for clip in chosen if shard.takes(Item(clip.path, clip.name))]
    if not share:
        raise InputError(f"shard {text} holds none of {len(chosen)} clips: use fewer shards")
    return share


def kind_of(clips: Sequence[Source]) -> Kind:
    """Return the kind of clips, videos or images, by their names.

    Raises:
        UsageError: there are both.
    """
    images = sum(Path(clip.path).suffix.lower() in SUFFIXES["image"] for clip in clips)
    if 0 < images < len(clips):
        raise UsageError(
            f"--subbands analyses videos in 3D and images in 2D, and here are {images} images "
            f"among {len(clips)} files: choose one kind with --include or --exclude"
        )
    return "image" if images else "video"


@contextlib.contextmanager
def measuring(
    job: MeasureJob, engine: Engine, report: Path | None
) -> Iterator[tuple[Measure, int | None]]:
    """Start an engine, and keep results beside the report until that is written.

    Args:
        job: how clips are measured.
        engine: where.
        report: the file that is written in the end, if one is.

    Yields:
        What measures clips, and the number of cores that each computes with.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        fingerprint = engine.start(job, NoCallbacks())
        journal = None
        if report is not None:
            deciding = {"wfvae": __version__, **job.deciding(fingerprint)}
            journal = Journal(report.with_name(f"{report.name}.part"), deciding)
        is_over = False
        try:
            yield lambda clips: measure(job, engine, clips, journal), fingerprint.threads
            is_over = True
        except (InputError, PartialFailureError):
            is_over = True
            raise
        finally:
            if journal is not None:
                journal.close(remove=is_over)
                if not is_over and journal.path.exists():
                    _log.info("%s keeps what was measured for the next run", journal.path)


def measure(
    job: MeasureJob, engine: Engine, sources: Sequence[Source], journal: Journal | None = None
) -> Generator[Any, None, None]:
    """Measure clips, and give their statistics in their order.

    Args:
        job: how they are measured.
        engine: measures them; `start` it with the job first, and `close` it afterwards.
        sources: the clips, which have different names.
        journal: keeps results; those that it has of a run before are not measured again.

    Yields:
        For each clip a `MeasuredClip` or `SubbandClip`, or a `FailedClip`.
    """
    tasks = [_task_of(source) for source in sources]
    kept: Mapping[str, int] = {} if journal is None else journal.current(tasks)
    items = {task.item.relative: task.item for task in tasks}
    gate, waiting = Gate(), dict[str, ItemResult]()
    left = [task for task in tasks if task.item.relative not in kept]
    with contextlib.closing(engine.work(left, gate)) as results:
        try:
            for task in tasks:
                name = task.item.relative
                if journal is not None and name in kept:
                    yield job.unpack(journal.read(kept[name]))
                    continue
                while name not in waiting:
                    result = next(results)
                    if journal is not None and isinstance(result, (Measured, Packed)):
                        journal.append(result, items[result.item])
                    is_early = result.item != name and len(waiting) >= _MOST_LOOSE
                    if is_early and isinstance(result, Measured):
                        result = result.packed()
                    waiting[result.item] = result
                    gate.let(len(waiting) < _MOST_WAITING or name in waiting)
                yield _clip_of(waiting.pop(name), job)
        finally:
            gate.end()


def expected_model(name: str) -> ExpectedModel:
    """Describe the model whose latents are expected, without loading it.

    Raises:
        WeightsError: there is no such model.
    """
    facts = describe_checkpoint(name)
    scale = facts["normalization"]
    return ExpectedModel(
        ModelIdentity(name, facts["sha256"], facts["family"]),
        None if scale is None else Normalization(**scale),
        find_strides(name),
    )


def _task_of(source: Source) -> Task:
    """Make the task of a clip; its sampling, but for the part of the file, is the job's."""
    sampling = source.sampling
    item = Item(
        source.path,
        source.name,
        sampling.start,
        sampling.duration,
        begin=source.begin,
        size=source.size,
        frames=sampling.frames,
    )
    return Task(item)


def _clip_of(result: ItemResult, job: MeasureJob) -> AnyClip | FailedClip:
    if isinstance(result, Measured):
        return result.clip
    if isinstance(result, Packed):
        return job.unpack(result.data)
    # A report has the file's name beside the reason, once.
    return FailedClip(result.item, (result.error or "").removeprefix(f"{result.input}: "))


class Journal:
    """An append-only file of results: one line for each clip that was measured.

    One that was begun with other options is replaced at the first result. Nothing in it is
    executed.

    Args:
        path: the file; it is not created before the first result.
        deciding: JSON values that decide the results; others make a journal of no use.

    Raises:
        OutputError: the file is there, and is something else.
    """

    def __init__(self, path: Path, deciding: Mapping[str, Any]) -> None:
        self.path = path
        self._head = json.dumps({"schema": _SCHEMA, **deciding}, sort_keys=True).encode() + b"\n"
        self._file: BinaryIO | None = None
        self._offsets: dict[str, tuple[str, int]] = {}
        """Mark of each clip, and offset of its line, by name."""
        self._end = 0
        """Bytes up to the end of the last whole line; a kill may have left part of one."""
        if path.exists():
            with reported(path), path.open("rb") as file:
                self._load(file)

    def current(self, tasks: Sequence[Task]) -> dict[str, int]:
        """Find results of clips that have not changed since; their offsets, by name."""
        found = {}
        for task in tasks:
            marked, offset = self._offsets.get(task.item.relative, ("", 0))
            with contextlib.suppress(InputError):
                if marked and marked == _mark(task.item, stamp(task.item.path)):
                    found[task.item.relative] = offset
        return found

    def read(self, offset: int) -> bytes:
        """Read a result that `current` found."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return base64.b64decode(json.loads(file.readline())["data"])

    def append(self, result: Measured | Packed, item: Item) -> None:
        """Append a clip's result, unless measuring it again is as fast.

        Raises:
            OutputError: it cannot be written.
        """
        if isinstance(result, Measured):
            if not result.is_kept:
                return
            result = result.packed()
        data = base64.b64encode(result.data).decode()
        line = {"item": item.relative, "mark": _mark(item, result.stamp), "data": data}
        with reported(self.path):
            if self._file is None:
                self._file = self.path.open("r+b" if self._end else "wb")
                self._file.seek(self._end)
                self._file.truncate()
                if not self._end:
                    self._file.write(self._head)
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()

    def close(self, *, remove: bool) -> None:
        """Close the file, and remove it once the report is complete."""
        if self._file is not None:
            self._file.close()
        if remove and (self._end or self._file is not None):
            self.path.unlink(missing_ok=True)

    def _load(self, file: BinaryIO) -> None:
        head = file.readline()
        if f'"schema": "{_SCHEMA}"'.encode() not in head:
            raise OutputError(
                f"{self.path}: exists, and holds no results of wfvae stats, which are kept under "
                "this name: remove it, or choose another -o"
            )
        if head != self._head:
            return
        self._end = file.tell()
        try:
            for line in file:
                values = json.loads(line)
                if not line.endswith(b"\n"):
                    return
                self._offsets[values["item"]] = values["mark"], self._end
                self._end += len(line)
        except (ValueError, KeyError, TypeError):
            return  # the lines before the damaged one are used


def _mark(item: Item, marked: str | None) -> str:
    """Describe what was measured: an item's file, its stamp, and the part of it."""
    part = (item.path, marked, item.start, item.duration, item.begin)
    return repr(part if item.frames is None else (*part, item.frames))
