"""A dataset from inputs to latents: plan, work, record; resumable at any moment."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from wfvae_cli.dataset.callbacks import Callbacks, NoCallbacks, Profile
from wfvae_cli.dataset.config import ModelFingerprint
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.manifest import MirroredManifest, RunManifest, last_results
from wfvae_cli.dataset.plan import Conflict, Plan, plan_run
from wfvae_cli.dataset.prefetch import Task
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.shard import Shard
from wfvae_cli.dataset.store import OutputStore, check_inputs, create_root
from wfvae_cli.dataset.tar_shards import TarFormat, TarShards, check_form, remove_empty
from wfvae_cli.dataset.worker import ClipWorker, EncodeJob, make_layout
from wfvae_cli.errors import UsageError

MANIFEST = "manifest"
_CLIPS = ".wfvae-clips"
"""Where clips wait for the others of their tar shard."""
_DEFAULT_THREADS = 4


class Observer(Callbacks, Protocol):
    """Told how a run goes, in the caller's thread."""

    def planned(self, plan: Plan) -> None:
        """What is to be done is known."""

    def settled(self, outcome: ItemResult) -> None:
        """An item is done, has failed, or was skipped."""


class Unobserved(NoCallbacks):
    """An observer that looks away."""

    def planned(self, plan: Plan) -> None:
        """See `Observer`."""

    def settled(self, outcome: ItemResult) -> None:
        """See `Observer`."""


class Engine(Protocol):
    """Who does the work."""

    def start(self, job: EncodeJob, watcher: Callbacks) -> ModelFingerprint:
        """Load the model where it will run."""

    def work(self, tasks: Sequence[Task]) -> Iterator[ItemResult]:
        """Encode every task, in any order."""

    def stop(self) -> None:
        """Finish what has begun, and begin nothing else. Callable from a signal handler."""

    def close(self) -> None:
        """Let go of the workers."""

    @property
    def profile(self) -> Profile | None:
        """Where the time went, once the work is done; None where nobody knows."""


class LocalEngine:
    """One worker, in this process."""

    def __init__(self) -> None:
        self._worker: ClipWorker | None = None
        self._stopped = False

    def start(self, job: EncodeJob, watcher: Callbacks) -> ModelFingerprint:
        """See `Engine`."""
        self._worker = ClipWorker(job, watcher)
        if self._stopped:
            self._worker.stop()
        return self._worker.identity

    def work(self, tasks: Sequence[Task]) -> Iterator[ItemResult]:
        """See `Engine`."""
        assert self._worker is not None, "start comes first"
        yield from self._worker.work(iter(tasks))

    def stop(self) -> None:
        """See `Engine`."""
        self._stopped = True
        if self._worker is not None:
            self._worker.stop()

    def close(self) -> None:
        """See `Engine`."""

    @property
    def profile(self) -> Profile | None:
        """See `Engine`."""
        return None if self._worker is None else self._worker.profile


@dataclass
class Summary:
    """What a run did, and what there is now."""

    items: int = 0
    done: int = 0
    """Encoded now, or found to be up to date by their content."""
    current: int = 0
    """Up to date from the start."""
    failed: int = 0
    skipped: int = 0
    frames: int = 0
    """Of the items that are done now."""
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    """How many, by kind of error."""
    stopped: str | None = None
    """Why the run ended before all was done."""
    profile: Profile | None = None

    @property
    def not_attempted(self) -> int:
        """Items that the run ended before."""
        return self.items - self.done - self.current - self.failed - self.skipped

    def count(self, outcome: ItemResult) -> None:
        """Take an outcome in."""
        if outcome.status == "done":
            self.done += 1
            self.frames += outcome.frames or 0
        elif outcome.status == "failed":
            self.failed += 1
            self.failures[outcome.kind or "unknown"] += 1
        else:
            self.skipped += 1


def encode_dataset(
    items: Sequence[Item],
    job: EncodeJob,
    *,
    engine: Engine | None = None,
    shard: Shard | None = None,
    tar: TarFormat | None = None,
    conflict: Conflict = "refuse",
    max_failures: int | None = None,
    verify: bool = False,
    observer: Observer | None = None,
) -> Summary:
    """Encode what is missing of a dataset, and record what became of every item.

    One file that cannot be encoded is recorded in `manifest.jsonl` with its reason; the others
    go on. A run that ends early, however that is, is continued by the same call.

    Args:
        items: from `find_inputs`, all of the dataset.
        job: where to, how, and with which model.
        engine: who does the work; a worker in this process by default.
        shard: which share of the items is this run's; all by default.
        tar: write tar shards in place of a file for every clip.
        conflict: what to do with outputs that are there and were made otherwise.
        max_failures: stop once so many files have failed.
        verify: read the outputs that are there, and encode those again that are damaged.
        observer: told how it goes.

    Returns:
        What was done. `failed` counts the files that could not be encoded.

    Raises:
        OutputError: the output folder cannot be written, is used by another run, or holds
            outputs that were made otherwise and `conflict` is `refuse`.
        WeightsError, DeviceError: there is no model to work with.
    """
    begin = time.perf_counter()
    shard = shard or Shard(0, 1)
    engine, observer = engine or LocalEngine(), observer or Unobserved()
    root, items = job.place.root, shard.of(items)
    place = replace(job.place, run=f"run{shard.suffix}")
    if tar is not None:
        place = replace(place, root=root / _CLIPS / place.run)
    if place.url is not None and (tar is not None or job.recipe.layout != "wfvae"):
        raise UsageError(
            f"{place.url}: tar shards and other layouts are written to a file system: mount the "
            "store, or write to a folder and copy it"
        )
    job = replace(job, place=place)
    layout = make_layout(place, job.recipe)
    layout.check(items)
    check_inputs(replace(place, root=root), items)
    if place.url is None:
        check_form(root, shard.suffix, tars=tar is not None)
    create_root(replace(place, root=root))
    path = root / f"{MANIFEST}{shard.suffix}.jsonl"
    with _open_ledger(path, place) as ledger, ExitStack() as stack:
        place.prepare()
        stack.callback(_tidy, place, root)
        stack.callback(engine.close)
        identity = engine.start(job, observer)
        last = last_results(path)
        summary = Summary(items=len(items))
        shards = None
        if tar is not None:
            shards = TarShards(root, shard.suffix, place, tar, job.recipe, identity)
            stack.callback(shards.close)
        record = _Record(ledger, summary, observer, shards)
        if shards is not None:
            items = record.begin(shards, items, conflict, last, verify=verify)
            conflict = "overwrite"
        plan = plan_run(items, last, place, layout, job.recipe, identity, conflict, verify=verify)
        summary.current += len(plan.done)
        observer.planned(plan)
        for outcome in plan.kept:
            record.take(outcome)
        for outcome in engine.work(plan.tasks):
            record.take(outcome)
            too_many = max_failures is not None and summary.failed >= max_failures
            if too_many and summary.stopped is None:
                summary.stopped = f"{summary.failed} files have failed (--max-failures)"
                engine.stop()
        record.finish()
        summary.profile = engine.profile
    summary.seconds = time.perf_counter() - begin
    return summary


class _Record:
    """Writes down what becomes of items: at once, or when their shard is complete."""

    def __init__(
        self, ledger: RunManifest, summary: Summary, observer: Observer, shards: TarShards | None
    ) -> None:
        self._ledger, self._summary, self._observer = ledger, summary, observer
        self._shards = shards

    def begin(
        self,
        shards: TarShards,
        items: Sequence[Item],
        conflict: Conflict,
        last: Mapping[str, ItemResult],
        *,
        verify: bool,
    ) -> list[Item]:
        """Note the items of finished shards; the others are left to do."""
        todo = shards.begin(items, conflict, verify=verify)
        for outcome in shards.current:
            known = last.get(outcome.item)
            if known is None or (known.status, known.output) != (outcome.status, outcome.output):
                self._ledger.append(outcome)  # the run was killed before it could
        self._summary.current = len(shards.current)
        for outcome in shards.kept:
            self._ledger.append(outcome)
            self._summary.count(outcome)
        return todo

    def take(self, outcome: ItemResult) -> None:
        """Note what became of an item."""
        self._summary.count(outcome)
        self._observer.settled(outcome)
        if self._shards is None or outcome.status != "done":
            self._ledger.append(outcome)
        if self._shards is not None:
            self._shards.take(outcome)
            self._write(self._shards.packed())

    def finish(self) -> None:
        """Wait for the last shards."""
        if self._shards is not None:
            self._write(self._shards.packed(wait=True))

    def _write(self, packed: Iterator[ItemResult]) -> None:
        for outcome in packed:
            if outcome.status == "done":
                self._ledger.append(outcome)


def _open_ledger(path: Path, place: OutputStore) -> RunManifest:
    if place.url is None:
        return RunManifest(path)
    return MirroredManifest(path, f"{place.url}/{path.name}")


def _tidy(place: OutputStore, root: Path) -> None:
    place.tidy()
    if place.root != root:
        remove_empty(root / _CLIPS)


def default_threads() -> int:
    """Cores for a model on the CPU: what OMP_NUM_THREADS says, else 4 on any machine.

    The number decides the rounding, so it must not depend on where a run is continued.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) > 0 else _DEFAULT_THREADS


def default_readers() -> int:
    """Files that are opened and decoded at once, ahead of the model."""
    return min(4, os.cpu_count() or 1)


def manifests(root: Path) -> list[Path]:
    """The manifests of a dataset's runs and shards, in order."""
    return sorted(root.glob(f"{MANIFEST}*.jsonl"))
