"""Which clips share the next call of the model."""

from __future__ import annotations

import numpy as np
import pytest

from wfvae_cli.dataset import lanes
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.lanes import Lane, Lanes
from wfvae_cli.dataset.prefetch import Clip, Facts, Limits, Reading, Task
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.pipeline.chunks import FrameChunk
from wfvae_cli.pipeline.plan import ChunkPlan


def chunk_of(frames: int, width: int = 8, *, last: bool) -> FrameChunk:
    return FrameChunk(np.zeros((frames, 8, width, 3), np.uint8), range(frames), last)


def lane_of(*chunks: FrameChunk, size: int = 3) -> Lane:
    """A clip of one chunk, or of two and at its second."""
    reading = Reading(Task(Item("/a.mp4", "a.mp4")), Limits())
    facts = Facts(ClipInfo(8, 8), "", "")
    lane = Lane(Clip(reading.task, facts, chunks[0], reading), ChunkPlan(2, 1), size)
    for chunk in chunks[1:]:
        reading.more.put(chunk)
        lane.stream.first = False
        lane.advance()
    return lane


def whole(width: int = 8) -> Lane:
    return lane_of(chunk_of(5, width, last=True))


def begun() -> Lane:
    return lane_of(chunk_of(5, last=False))


def steady() -> Lane:
    return lane_of(chunk_of(5, last=False), chunk_of(4, last=False))


def ending(frames: int = 4) -> Lane:
    return lane_of(chunk_of(5, last=False), chunk_of(frames, last=True))


def waiting(*members: Lane, most_whole: int = 99) -> Lanes:
    group = Lanes(most_whole)
    for lane in members:
        group.add(lane)
    return group


def test_only_chunks_that_are_alike_share_a_call() -> None:
    apart = [whole(), whole(16), begun(), steady(), ending(4), ending(8)]
    apart.append(lane_of(chunk_of(5, last=True), size=2))
    assert len({lane.kind for lane in apart}) == len(apart)
    assert steady().kind == steady().kind
    assert waiting(*apart).take_due(99) == []


def test_a_full_group_goes_and_takes_no_more_than_its_size() -> None:
    group, same = waiting(begun()), [steady() for _ in range(5)]
    for lane in same:
        group.add(lane)
    assert group.take_due(99) == same[:3]
    assert group.take_due(99) == []
    assert group.open == 3
    group.add(third := steady())
    assert group.take_due(99) == [*same[3:], third]


def test_a_clip_alone_goes_at_once() -> None:
    alone = lane_of(chunk_of(5, last=False), size=1)
    assert waiting(begun(), alone).take_due(99) == [alone]


def test_last_chunks_go_first_then_the_fullest_group() -> None:
    end, pair, one = ending(), [steady(), steady()], begun()
    group = waiting(one, *pair, end)
    assert group.take_due(5) == []
    assert group.take_due(4) == [end]
    assert group.take_some() == pair
    assert group.take_some() == [one]
    assert group.take_some() == []


def test_whole_clips_do_not_count_as_open_and_wait_for_company() -> None:
    group = waiting(whole(), whole(), whole(16))
    assert group.open == 0
    assert group.take_some(is_open=True) == []
    assert group.take_due(0) == []


@pytest.mark.parametrize(("most_whole", "most_bytes"), [(3, 10**9), (99, 3 * 5 * 8 * 8 * 3 - 1)])
def test_of_too_many_whole_clips_the_fullest_group_goes(
    most_whole: int, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_MOST_HELD_BYTES", most_bytes)
    pair = [whole(), whole()]
    group = waiting(*pair, most_whole=most_whole)
    assert group.take_due(99) == []
    group.add(other := whole(16))
    assert group.take_due(99) == pair
    assert group.take_due(99) == []
    assert group.take_some() == [other]
