"""Rates of reading and writing files without a model, beside the model without files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wfvae_cli.bench.measure import Action, Spread, time_in_turn
from wfvae_cli.bench.report import describe_machine
from wfvae_cli.bench.subject import Setting, Subject
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.media.to_planes import to_planes_on_host
from wfvae_cli.media.writer import open_writer
from wfvae_cli.pipeline.chunks import convert_on

Side = Literal["read", "encode", "decode", "write"]
"""Files to frames on the device, frames to latents, latents to frames, frames in YUV to a file."""


@dataclass(frozen=True)
class SideResult:
    """The rate of one side of encoding or decoding, running alone."""

    side: Side
    frames_per_second: Spread
    megapixels_per_second: float
    cores: float
    """Cores that it kept busy: processor seconds per second."""


@dataclass(frozen=True)
class MediaProfile:
    """The rates of both sides of encoding and of decoding, measured in turn."""

    setting: Setting
    machine: str
    codec: str
    """Codec of the file that was read."""
    frames: int
    width: int
    height: int
    read: SideResult
    encode: SideResult
    decode: SideResult
    write: SideResult

    @property
    def sides(self) -> tuple[SideResult, ...]:
        """List all four, in the order of a roundtrip."""
        return self.read, self.encode, self.decode, self.write

    @property
    def verdict(self) -> str:
        """Say what limits encoding, and decoding, in one line."""
        encoding = _limit("encoding", self.encode, self.read, "reading files")
        decoding = _limit("decoding", self.decode, self.write, "writing files")
        return f"{encoding}; {decoding}"


def profile(
    setting: Setting, clip: Path, sampling: Sampling, folder: Path, runs: int
) -> MediaProfile:
    """Measure reading and writing with all cores, and the bare model, in the same run.

    Args:
        setting: the model and how it runs.
        clip: what to read.
        sampling: which frames of it, and at what size.
        folder: for the file that is written.
        runs: how often each side is timed, after one run that is not.

    Raises:
        VideoError: the clip cannot be read.
        DeviceError: out of memory.
    """
    subject = Subject(setting, clip, sampling, folder)
    target = folder / "written.mp4"
    with open_clip(clip, sampling) as reader:
        info, pictures = reader.info, list(_stored(reader, target))
    actions: dict[Side, Action] = {
        "read": partial(_read, clip, sampling, subject.device),
        "encode": partial(subject.run, "encode"),
        "decode": partial(subject.run, "decode"),
        "write": partial(_write, target, info, pictures),
    }
    spent: dict[Side, list[float]] = {side: [] for side in actions}
    timed = [_counting(action, spent[side]) for side, action in actions.items()]
    seconds = time_in_turn(timed, runs, subject.device)
    pixels = info.width * info.height / 1e6
    results = {}
    for side, each in zip(actions, seconds, strict=True):
        rate = Spread.of(each).inverse(subject.frames)
        busy = sum(spent[side][1:]) / sum(each)  # the first run is not timed
        results[side] = SideResult(side, rate, rate.median * pixels, busy)
    return MediaProfile(
        setting=setting,
        machine=describe_machine(subject.device),
        codec=info.codec,
        frames=subject.frames,
        width=info.width,
        height=info.height,
        read=results["read"],
        encode=results["encode"],
        decode=results["decode"],
        write=results["write"],
    )


def _stored(reader: ClipReader, target: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield frames as decoding gives them to the writer: in YUV, as they come from the device."""
    stored = open_writer(target, reader.info, overwrite=True).planes
    assert stored is not None, "the default encoder takes YUV"
    for frame in reader:
        yield to_planes_on_host(frame.pixels, stored)


def _read(clip: Path, sampling: Sampling, device: torch.device) -> None:
    with open_clip(clip, sampling) as reader:
        convert_on(device, reader)
        for _ in reader:
            pass


def _write(path: Path, info: ClipInfo, pictures: list[NDArray[np.uint8]]) -> None:
    with open_writer(path, info, overwrite=True) as writer:
        for pts, picture in enumerate(pictures):
            writer.write_planes(picture, pts)


def _counting(action: Action, spent: list[float]) -> Callable[[], None]:
    """Wrap an action so that it appends the processor seconds it takes to `spent`."""

    def run() -> None:
        begin = time.process_time()
        action()
        spent.append(time.process_time() - begin)

    return run


def _limit(what: str, model: SideResult, file: SideResult, side: str) -> str:
    """Say which of the two that work at the same time is the slower."""
    bare, other = model.frames_per_second.median, file.frames_per_second.median
    if bare <= other:
        return f"the model limits {what}: {side} alone is {other / bare:.1f} times as fast"
    return f"{side} limits {what}: the model alone is {bare / other:.1f} times as fast"
