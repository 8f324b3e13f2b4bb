"""Selection of frames in time, and sizes of pictures: arithmetic only, no pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

from wfvae_cli.media.options import Sampling

T = TypeVar("T")


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a picture: transposed first, then flipped.

    A quarter turn clockwise is a transposition and a horizontal flip, half a turn both flips.
    """

    transpose: bool = False
    hflip: bool = False
    vflip: bool = False

    @classmethod
    def from_matrix(cls, a: int, b: int, c: int, d: int) -> Orientation | None:
        """Return the orientation that a display matrix asks for.

        The matrix (ISO/IEC 14496-12, 8.2.2) maps the stored position (x, y) to
        (a*x + c*y, b*x + d*y). None stands for a rotation by anything but quarter turns.
        """
        tolerance = max(abs(a), abs(b), abs(c), abs(d)) / 64  # about one degree
        if abs(b) <= tolerance and abs(c) <= tolerance and a and d:
            return cls(hflip=a < 0, vflip=d < 0)
        if abs(a) <= tolerance and abs(d) <= tolerance and b and c:
            return cls(transpose=True, hflip=c < 0, vflip=b < 0)
        return None


@dataclass(frozen=True)
class Geometry:
    """Geometry of an output picture: the decoded one turned, scaled, then cropped or padded.

    All sizes are (width, height) as displayed, that is after turning.
    """

    orientation: Orientation
    scaled: tuple[int, int]
    size: tuple[int, int]
    sample_aspect: Fraction

    @property
    def offset(self) -> tuple[int, int]:
        """Left and top pixels cut off (positive) or added (negative) after scaling."""
        x, y = (self.scaled[i] - self.size[i] for i in (0, 1))
        return int(x / 2), int(y / 2)


def plan_geometry(
    width: int,
    height: int,
    sample_aspect: Fraction,
    orientation: Orientation,
    sampling: Sampling,
) -> Geometry:
    """Decide the sizes of a clip's pictures.

    Without `size` and `short_side` pictures keep their pixels and their pixel aspect. With
    either, pixels become square: `crop` and `pad` and `short_side` keep the proportions that the
    picture is displayed with, `stretch` fills the target whatever they are.

    Args:
        width: pixels of the decoded picture, before turning.
        height: the same.
        sample_aspect: width of a decoded pixel over its height.
        orientation: the turn or flip to apply.
        sampling: the user's wishes.
    """
    if orientation.transpose:
        width, height, sample_aspect = height, width, 1 / sample_aspect
    if sampling.short_side is not None:
        size = _short_side(width * sample_aspect, height, sampling.short_side)
        if sample_aspect == 1 and min(width, height) == sampling.short_side:
            size = (width, height)
        return Geometry(orientation, size, size, Fraction(1))
    if sampling.size is None:
        return Geometry(orientation, (width, height), (width, height), sample_aspect)
    target = sampling.size
    if sampling.fit == "stretch":
        return Geometry(orientation, target, target, Fraction(1))
    shown = (width * sample_aspect, Fraction(height))
    ratios = (target[0] / shown[0], target[1] / shown[1])
    ratio = max(ratios) if sampling.fit == "crop" else min(ratios)
    scaled = (_round(shown[0] * ratio), _round(shown[1] * ratio))
    return Geometry(orientation, scaled, target, Fraction(1))


def _short_side(width: Fraction, height: int, side: int) -> tuple[int, int]:
    """The size whose shorter side is `side`, the longer one rounded to an even number."""
    if width <= height:
        return side, max(side, 2 * _round(height * side / width / 2))
    return max(side, 2 * _round(width * side / height / 2)), side


def _round(value: Fraction) -> int:
    """Round to the nearest integer of at least 1, halves upwards, as FFmpeg's fps filter does."""
    return max(1, (value + Fraction(1, 2)).__floor__())


@dataclass(frozen=True)
class Timed(Generic[T]):
    """Something shown from `pts` on for `duration`, both in the stream's time base."""

    item: T
    pts: int
    duration: int


def seconds(value: float) -> Fraction:
    """`value` as the decimal number that the user wrote: 0.1 is 1/10."""
    return Fraction(str(value))


def select(
    items: Iterable[Timed[T]], time_base: Fraction, sampling: Sampling
) -> Iterator[Timed[T]]:
    """Take what `duration`, `fps` and `frames` ask for, counted from the first item.

    Args:
        items: in display order, beginning with the first to take.
        time_base: seconds per unit of the items' times.
        sampling: the user's wishes; `start` has been dealt with.

    Yields:
        Items whose first is at 0. With `fps` the unit is one frame of that rate, the same item
        may come several times, and items are dropped and repeated as FFmpeg's fps filter does:
        each goes to the nearest frame, the later of two at one frame wins.
    """
    items = _rebase(items)
    if sampling.duration is not None:
        items = _until(items, seconds(sampling.duration) / time_base)
    if sampling.fps is not None:
        items = _resample(items, sampling.fps * time_base)
    for count, item in enumerate(items, 1):
        yield item
        if count == sampling.frames:
            return


def _rebase(items: Iterable[Timed[T]]) -> Iterator[Timed[T]]:
    origin = None
    for timed in items:
        if origin is None:
            origin = timed.pts
        yield Timed(timed.item, timed.pts - origin, timed.duration)


def _until(items: Iterable[Timed[T]], end: Fraction) -> Iterator[Timed[T]]:
    # Half a unit of tolerance, because times are rounded to the time base.
    limit = end - Fraction(1, 2)
    for timed in items:
        if timed.pts and timed.pts >= limit:
            return
        rest = (end - timed.pts).__ceil__()
        yield Timed(timed.item, timed.pts, max(1, min(timed.duration, rest)))


def _resample(items: Iterable[Timed[T]], rate: Fraction) -> Iterator[Timed[T]]:
    """Repeat and drop; `rate` is in frames per unit of the items' times."""

    def nearest(pts: int) -> int:
        return (pts * rate + Fraction(1, 2)).__floor__()

    held: Timed[T] | None = None
    count = 0  # frames given so far: the held item waits for the one of this index
    for timed in items:
        if held is not None:
            for index in range(count, nearest(timed.pts)):
                yield Timed(held.item, index, 1)
            count = max(count, nearest(timed.pts))
        held = timed
    if held is not None:
        # A clip shorter than half a frame is still one frame.
        for index in range(count, max(nearest(held.pts + held.duration), 1)):
            yield Timed(held.item, index, 1)
