"""Which clips share the next call of the model."""

from __future__ import annotations

import numpy as np
import pytest

from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.pipeline import in_flight
from wfvae_cli.pipeline.chunks import FrameChunk
from wfvae_cli.pipeline.in_flight import ClipInFlight, Waiting
from wfvae_cli.pipeline.job import ClipSource
from wfvae_cli.pipeline.options import Limits
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.pipeline.prefetch import Clip, Reading

InFlight = ClipInFlight[str, ClipSource, None]


class Nothing(ClipSource):
    info = ClipInfo(8, 8)

    def chunks(self, plan: ChunkPlan) -> object:  # type: ignore[override]  # never read
        raise NotImplementedError


def chunk_of(frames: int, width: int = 8, *, last: bool) -> FrameChunk:
    return FrameChunk(np.zeros((frames, 8, width, 3), np.uint8), range(frames), last)


def clip_of(*chunks: FrameChunk, size: int = 3) -> InFlight:
    """A clip of one chunk, or of two and at its second."""
    reading = Reading("a.mp4", Limits())
    clip = Clip[str, ClipSource](Nothing(), ChunkPlan(2, 1), chunks[0], reading)
    made = InFlight(clip, size)
    for chunk in chunks[1:]:
        reading.more.put(chunk)
        made.streams.encoder.first = False
        made.advance()
    return made


def whole(width: int = 8) -> InFlight:
    return clip_of(chunk_of(5, width, last=True))


def begun() -> InFlight:
    return clip_of(chunk_of(5, last=False))


def steady() -> InFlight:
    return clip_of(chunk_of(5, last=False), chunk_of(4, last=False))


def ending(frames: int = 4) -> InFlight:
    return clip_of(chunk_of(5, last=False), chunk_of(frames, last=True))


def waiting(*members: InFlight, most_whole: int = 99) -> Waiting[str, ClipSource, None]:
    group = Waiting[str, ClipSource, None](most_whole)
    for clip in members:
        group.add(clip)
    return group


def test_only_chunks_that_are_alike_share_a_call() -> None:
    apart = [whole(), whole(16), begun(), steady(), ending(4), ending(8)]
    apart.append(clip_of(chunk_of(5, last=True), size=2))
    assert len({clip.kind for clip in apart}) == len(apart)
    assert steady().kind == steady().kind
    assert waiting(*apart).take_due(99) == []


def test_a_full_group_goes_and_takes_no_more_than_its_size() -> None:
    group, same = waiting(begun()), [steady() for _ in range(5)]
    for clip in same:
        group.add(clip)
    assert group.take_due(99) == same[:3]
    assert group.take_due(99) == []
    assert group.open == 3
    group.add(third := steady())
    assert group.take_due(99) == [*same[3:], third]


def test_a_clip_alone_goes_at_once() -> None:
    alone = clip_of(chunk_of(5, last=False), size=1)
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
    monkeypatch.setattr(in_flight, "_MOST_HELD_BYTES", most_bytes)
    pair = [whole(), whole()]
    group = waiting(*pair, most_whole=most_whole)
    assert group.take_due(99) == []
    group.add(other := whole(16))
    assert group.take_due(99) == pair
    assert group.take_due(99) == []
    assert group.take_some() == [other]
