"""The bucket and the windows of an open clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from typing_extensions import override

from wfvae_cli.dataset.buckets import Bucket, Buckets
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.windows import Window, cut_windows
from wfvae_cli.errors import InputError
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.pipeline.chunks import FrameChunk, FrameSource, read_chunks
from wfvae_cli.pipeline.job import Heartbeat
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.strides import Strides

_MOST_PROMISED = 1_000_000
"""Most frames that a container is trusted on, ten hours; more are counted."""


@dataclass(frozen=True)
class Cut:
    """The parts of a clip that are taken."""

    total: int
    """Frames of the clip, as its container states or as counted."""
    windows: tuple[Window, ...]
    """Windows in order of their start; at least one."""
    bucket: Bucket | None
    is_named: bool
    """True where each window is an output of its own name, rather than the clip's only one."""

    def items(self, item: Item) -> list[Item]:
        """Return the items of the outputs."""
        return [item.part(window) for window in self.windows] if self.is_named else [item]


def find_cut(
    config: EncodeConfig, item: Item, info: ClipInfo, count: Callable[[], int]
) -> Cut | None:
    """Choose a clip's bucket and windows; None takes all of it as it is.

    Args:
        config: what the user said.
        item: the clip.
        info: of its reader, before it is scaled.
        count: counts its frames, where its container does not say how many there are.

    Raises:
        UnsuitableError: no bucket or window takes it.
    """
    windows, buckets = config.windows_of(item), config.buckets
    if windows is None and buckets is None:
        return None
    total = promised_frames(info) or count()
    frames = None if windows is None else windows.frames
    bucket = None
    if buckets is not None:
        bucket = _with_frames(buckets, item, info, frames).choose(info, total)
        frames = bucket.frames
    if frames is None:
        raise InputError(
            f"{item.path}: its windows {windows} do not say how many frames they have: add them, "
            "or --buckets"
        )
    if windows is None or (info.is_image and frames == 1):
        return Cut(total, (Window(0, frames),), bucket, is_named=False)
    return Cut(total, tuple(windows.of(total, frames)), bucket, is_named=True)


def promised_frames(info: ClipInfo) -> int | None:
    """Return the frames that a container states; None where the number is not plausible."""
    frames = info.frames
    return None if frames is None or frames > _MOST_PROMISED else frames


def _with_frames(buckets: Buckets, item: Item, info: ClipInfo, frames: int | None) -> Buckets:
    """Return the buckets whose frames windows ask for; images go to those of one frame."""
    if frames is None or info.is_image:
        return buckets
    shapes = [bucket for bucket in buckets.shapes if bucket.frames == frames]
    if not shapes:
        raise InputError(f"{item.path}: its windows have {frames} frames, and no bucket does")
    return Buckets.of(shapes, upscale=buckets.upscale)


class CutSource(FrameSource):
    """The frames of a clip's windows, one stream after the other, from one pass over it.

    Args:
        reader: of the clip.
        strides: of the model.
        cut: its windows; None for all frames.
        heartbeat: called for every frame.
    """

    def __init__(
        self, reader: ClipReader, strides: Strides, cut: Cut | None, heartbeat: Heartbeat
    ) -> None:
        super().__init__(reader, strides, heartbeat)
        self.cut = cut
        self.origins: list[int] = []
        """Time of the first frame of each window that was begun, in units of `info.time_base`."""

    @override
    def chunks(self, plan: ChunkPlan) -> Iterator[FrameChunk]:
        if self.cut is None:
            yield from super().chunks(plan)
            return
        windows, total = self.cut.windows, self.cut.total
        for origin, frames in cut_windows(self._frames(), windows, total):
            self.origins.append(origin)
            is_followed = len(self.origins) < len(windows)
            yield from read_chunks(frames, self._strides, plan, is_followed=is_followed)
