import threading
import time
from collections.abc import Iterator

import pytest

from wfvae_cli.pipeline.threads import Clock, consumed, produced


def alive(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_items_arrive_in_order() -> None:
    with produced(range(100), depth=3) as items:
        assert list(items) == list(range(100))


def test_the_producer_is_never_more_than_depth_ahead() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    with produced(make(), depth=2) as items:
        for taken in items:
            time.sleep(0.002)
            # Two wait in the queue and one more in the producer's hand.
            assert made[-1] <= taken + 4


def test_the_producers_error_reaches_the_taker() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise ValueError("bad frame")

    taken: list[int] = []
    with pytest.raises(ValueError, match="bad frame"), produced(make()) as items:
        taken.extend(items)
    assert taken == [1]


def test_leaving_early_stops_the_producer() -> None:
    with produced(iter(int, 1)) as items:  # endless
        next(items)
    assert not alive("wfvae-read")


def test_everything_is_consumed_before_the_block_is_left() -> None:
    seen: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.002)
        seen.append(item)

    with consumed(slow, depth=2) as give:
        for i in range(20):
            give(i)
    assert seen == list(range(20))
    assert not alive("wfvae-write")


def test_the_consumers_error_reaches_the_giver() -> None:
    def fail(item: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), consumed(fail) as give:
        for i in range(1000):
            give(i)
            time.sleep(0.001)
    assert not alive("wfvae-write")


def test_an_error_of_the_last_item_is_not_lost() -> None:
    def fail(item: int) -> None:
        time.sleep(0.05)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), consumed(fail) as give:
        give(1)


def test_an_exception_drops_what_is_under_way() -> None:
    seen: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.05)
        seen.append(item)

    with pytest.raises(KeyboardInterrupt), consumed(slow, depth=5) as give:
        for i in range(5):
            give(i)
        raise KeyboardInterrupt
    assert len(seen) < 5
    assert not alive("wfvae-write")


def test_a_stage_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfvae_cli.pipeline.threads._PATIENCE", 0.05)
    release = threading.Event()

    def hang() -> Iterator[int]:
        yield 1
        release.wait(10)

    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt), produced(hang()) as items:
        next(items)
        raise KeyboardInterrupt
    assert time.perf_counter() - begin < 5
    release.set()


def test_waiting_is_counted() -> None:
    def slow() -> Iterator[int]:
        time.sleep(0.05)
        yield 1

    clock = Clock()
    with produced(slow(), clock=clock) as items:
        list(items)
    assert clock.waited >= 0.04
