"""Base class of all writers of clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.errors import UsageError
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.yuv import PictureFormat


class ClipWriter(ABC):
    """Writes the frames of one clip, in order, inside a `with` block.

    Leaving the block normally completes the output and gives it its name; leaving it by any
    exception removes what was written.

    Attributes:
        info: announced properties of the clip.
        notices: messages for the user about this output, such as sound that it cannot hold;
            complete once the block is entered.
        frames: frames written so far.
        planes: the format that `write_planes` takes; None where only `write` takes pictures.
        end: when the last frame stops being shown, in units of `info.time_base`, as
            `ClipReader.end` says; may be set until the block is left. None for a frame's usual
            length.
    """

    planes: PictureFormat | None = None
    end: int | None = None

    def __init__(self, info: ClipInfo) -> None:
        self.info = info
        self.notices: tuple[str, ...] = ()
        self.frames = 0
        self._last_pts: int | None = None

    def write(self, frame: Frame) -> None:
        """Write the next frame.

        Args:
            frame: HWC RGB of the announced size, uint8 or uint16 as the announced bits say,
                and later than the frame before it.

        Raises:
            UsageError: the frame is not what was announced.
            OutputError: the frame cannot be encoded or stored.
        """
        expected = (self.info.height, self.info.width, 3)
        dtype = np.dtype(np.uint8 if self.info.bits == 8 else np.uint16)
        if frame.pixels.shape != expected or frame.pixels.dtype != dtype:
            raise UsageError(
                f"expected frames of shape {expected} and dtype {dtype}, "
                f"got {frame.pixels.shape} and {frame.pixels.dtype}"
            )
        self._advance_to(frame.pts)
        self._write(frame)
        self.frames += 1

    def write_planes(self, planes: NDArray[np.uint8], pts: int) -> None:
        """Write the next frame, which has been converted to the format `self.planes`.

        Args:
            planes: as `to_planes.to_planes` gives them.
            pts: later than that of the frame before it.

        Raises:
            UsageError: the frame is not later, or this output takes RGB only.
            OutputError: the frame cannot be encoded or stored.
        """
        raise UsageError(f"expected RGB frames: {type(self).__name__} takes no others")

    def _advance_to(self, pts: int) -> None:
        if self._last_pts is not None and pts <= self._last_pts:
            raise UsageError(
                f"expected frames in order of time, got pts {pts} after {self._last_pts}"
            )
        self._last_pts = pts

    @abstractmethod
    def _write(self, frame: Frame) -> None: ...

    @abstractmethod
    def __enter__(self) -> ClipWriter: ...

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
