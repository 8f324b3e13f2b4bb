"""Windows: the parts of a clip that become outputs of their own, all from one decode of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from wfvae_cli.dataset.buckets import UnsuitableError
from wfvae_cli.errors import VideoError

if TYPE_CHECKING:
    from wfvae_cli.media.clip import Frame

Mode = Literal["head", "middle", "all", "uniform", "slide"]
_EXPECTED = (
    "expected head[:N], middle[:N], all[:N], uniform:K[:N] or slide[:N]:STRIDE, N being the "
    "frames of a window"
)


@dataclass(frozen=True, order=True)
class Window:
    """Consecutive frames of a clip."""

    start: int
    """Number of the first one, from 0, after resampling."""
    frames: int

    def __str__(self) -> str:
        """Return what names of outputs end in."""
        return f"{self.start:05d}-{self.frames:03d}"

    @classmethod
    def parse(cls, text: str) -> Window | None:
        """Read what `__str__` gives, as headers record it; None of something else."""
        start, _, frames = text.partition("-")
        if not (start.isdecimal() and frames.isdecimal()):
            return None
        return cls(int(start), int(frames))


@dataclass(frozen=True)
class Windows:
    """Windows to take of every clip."""

    mode: Mode
    frames: int | None = None
    """Frames of a window; None takes those of the clip's bucket."""
    number: int = 1
    """K windows of `uniform`, or the stride of `slide`."""

    def __str__(self) -> str:
        parts: list[object] = [self.mode]
        if self.mode == "uniform":
            parts.append(self.number)
        if self.frames is not None:
            parts.append(self.frames)
        if self.mode == "slide":
            parts.append(self.number)
        return ":".join(map(str, parts))

    @classmethod
    def parse(cls, text: str) -> Windows:
        """Read what `--windows` says.

        Raises:
            ValueError: it is something else.
        """
        name, *rest = text.strip().split(":")
        mode = next((each for each in get_args(Mode) if each == name), None)
        numbers = [int(part) if part.isdecimal() else 0 for part in rest]
        least, most = (1, 2) if mode in ("uniform", "slide") else (0, 1)
        if mode is None or not least <= len(numbers) <= most or 0 in numbers:
            raise ValueError(f"{_EXPECTED}; got {text!r}")
        if mode == "uniform":
            return cls(mode, numbers[1] if len(numbers) > 1 else None, numbers[0])
        if mode == "slide":
            return cls(mode, numbers[0] if len(numbers) > 1 else None, numbers[-1])
        return cls(mode, numbers[0] if numbers else None)

    @property
    def is_single(self) -> bool:
        """True where every clip gives one window."""
        return self.mode in ("head", "middle") or (self.mode == "uniform" and self.number == 1)

    def of(self, total: int, frames: int) -> list[Window]:
        """Choose the windows of a clip, in order of their start.

        Args:
            total: frames of the clip.
            frames: of each window.

        Raises:
            UnsuitableError: the clip is shorter than a window.
        """
        room = total - frames
        if room < 0:
            raise UnsuitableError(
                f"too short: it has {total} frames, a window has {frames} (--windows {self})"
            )
        return [Window(start, frames) for start in self._starts(room, frames)]

    def _starts(self, room: int, frames: int) -> Sequence[int]:
        """Return the first frames of windows, which may begin at 0 to `room`."""
        match self.mode:
            case "head":
                return [0]
            case "middle":
                return [room // 2]
            case "all":
                return range(0, room + 1, frames)
            case "slide":
                return range(0, room + 1, self.number)
            case "uniform":
                if self.number == 1:
                    return [room // 2]
                last = self.number - 1
                # A short clip has fewer: two of the same frames would be one too many.
                return sorted({room * i // last for i in range(self.number)})


def cut_windows(
    frames: Iterable[Frame], windows: Sequence[Window], expected: int
) -> Iterator[tuple[int, Iterator[Frame]]]:
    """Cut a clip into windows in one pass; frames are kept only as long as a later one needs them.

    Args:
        frames: of the clip.
        windows: in order of their start; they may overlap.
        expected: frames that the clip was said to have, for the message.

    Yields:
        For each window the time of its first frame, and its frames, whose times begin with 0; to
        be taken before the next window.

    Raises:
        VideoError: the clip ends before its last window does.
    """
    source = iter(frames)
    held: deque[Frame] = deque()
    first = 0  # the number of the first frame held

    def get(number: int) -> Frame:
        while first + len(held) <= number:
            frame = next(source, None)
            if frame is None:
                raise VideoError(
                    f"ends after {first + len(held)} frames, but its container states "
                    f"{expected}: remux it, or cut it to its true length"
                )
            held.append(frame)
        return held[number - first]

    for window, later in zip(windows, [*windows[1:], None], strict=True):
        needed = window.start + window.frames if later is None else later.start
        while first < window.start:  # between two windows
            get(first)
            held.popleft()
            first += 1
        origin = get(window.start).pts

        def taken(window: Window, origin: int, needed: int) -> Iterator[Frame]:
            nonlocal first
            for number in range(window.start, window.start + window.frames):
                frame = get(number)
                while first <= number and first < needed:
                    held.popleft()
                    first += 1
                yield replace(frame, pts=frame.pts - origin)

        yield origin, taken(window, origin, needed)
