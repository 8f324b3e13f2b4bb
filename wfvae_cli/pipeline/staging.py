"""Copies between host and device, through page-locked buffers, beside the model's work.

On CUDA a copy from or to ordinary memory holds its thread until the model is done. Here copies go
through page-locked memory, on CUDA streams of their own: while the model computes, its next chunk
goes up and the result before comes down, and only the thread that wants a result waits for it. On
other devices nothing is staged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

_BUFFERS = 2
"""Copies in one direction that may be under way before the next one waits for the oldest."""


class Event(Protocol):
    """Tells whether a copy is done."""

    def query(self) -> bool:
        """Tell whether it is done."""

    def synchronize(self) -> None:
        """Wait until it is done."""


class Bus(Protocol):
    """Copies between a device and page-locked memory that do not hold the thread."""

    def make_buffer(self, size: int) -> Tensor:
        """Allocate page-locked memory: uint8 of `size` bytes."""

    def send(self, host: Tensor) -> tuple[Tensor, Event]:
        """Copy page-locked bytes to the device, for the operations queued after this call."""

    def fetch(self, values: Tensor, host: Tensor) -> Event:
        """Copy bytes on the device, as operations queued so far leave them, to `host`."""


class CudaBus:
    """The two directions of a CUDA device's bus, each with a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def make_buffer(self, size: int) -> Tensor:
        """Allocate page-locked memory: uint8 of `size` bytes."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def send(self, host: Tensor) -> tuple[Tensor, Event]:
        """Copy to the device on the upload stream, which the current stream then waits for."""
        model = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            values = host.to(self._device, non_blocking=True)
            event = _recorded(self._up)
        model.wait_event(event)
        # The allocator knows the stream that the memory was taken on, not the one that reads it.
        values.record_stream(model)
        return values, event

    def fetch(self, values: Tensor, host: Tensor) -> Event:
        """Copy to `host` on the download stream, once the current stream is done so far."""
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            host.copy_(values, non_blocking=True)
            event = _recorded(self._down)
        values.record_stream(self._down)
        return event


def _recorded(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """Record an event on a stream. Waiting for it sleeps, since other threads need the core."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(stream)
    return event


class BufferPool:
    """Page-locked buffers, each used again once the copy that it served is done."""

    def __init__(self, make: Callable[[int], Tensor]) -> None:
        self._make = make
        self._used: deque[tuple[Tensor, Event]] = deque()
        self._lock = Lock()

    def take(self, size: int) -> Tensor:
        """A buffer of at least `size` bytes that no copy reads or writes any more."""
        with self._lock:
            if not self._used or (len(self._used) < _BUFFERS and not self._used[0][1].query()):
                return self._new(size)
            buffer, event = self._used.popleft()
        event.synchronize()
        return buffer if buffer.numel() >= size else self._new(size)

    def _new(self, size: int) -> Tensor:
        with torch.inference_mode(False):  # an inference tensor could not be written to outside
            return self._make(size)

    def give_back(self, buffer: Tensor, event: Event) -> None:
        """Offer a buffer again, once `event` has happened."""
        with self._lock:
            self._used.append((buffer, event))


class Download:
    """Values on their way from a device: `wait` for them in any thread."""

    def __init__(
        self, values: Tensor, staged: tuple[Tensor, Event, BufferPool] | None = None
    ) -> None:
        self._values, self._staged = values, staged

    def wait(self) -> Tensor:
        """Return the values, in ordinary memory. Call once."""
        if self._staged is None:
            return self._values.cpu()
        buffer, event, pool = self._staged
        event.synchronize()
        # A copy, so that the values do not keep page-locked memory.
        data = buffer[: self._values.nbytes].clone()
        pool.give_back(buffer, event)
        return data.view(self._values.dtype).view(self._values.shape)


class Staging:
    """Uploads and downloads over one bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._up, self._down = BufferPool(bus.make_buffer), BufferPool(bus.make_buffer)

    def upload(self, values: Tensor) -> Tensor:
        """Start to copy a host's tensor; later operations of this thread find it complete."""
        data = _as_bytes(values)
        buffer = self._up.take(data.numel())
        filled = buffer[: data.numel()].copy_(data)
        sent, event = self._bus.send(filled)
        self._up.give_back(buffer, event)
        return sent.view(values.dtype).view(values.shape)

    def download(self, values: Tensor) -> Download:
        """Start to copy a device's tensor, which must not be changed afterwards."""
        data = _as_bytes(values)
        buffer = self._down.take(data.numel())
        event = self._bus.fetch(data, buffer[: data.numel()])
        return Download(values, (buffer, event, self._down))


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Bring a host's tensor to `device`; on CUDA without waiting for it.

    What is queued afterwards, on the stream that is current now, finds it complete.
    """
    return _staging(device).upload(values) if device.type == "cuda" else values.to(device)


def download(values: Tensor) -> Download:
    """Bring a tensor to the host; on CUDA it is under way when this returns.

    Nothing may be written to `values` afterwards.
    """
    if values.device.type != "cuda":
        return Download(values)
    return _staging(values.device).download(values)


@cache
def _staging(device: torch.device) -> Staging:
    """Make one for each device, so that clips that follow each other share its buffers."""
    return Staging(CudaBus(device))


def _as_bytes(values: Tensor) -> Tensor:
    return values.contiguous().view(-1).view(torch.uint8)
