"""Outcomes in the order of the dataset, few of them ahead of it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from wfvae_cli.dataset import reorder as module
from wfvae_cli.dataset.reorder import failed_clip, in_order
from wfvae_cli.dataset.result import ItemResult, Task
from wfvae_cli.stats.draw import Source

SOURCES = [Source(f"/data/{i}.mp4", f"{i}.mp4") for i in range(20)]


class Backwards:
    """Takes what there is of its tasks, and answers for the last one first."""

    def __init__(self, most: int) -> None:
        self.most, self.taken, self.is_closed = most, 0, False

    def work(self, tasks: Iterator[Task]) -> Generator[ItemResult, None, None]:
        try:
            while group := [task for _, task in zip(range(self.most), tasks, strict=False)]:
                self.taken += len(group)
                for task in reversed(group):
                    yield ItemResult(task.item.relative, task.item.path, "done")
        finally:
            self.is_closed = True


@pytest.mark.parametrize("most", [1, 3, 4])
def test_the_order_is_the_datasets(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BEGUN", 4)
    backwards = Backwards(most)
    for place, outcome in enumerate(in_order(SOURCES, backwards.work)):
        assert outcome.item == SOURCES[place].name
        assert backwards.taken <= place + 4
    assert place == len(SOURCES) - 1
    assert backwards.is_closed


def test_whoever_has_seen_enough_ends_the_work() -> None:
    backwards = Backwards(2)
    outcomes = in_order(SOURCES, backwards.work)
    assert next(outcomes).item == "0.mp4"
    assert isinstance(outcomes, Generator)
    outcomes.close()
    assert backwards.is_closed
    assert backwards.taken == 2


def test_a_reason_stands_beside_the_name_of_its_file() -> None:
    outcome = ItemResult("a.mp4", "/data/a.mp4", "failed", error="/data/a.mp4: no frames")
    assert failed_clip(outcome).reason == "no frames"
