"""Measurements of `wfvae bench`: one setting, chunk sizes, or two settings in turn."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from wfvae_cli.bench.measure import (
    Spread,
    best_rate,
    count_operations,
    peak_memory,
    start_up,
    time_in_turn,
)
from wfvae_cli.bench.subject import STAGES, Setting, Stage, Subject
from wfvae_cli.media.options import Sampling
from wfvae_cli.models.load import describe_checkpoint

_GAIN = 1.03
"""Factor by which a larger chunk must be faster to be worth its memory."""


@dataclass(frozen=True)
class StageResult:
    """Measurements of one stage of one setting."""

    stage: Stage
    dtype: str
    seconds: Spread
    frames_per_second: Spread
    megapixels_per_second: float
    gflop: float
    """Operations that ran, counted from the shapes, in units of 10^9. Convolutions by minimal
    filtering count with the products that they are made of, not with those that they save."""
    gflop_per_second: float
    share_of_ceiling: float
    """`gflop_per_second` over the best that the device did in this type and run, by `best_rate`."""
    host_bytes: int
    device_bytes: int | None


@dataclass(frozen=True)
class BenchResult:
    """Measurements of one setting on one clip."""

    setting: Setting
    machine: str
    frames: int
    width: int
    height: int
    latents_per_chunk: int
    start_up_seconds: float
    compile_seconds: float | None
    """Spent before any measurement, and in none of them; None where nothing is compiled."""
    stages: tuple[StageResult, ...]


def bench(setting: Setting, clip: Path, sampling: Sampling, folder: Path, runs: int) -> BenchResult:
    """Measure every stage of one setting.

    Args:
        setting: the model and how it runs.
        clip: what to run it on.
        sampling: which frames of it, and at what size.
        folder: for files that come and go.
        runs: how often each stage is timed, after one run that is not.
    """
    subject = Subject(setting, clip, sampling, folder)
    rates = {
        dtype: best_rate(subject.device, dtype) / 1e9
        for dtype in dict.fromkeys(subject.dtype_of(stage) for stage in STAGES)
    }
    stages = []
    for stage in STAGES:
        action = partial(subject.run, stage)
        with subject.uncompiled():
            operations = count_operations(action) / 1e9
        with peak_memory(subject.device) as peak:
            [seconds] = time_in_turn([action], runs, subject.device)
        model, spread = subject.model_of(stage), Spread.of(seconds)
        pixels = subject.frames * subject.width * subject.height
        stages.append(
            StageResult(
                stage=stage,
                dtype=model.compute_dtype,
                seconds=spread,
                frames_per_second=spread.inverse(subject.frames),
                megapixels_per_second=pixels / 1e6 / spread.median,
                gflop=operations,
                gflop_per_second=operations / spread.median,
                share_of_ceiling=operations / spread.median / rates[subject.dtype_of(stage)],
                host_bytes=peak.host,
                device_bytes=peak.device,
            )
        )
    return BenchResult(
        setting=setting,
        machine=describe_machine(subject.device),
        frames=subject.frames,
        width=subject.width,
        height=subject.height,
        latents_per_chunk=subject.plan.later,
        start_up_seconds=start_up(setting.model, setting.device),
        compile_seconds=subject.compile_seconds,
        stages=tuple(stages),
    )


@dataclass(frozen=True)
class SweepRow:
    """Measurements of one chunk size."""

    chunk: int
    """Frames of the first chunk."""
    encode: Spread
    """Frames per second of the bare model."""
    decode: Spread
    host_bytes: int
    device_bytes: int | None


def sweep(
    setting: Setting, clip: Path, sampling: Sampling, folder: Path, runs: int
) -> list[SweepRow]:
    """Measure the bare model with chunks of 1, 2, 4, … latent frames, up to the whole clip."""
    stride = describe_checkpoint(setting.model)["strides"][0]
    rows: list[SweepRow] = []
    latents = 1
    while True:
        chunk = 1 + stride * latents
        subject = Subject(replace(setting, chunk=chunk), clip, sampling, folder)
        with peak_memory(subject.device) as peak:
            encode, decode = time_in_turn(
                [partial(subject.run, "encode"), partial(subject.run, "decode")],
                runs,
                subject.device,
            )
        rows.append(
            SweepRow(
                chunk,
                Spread.of(encode).inverse(subject.frames),
                Spread.of(decode).inverse(subject.frames),
                peak.host,
                peak.device,
            )
        )
        if chunk >= subject.frames:
            return rows
        latents *= 2


def recommend(rows: Sequence[SweepRow]) -> int:
    """Choose the smallest chunk that is, to 3%, as fast as any to encode and decode."""

    def cost(row: SweepRow) -> float:
        return 1 / row.encode.median + 1 / row.decode.median

    limit = _GAIN * min(map(cost, rows))
    return next(row.chunk for row in rows if cost(row) <= limit)


@dataclass(frozen=True)
class ComparisonRow:
    """Rates of one stage of two settings that took turns."""

    stage: Stage
    a: Spread
    """Frames per second."""
    b: Spread
    ratio: Spread
    """Ratios of b's frames per second to a's, turn by turn."""


def compare(
    a: Setting, b: Setting, clip: Path, sampling: Sampling, folder: Path, runs: int
) -> list[ComparisonRow]:
    """Run two settings alternately, so that a drifting machine treats them alike."""
    subjects = []
    for name, setting in (("a", a), ("b", b)):
        (folder / name).mkdir(exist_ok=True)
        subjects.append(Subject(setting, clip, sampling, folder / name))
    rows = []
    for stage in STAGES:
        actions = [partial(subject.run, stage) for subject in subjects]
        first, second = time_in_turn(actions, runs, subjects[-1].device)
        ratios = [one / other for one, other in zip(first, second, strict=True)]
        frames = subjects[0].frames
        rows.append(
            ComparisonRow(
                stage,
                Spread.of(first).inverse(frames),
                Spread.of(second).inverse(frames),
                Spread.of(ratios),
            )
        )
    return rows


def describe_machine(device: torch.device) -> str:
    """Name the processor or GPU, the threads, and PyTorch's version."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{name}, PyTorch {torch.__version__}"


def _processor() -> str:
    """Read the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
