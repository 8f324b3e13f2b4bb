"""The results of clips in the order of the dataset, where they get ready in any."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from queue import SimpleQueue

from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.prefetch import Task
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.stats.accumulate import FailedClip
from wfvae_cli.stats.draw import Source

_MOST_BEGUN = 32
"""Clips that are under way, or wait for one before them: their statistics take a megabyte each."""


def in_order(
    sources: Sequence[Source], work: Callable[[Iterator[Task]], Generator[ItemResult, None, None]]
) -> Iterator[ItemResult]:
    """The outcomes of clips in their order, of what gives them in any.

    Args:
        sources: the clips, which have different names.
        work: given the tasks when their turn comes, so that few outcomes wait for a slow clip.
    """
    queue: SimpleQueue[Task | None] = SimpleQueue()
    tasks = itertools.chain(map(task_of, sources), [None])

    def give(count: int) -> None:
        for task in itertools.islice(tasks, count):
            queue.put(task)

    give(_MOST_BEGUN)
    with closing(work(iter(queue.get, None))) as outcomes:
        try:
            for outcome in ordered(sources, outcomes, {}):
                yield outcome
                give(1)
        finally:
            queue.put(None)  # lets go of who waits for tasks


def ordered(
    sources: Iterable[Source], outcomes: Iterable[ItemResult], waiting: dict[str, ItemResult]
) -> Iterator[ItemResult]:
    """Outcomes in the order of `sources`; those that come early are kept in `waiting`."""
    due = iter(sources)
    source = next(due, None)
    for outcome in outcomes:
        waiting[outcome.item] = outcome
        while source is not None and source.name in waiting:
            yield waiting.pop(source.name)
            source = next(due, None)


def task_of(source: Source) -> Task:
    """A clip as workers take it; its sampling, but for the part of the file, is the job's."""
    sampling = source.sampling
    return Task(Item(source.path, source.name, sampling.start, sampling.duration))


def failed_clip(outcome: ItemResult) -> FailedClip:
    """What a report says of a clip that failed: its file's name, beside the reason, only once."""
    return FailedClip(outcome.item, (outcome.error or "").removeprefix(f"{outcome.input}: "))
