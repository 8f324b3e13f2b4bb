"""A dataset from inputs to outputs: plan, work, record; resumable at any moment."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from wfvae_cli.dataset.engine import Engine, LocalEngine
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.job import DatasetJob
from wfvae_cli.dataset.manifest import MirroredManifest, RunManifest, last_results
from wfvae_cli.dataset.plan import Conflict, Plan
from wfvae_cli.dataset.result import SKIPPED, ItemResult, Task
from wfvae_cli.dataset.shard import Shard
from wfvae_cli.dataset.store import OutputStore, create_root
from wfvae_cli.pipeline.job import Callbacks, NoCallbacks, Profile

MANIFEST = "manifest"


class RunCallbacks(Callbacks[Task], Protocol):
    """Callbacks on the progress of a run, called in the caller's thread."""

    def planned(self, plan: Plan) -> None:
        """Called once with the plan."""

    def settled(self, result: ItemResult) -> None:
        """Called for each item that is done, has failed, or was skipped."""


class NoRunCallbacks(NoCallbacks[Task]):
    """Callbacks that do nothing."""

    def planned(self, plan: Plan) -> None:
        """Do nothing."""

    def settled(self, result: ItemResult) -> None:
        """Do nothing."""


@dataclass
class Summary:
    """Figures of a run, and of its outputs."""

    items: int = 0
    done: int = 0
    """Items worked on in this run, or found to be up to date by their content."""
    current: int = 0
    """Items that were up to date from the start."""
    failed: int = 0
    skipped: int = 0
    frames: int = 0
    """Frames of the items in `done`."""
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    """Number of failures, by kind of error."""
    stopped: str | None = None
    """Reason that the run ended before all was done."""
    profile: Profile | None = None
    buckets: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Clips and frames of each bucket that are done, those that were up to date included."""
    unsuitable: Counter[str] = field(default_factory=Counter)
    """Number of clips that no bucket or window takes, by reason."""
    _scores: dict[str, list[float]] = field(default_factory=dict, repr=False)

    @property
    def not_attempted(self) -> int:
        """Items that the run did not get to."""
        return self.items - self.done - self.current - self.failed - self.skipped

    @property
    def metrics(self) -> dict[str, float]:
        """Means over the files that have metrics, those that were up to date included."""
        return {name: sum(each) / len(each) for name, each in self._scores.items()}

    def score(self, result: ItemResult) -> None:
        """Add the metrics and the bucket of a file that is done, if it has any."""
        if result.bucket is not None:
            clips, frames = self.buckets.get(result.bucket, (0, 0))
            clips += 1 if result.windows is None else len(result.windows)
            self.buckets[result.bucket] = clips, frames + (result.frames or 0)
        for name, value in (result.metrics or {}).items():
            self._scores.setdefault(name, []).append(value)

    def count(self, result: ItemResult) -> None:
        """Count a result."""
        if result.status == "done":
            self.done += 1
            self.frames += result.frames or 0
            self.score(result)
        elif result.status == "failed":
            self.failed += 1
            self.failures[result.kind or "unknown"] += 1
        else:
            self.skipped += 1
            if result.kind == SKIPPED:
                self.unsuitable[result.error or ""] += 1


def run_dataset(
    items: Sequence[Item],
    job: DatasetJob,
    *,
    engine: Engine | None = None,
    shard: Shard | None = None,
    conflict: Conflict = "refuse",
    max_failures: int | None = None,
    verify: bool = False,
    callbacks: RunCallbacks | None = None,
) -> Summary:
    """Do what is left to do of a dataset, and record what became of every item.

    One file that fails is recorded in `manifest.jsonl` with its reason; the others go on. A run
    that ends early, however that is, is continued by the same call.

    Args:
        items: from `find_inputs`, all of the dataset.
        job: what is done with them: where to, how, and with which model.
        engine: who does the work; a worker in this process by default.
        shard: which share of the items is this run's; all by default.
        conflict: what to do with outputs that are there and were made with different options.
        max_failures: stop once so many files have failed.
        verify: read the outputs that are there, and make those again that are damaged.
        callbacks: told how it goes.

    Returns:
        What was done. `failed` counts the files that failed.

    Raises:
        OutputError: the output folder cannot be written, is used by another run, or holds
            outputs that were made with different options and `conflict` is `refuse`.
        WeightsError, DeviceError: there is no model to work with.
    """
    begin = time.perf_counter()
    shard = shard or Shard(0, 1)
    engine, callbacks = engine or LocalEngine(), callbacks or NoRunCallbacks()
    items = shard.of(items)
    job = replace(job, store=replace(job.store, run=f"run{shard.suffix}"))
    outputs = job.outputs()
    outputs.check(items)
    create_root(job.store)
    path = job.store.root / f"{MANIFEST}{shard.suffix}.jsonl"
    with _open_manifest(path, job.store) as manifest, ExitStack() as stack:
        stack.callback(outputs.close)
        stack.callback(engine.close)
        fingerprint = engine.start(job, callbacks)
        last = last_results(path)
        plan = outputs.begin(items, last, fingerprint, conflict, verify=verify)
        for result in plan.unrecorded:
            manifest.append(result)
        if job.revisits:
            plan = plan.revisited(items)
        summary = Summary(items=len(items), current=len(plan.done))
        for result in plan.done:
            summary.score(result)
        callbacks.planned(plan)
        for result in plan.kept:
            summary.count(result)
            callbacks.settled(result)
            manifest.append(result)
        for result in _work(engine, plan.tasks, summary, max_failures, callbacks):
            for settled in outputs.settle(result):
                manifest.append(settled)
        for settled in outputs.flush():
            manifest.append(settled)
        summary.profile = engine.profile
    summary.seconds = time.perf_counter() - begin
    return summary


def measure_dataset(
    items: Sequence[Item],
    job: DatasetJob,
    *,
    engine: Engine | None = None,
    max_failures: int | None = None,
    callbacks: RunCallbacks | None = None,
) -> Summary:
    """Work on items of which nothing is written: no outputs, and no manifest to resume from.

    Args:
        items: from `find_inputs`.
        job: what is done with them; it writes nothing.
        engine: who does the work; a worker in this process by default.
        max_failures: stop once so many files have failed.
        callbacks: told how it goes.

    Raises:
        WeightsError, DeviceError: there is no model to work with.
    """
    begin = time.perf_counter()
    engine, callbacks = engine or LocalEngine(), callbacks or NoRunCallbacks()
    summary = Summary(items=len(items))
    with contextlib.closing(engine):
        engine.start(job, callbacks)
        tasks = [Task(item) for item in items]
        callbacks.planned(Plan(tasks, [], []))
        for _ in _work(engine, tasks, summary, max_failures, callbacks):
            pass
        summary.profile = engine.profile
    summary.seconds = time.perf_counter() - begin
    return summary


def _work(
    engine: Engine,
    tasks: Sequence[Task],
    summary: Summary,
    max_failures: int | None,
    callbacks: RunCallbacks,
) -> Iterator[ItemResult]:
    """Count and tell every result; begin nothing more once too many items have failed."""
    for result in engine.work(tasks):
        summary.count(result)
        callbacks.settled(result)
        yield result
        too_many = max_failures is not None and summary.failed >= max_failures
        if too_many and summary.stopped is None:
            files = "1 file has" if summary.failed == 1 else f"{summary.failed} files have"
            summary.stopped = f"{files} failed (--max-failures)"
            engine.stop()


def _open_manifest(path: Path, store: OutputStore) -> RunManifest:
    if store.url is None:
        return RunManifest(path)
    return MirroredManifest(path, f"{store.url}/{path.name}")
