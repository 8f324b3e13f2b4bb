"""Finding the video that a clip of a cache was made from, and reading its pixels."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.dataset.items import Item, find_inputs
from wfvae_cli.dataset.outputs import parse_options
from wfvae_cli.dataset.source import content_sha256, stamp
from wfvae_cli.dataset.windows import Window
from wfvae_cli.errors import WfvaeError
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.strides import Strides

ENCODED_OPTIONS = "encoded_options"
"""The extra string with the options of the encoding, in files that were converted since."""
MOST_FRAMES = 600
"""Frames of a source that are held at once, at the size of the latents."""


class Sources:
    """Videos and images by the names that caches keep of them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._by_path: dict[str, Item] = {}
        self._by_stem: dict[str, list[Item]] = {}
        for item in find_inputs(paths):
            stem = PurePosixPath(item.relative).stem
            self._by_path[item.relative] = item
            self._by_path[str(PurePosixPath(item.relative).with_suffix(""))] = item
            for key in (stem, hashlib.sha256(stem.encode("utf-8", "replace")).hexdigest()):
                self._by_stem.setdefault(key, []).append(item)

    def find(self, entry: CacheEntry) -> Path | None:
        """Find what a clip was made from; None where no name says it, or several have it."""
        name = entry.name.rpartition("#")[2] if "#" in entry.name else entry.name
        name = name.removesuffix(".safetensors").replace("%2E", ".").replace("%25", "%")
        if name in self._by_path:
            return Path(self._by_path[name].path)
        for key in (entry.stem, entry.stem_sha256):
            found = self._by_stem.get(key or "", [])
            if len(found) > 1:
                found = [item for item in found if _is_source(item, entry)]
            if found and len({item.path for item in found}) == 1:
                return Path(found[0].path)
        return None


def _is_source(item: Item, entry: CacheEntry) -> bool:
    """Return True where a file has the hash that our own header records of a clip's source."""
    expected = None if entry.metadata is None else entry.metadata.extra.get("source_sha256")
    if expected is None or item.is_url:
        return False
    try:
        return content_sha256(item.path, stamp(item.path)) == expected
    except WfvaeError:
        return False


@dataclass(frozen=True)
class Reading:
    """Sampling of a source's pixels, as far as a cache says."""

    sampling: Sampling
    """Size, crop and rate."""
    first: int
    """The clip's first frame among those that `sampling` gives."""
    frames: int
    """Number of frames that make the latents to compare; the last one may be repeated."""
    width: int
    """Pixels of the latents' grid, padding included."""
    height: int


def reading_of(entry: CacheEntry, strides: Strides, latents: int) -> Reading:
    """Say how a clip's first `latents` latent frames were made, as far as its cache says."""
    grid = entry.grid
    assert grid is not None
    width, height = grid[3] * strides.width, grid[2] * strides.height
    frames = strides.frames_of(latents)
    recorded = _recorded(entry)
    if recorded is not None:
        return Reading(recorded, _window_start(entry), frames, width, height)
    info = entry.metadata
    size = (width, height) if info is None else (info.width, info.height)
    return Reading(Sampling(size=size), entry.position, frames, width, height)


def read_frames(path: Path, sampling: Sampling, most: int = MOST_FRAMES) -> Tensor:
    """Read frames as float32 `[3, T, H, W]` in [-1, 1], RGB.

    Raises:
        VideoError: the source cannot be read.
    """
    with open_clip(path, sampling) as reader:
        pictures = [frame.in_rgb() for frame in itertools.islice(reader, most)]
    peak = np.iinfo(pictures[0].dtype).max
    stacked = torch.from_numpy(np.stack(pictures).astype(np.float32))
    return (stacked / (peak / 2) - 1).permute(3, 0, 1, 2).contiguous()


def fit(frames: Tensor, count: int, width: int, height: int) -> Tensor:
    """Cut to `[3, count, height, width]`, or repeat the last frame and the far edges."""
    for dim, length in ((1, count), (2, height), (3, width)):
        frames = frames.narrow(dim, 0, min(length, frames.size(dim)))
        missing = length - frames.size(dim)
        if missing:
            last = frames.narrow(dim, frames.size(dim) - 1, 1)
            frames = torch.cat([frames] + [last] * missing, dim)
    return frames


def recorded_options(entry: CacheEntry) -> Mapping[str, str]:
    """Return the options of the encoding that our own headers record."""
    extra = {} if entry.metadata is None else entry.metadata.extra
    text = extra.get(ENCODED_OPTIONS)
    return parse_options(extra if text is None else {"options": text})


def _recorded(entry: CacheEntry) -> Sampling | None:
    """The sampling that our own headers record."""
    options: Mapping[str, Any] = recorded_options(entry)
    info = entry.metadata
    if info is None or "start" not in options:
        return None
    if str(options.get("compute_dtype")).startswith("converted"):
        return None
    extra = info.extra
    values: dict[str, Any] = {"start": float(options["start"])}
    if options.get("duration") not in (None, "None"):
        values["duration"] = float(options["duration"])
    if options.get("frames") not in (None, "None"):
        values["frames"] = int(options["frames"])
    if "bucket" in extra or "window" in extra:
        values["frames"] = _window_start(entry) + info.frames
    fps = options.get("fps")
    if fps not in (None, "None") and info.frame_rate is not None:
        values["fps"] = info.frame_rate
    sampling = Sampling(**values)
    if options.get("short_side") not in (None, "None"):
        return replace(sampling, short_side=int(options["short_side"]))
    if options.get("size") not in (None, "None") or "bucket" in extra:
        kind = options.get("fit", "crop")
        return replace(sampling, size=(info.width, info.height), fit=kind)
    return sampling


def _window_start(entry: CacheEntry) -> int:
    """Return the first frame of a clip's window, as our own headers record it; 0 without one."""
    text = "" if entry.metadata is None else entry.metadata.extra.get("window", "")
    window = Window.parse(text)
    return 0 if window is None else window.start
