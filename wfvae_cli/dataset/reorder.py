"""A reorder buffer: the results of clips in the order of the dataset, however they get ready."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from queue import SimpleQueue

from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.stats.accumulate import FailedClip
from wfvae_cli.stats.draw import Source

_MOST_BEGUN = 32
"""Clips that are under way, or wait for one before them: their statistics take a megabyte each."""


def in_order(
    sources: Sequence[Source], work: Callable[[Iterator[Task]], Generator[ItemResult, None, None]]
) -> Iterator[ItemResult]:
    """Give the results of clips in their order, of what gives them in any.

    Args:
        sources: the clips, which have different names.
        work: given the tasks when their turn comes, so that few results wait for a slow clip.
    """
    queue: SimpleQueue[Task | None] = SimpleQueue()
    tasks = itertools.chain(map(task_of, sources), [None])

    def give(count: int) -> None:
        for task in itertools.islice(tasks, count):
            queue.put(task)

    give(_MOST_BEGUN)
    with closing(work(iter(queue.get, None))) as results:
        try:
            for result in ordered(sources, results, {}):
                yield result
                give(1)
        finally:
            queue.put(None)  # lets go of who waits for tasks


def ordered(
    sources: Iterable[Source], results: Iterable[ItemResult], waiting: dict[str, ItemResult]
) -> Iterator[ItemResult]:
    """Give results in the order of `sources`; those that come early are kept in `waiting`."""
    due = iter(sources)
    source = next(due, None)
    for result in results:
        waiting[result.item] = result
        while source is not None and source.name in waiting:
            yield waiting.pop(source.name)
            source = next(due, None)


def task_of(source: Source) -> Task:
    """Make the task of a clip; its sampling, but for the part of the file, is the job's."""
    sampling = source.sampling
    return Task(Item(source.path, source.name, sampling.start, sampling.duration))


def failed_clip(result: ItemResult) -> FailedClip:
    """Say of a clip that failed what a report needs: its file's name, beside the reason, once."""
    return FailedClip(result.item, (result.error or "").removeprefix(f"{result.input}: "))
