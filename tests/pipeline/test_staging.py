"""The staging of copies, on a bus that copies nothing until somebody waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wfvae_cli.pipeline.staging import Download, Staging, download, upload


class LateEvent:
    def __init__(self, bus: LateBus) -> None:
        self.bus, self.done = bus, False

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.bus.run_until(self)


class LateBus:
    """Copies happen in order, and as late as an event allows."""

    def __init__(self) -> None:
        self.made: list[Tensor] = []
        self.queue: deque[tuple[Callable[[], object], LateEvent]] = deque()

    def make_buffer(self, size: int) -> Tensor:
        self.made.append(torch.full((size,), 255, dtype=torch.uint8))
        return self.made[-1]

    def send(self, host: Tensor) -> tuple[Tensor, LateEvent]:
        values = torch.zeros_like(host)
        return values, self._later(lambda: values.copy_(host))

    def fetch(self, values: Tensor, host: Tensor) -> LateEvent:
        return self._later(lambda: host.copy_(values))

    def _later(self, copy: Callable[[], object]) -> LateEvent:
        event = LateEvent(self)
        self.queue.append((copy, event))
        return event

    def run_until(self, event: LateEvent) -> None:
        while not event.done:
            copy, finished = self.queue.popleft()
            copy()
            finished.done = True


def chunks(count: int) -> list[Tensor]:
    """Of several types and shapes; every value tells its chunk."""
    types = (torch.uint8, torch.uint16, torch.float32)
    return [
        torch.full((1 + i % 4, 2, 3, 3), i + 1).to(types[i % 3]).permute(3, 0, 1, 2)
        for i in range(count)
    ]


def test_a_buffer_is_not_filled_again_before_its_upload_is_done() -> None:
    bus, sources = LateBus(), chunks(9)
    staging = Staging(bus)
    sent = [staging.upload(source) for source in sources]
    assert len(bus.queue) == 2, "two copies may be under way, and a third waits for the oldest"
    while bus.queue:
        bus.run_until(bus.queue[-1][1])
    for source, values in zip(sources, sent, strict=True):
        assert values.dtype == source.dtype
        assert torch.equal(values, source)


def test_uploads_of_one_size_take_two_buffers() -> None:
    bus = LateBus()
    staging = Staging(bus)
    for value in range(8):
        staging.upload(torch.full((5, 7), value, dtype=torch.uint8))
    assert [buffer.numel() for buffer in bus.made] == [35, 35]


def test_a_buffer_whose_copy_is_done_is_the_next_one() -> None:
    bus = LateBus()
    staging = Staging(bus)
    for value in range(4):
        staging.upload(torch.full((9,), value, dtype=torch.uint8))
        bus.run_until(bus.queue[-1][1])
    assert len(bus.made) == 1


def test_a_buffer_is_not_written_again_before_its_download_was_taken() -> None:
    bus, sources = LateBus(), chunks(12)
    staging = Staging(bus)
    under_way: deque[tuple[Tensor, Download]] = deque()
    for source in sources:
        under_way.append((source, staging.download(source)))
        if len(under_way) == 3:
            expected, pending = under_way.popleft()
            got = pending.wait()
            assert got.dtype == expected.dtype
            assert torch.equal(got, expected)
            assert all(got.data_ptr() != buffer.data_ptr() for buffer in bus.made)


def test_downloads_take_as_many_buffers_as_are_under_way() -> None:
    bus = LateBus()
    staging = Staging(bus)
    for _ in range(5):
        for pending in [staging.download(torch.ones(4)) for _ in range(3)]:
            pending.wait()
    assert len(bus.made) == 3


def test_a_result_that_nobody_takes_holds_up_no_other() -> None:
    """As after an error in the thread that writes."""
    bus = LateBus()
    staging = Staging(bus)
    for value in range(6):
        staging.download(torch.full((4,), value))
    assert torch.equal(staging.download(torch.full((4,), 9)).wait(), torch.full((4,), 9))


def test_buffers_serve_inside_and_outside_of_inference_mode() -> None:
    bus = LateBus()
    staging = Staging(bus)
    values = torch.arange(6.0)
    for inside in (True, False, True):
        with torch.inference_mode(inside):
            sent, pending = staging.upload(values), staging.download(values)
            assert torch.equal(pending.wait(), values)
            assert torch.equal(sent, values)
    assert len(bus.made) == 2


def test_results_are_waited_for_in_another_thread() -> None:
    staging = Staging(LateBus())
    got: list[Tensor] = []
    pending = [staging.download(torch.full((3,), i)) for i in range(4)]
    thread = threading.Thread(target=lambda: got.extend(each.wait() for each in pending))
    thread.start()
    thread.join(10)
    assert torch.equal(torch.stack(got), torch.arange(4)[:, None].expand(4, 3))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_a_cpu_needs_no_staging(dtype: torch.dtype) -> None:
    values = torch.arange(24).to(dtype).view(2, 3, 4)
    assert torch.equal(upload(values, torch.device("cpu")), values)
    assert torch.equal(download(values).wait(), values)
