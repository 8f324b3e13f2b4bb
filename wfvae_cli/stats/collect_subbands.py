"""From the clips of a dataset to the statistics of their frames' subbands; no model takes part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from wfvae_cli.errors import InputError
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.stats.accumulate import FailedClip
from wfvae_cli.stats.draw import Draw, Source, dataset_options, open_window
from wfvae_cli.stats.subband_clip import Kind, SubbandClip
from wfvae_cli.stats.subbands import SubbandStats

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 22
"""Pixels that are read of a file at once."""
_ALL = Draw()
_KINDS: dict[Kind, str] = {"video": "a video", "image": "an image"}
Analyse = Callable[[Sequence[Source]], Iterable[SubbandClip | FailedClip]]
"""Analyses clips with `analyse_clip`, here or elsewhere: one result for each, in their order."""


def collect_subbands(
    sources: Sequence[Source],
    kind: Kind,
    levels: int = 3,
    *,
    by: Analyse,
    draw: Draw = _ALL,
    on_clip: Callable[[SubbandStats, FailedClip | None], None] = lambda stats, failed: None,
) -> SubbandStats:
    """Analyse the Haar subbands of a dataset's frames.

    Args:
        sources: videos, or images.
        kind: which of the two.
        levels: how often the low band is transformed again.
        by: who analyses the clips, for `kind` and `levels`.
        draw: which part of the dataset to look at; `until` plays no part.
        on_clip: as of `collect`.

    Raises:
        UsageError: `levels` is out of range.
    """
    chosen = draw.choose(sources)
    stats = SubbandStats(kind, levels, dataset_options(chosen, draw))
    for result in by(chosen):
        if isinstance(result, FailedClip):
            stats.fail(result.name, result.reason)
            on_clip(stats, stats.failed[-1])
        else:
            stats.add(result)
            on_clip(stats, None)
    return stats


def analyse_clip(
    source: Source,
    kind: Kind,
    levels: int,
    draw: Draw = _ALL,
    alive: Callable[[], None] = lambda: None,
) -> SubbandClip:
    """Transform the frames of one clip.

    Args:
        source: a file of this machine.
        kind: what it must be.
        levels: how often the low band is transformed again.
        draw: which part of the clip to look at.
        alive: called whenever there is more of it.

    Raises:
        InputError: it cannot be read, or is of the other kind.
        UsageError: the sampling asks for the impossible.
    """
    if source.is_latents:
        raise InputError("latents; subbands are of the frames: give videos or images")
    reader, identity = open_window(source, draw)
    with reader:
        alive()
        found: Kind = "image" if reader.info.is_image else "video"
        if found != kind:
            raise InputError(
                f"this is {_KINDS[found]}, and {_KINDS[kind]} is expected: videos are analysed "
                "in 3D and images in 2D, one kind at a time"
            )
        clip = SubbandClip(source.name, kind, levels, identity)
        for frames in _frames(reader, alive):
            clip.update(frames)
    clip.end()
    return clip


def _frames(reader: ClipReader, alive: Callable[[], None]) -> Iterator[Tensor]:
    """A clip's frames as [3, t, H, W] in [-1, 1], some at a time."""
    import numpy as np
    import torch

    size = max(1, _BLOCK // (reader.info.width * reader.info.height))
    half = (2**reader.info.bits - 1) / 2
    group = []
    for frame in reader:
        alive()
        group.append(frame.pixels)
        if len(group) == size:
            yield torch.from_numpy(np.stack(group)).permute(3, 0, 1, 2).float() / half - 1
            group = []
    if group:
        yield torch.from_numpy(np.stack(group)).permute(3, 0, 1, 2).float() / half - 1
