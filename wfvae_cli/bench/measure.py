"""Repeated timing, peak memory, counts of operations, and a device's best rate."""

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
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from wfvae_cli.nn.accelerator import peak_memory_of, reset_peak_memory, synchronize
from wfvae_cli.nn.arithmetic import convolved_in

Action = Callable[[], object]

_CEILING_RUNS = 6
_SAMPLING_SECONDS = 0.002


@dataclass(frozen=True)
class Spread:
    """Median and range of several measurements of one quantity."""

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
            synchronize(device)
            begin = time.perf_counter()
            action()
            synchronize(device)
            seconds[index].append(time.perf_counter() - begin)
    return seconds


@dataclass
class PeakMemory:
    """Bytes at the peak of a `with` block, filled in when it ends."""

    host: int = 0
    """Resident memory of the process."""
    device: int | None = None
    """Allocated by PyTorch on a GPU or the like; None on the CPU."""


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Watch the memory of this process, and of `device`, during a `with` block."""
    peak, process, done = PeakMemory(), psutil.Process(), threading.Event()

    def watch() -> None:
        while True:
            peak.host = max(peak.host, process.memory_info().rss)
            if done.wait(_SAMPLING_SECONDS):
                return

    watcher = threading.Thread(target=watch, name="wfvae-memory", daemon=True)
    reset_peak_memory(device)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.device = peak_memory_of(device)


def count_operations(action: Action) -> int:
    """Count the operations of the convolutions, products and attention that `action` runs.

    They follow from the shapes; a multiplication and an addition count as two.
    """
    with FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def best_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure what is within reach here: the ceiling that a model's rate is compared with.

    The best run of three kinds of work that a library may have its fastest kernels for: a large
    matrix product, the same as a 1x1 convolution (on CPUs by oneDNN, where the product may be by
    MKL, which takes twice as long on some processors), and a wide 3x3 convolution.

    Args:
        device: where to run.
        dtype: what the model computes in; measured in the type that stands in for it where the
            processor has no instructions for it.

    Returns:
        Operations per second.
    """
    side = 1024 if device.type == "cpu" else 8192
    dtype = convolved_in(torch.empty(0, device=device, dtype=dtype))

    def make(*shape: int) -> torch.Tensor:
        x = torch.randn(shape, device=device).to(dtype)
        return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x

    a, b = make(side, side), make(side, side)
    pixels, taps = make(1, side, 32, side // 32), make(side, side, 1, 1)
    channels, size = side // 4, side // 32
    picture, kernel = make(1, channels, size, size), make(channels, channels, 3, 3)
    work: list[tuple[Action, int]] = [
        (lambda: a @ b, 2 * side**3),
        (lambda: F.conv2d(pixels, taps), 2 * side**3),
        (lambda: F.conv2d(picture, kernel, padding=1), 2 * 9 * (channels * size) ** 2),
    ]
    with torch.inference_mode():
        seconds = time_in_turn([action for action, _ in work], _CEILING_RUNS, device)
    return max(amount / min(each) for (_, amount), each in zip(work, seconds, strict=True))


def start_up(model: str, device: str) -> float:
    """Measure the seconds from the start of a new process until it has loaded `model`."""
    code = "import sys; from wfvae_cli.models.load import load_model; "
    code += "load_model(sys.argv[1], device=sys.argv[2])"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, model, device], check=True, capture_output=True)
    return time.perf_counter() - begin
