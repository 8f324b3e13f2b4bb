"""Instruments: repeated times, peak memory, operations, and what the device could do."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

Action = Callable[[], object]

_MATRIX = {"cpu": 2048, "cuda": 8192}
_PRODUCTS = 8
_SAMPLING = 0.002  # seconds between looks at the process's memory


@dataclass(frozen=True)
class Spread:
    """Several measurements of one quantity."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise measurements, at least one."""
        return cls(statistics.median(values), min(values), max(values))

    def inverse(self, amount: float) -> Spread:
        """Turn seconds for `amount` of something into that something per second."""
        return Spread(amount / self.median, amount / self.most, amount / self.least)


def time_in_turn(actions: Sequence[Action], runs: int, device: torch.device) -> list[list[float]]:
    """Time actions alternately, so that a machine whose speed drifts treats them alike.

    Each runs once before, uncounted. The order is reversed in every other round.

    Args:
        actions: what to run.
        runs: counted rounds.
        device: waited for before and after each run.

    Returns:
        For every action the seconds of its runs, in order.
    """
    for action in actions:
        action()
    seconds: list[list[float]] = [[] for _ in actions]
    for turn in range(runs):
        order = list(enumerate(actions))
        for index, action in order if turn % 2 == 0 else reversed(order):
            wait_for(device)
            begin = time.perf_counter()
            action()
            wait_for(device)
            seconds[index].append(time.perf_counter() - begin)
    return seconds


@dataclass
class PeakMemory:
    """Bytes at the peak of a block, filled in when it ends."""

    host: int = 0
    """Resident memory of the process."""
    device: int | None = None
    """Allocated by PyTorch on a CUDA device; None on others."""


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Watch the memory of this process, and of `device`, during a block."""
    peak, process, done = PeakMemory(), psutil.Process(), threading.Event()

    def watch() -> None:
        while True:
            peak.host = max(peak.host, process.memory_info().rss)
            if done.wait(_SAMPLING):
                return

    watcher = threading.Thread(target=watch, name="wfvae-memory", daemon=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        if device.type == "cuda":
            peak.device = torch.cuda.max_memory_allocated(device)


def count_operations(action: Action) -> int:
    """Floating-point operations of the convolutions, products and attention that `action` runs.

    They follow from the shapes; a multiplication and an addition count as two.
    """
    with FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product: what is within reach here.

    The best of several runs, since it is meant as a ceiling.
    """
    side = _MATRIX.get(device.type, _MATRIX["cpu"])
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    with torch.inference_mode():
        [seconds] = time_in_turn([lambda: a @ b], _PRODUCTS, device)
    return 2 * side**3 / min(seconds)


def start_up(model: str, device: str) -> float:
    """Seconds from the start of a new process until it has loaded `model`."""
    code = "import sys; from wfvae_cli.models.load import load_model; "
    code += "load_model(sys.argv[1], device=sys.argv[2])"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, model, device], check=True, capture_output=True)
    return time.perf_counter() - begin


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
