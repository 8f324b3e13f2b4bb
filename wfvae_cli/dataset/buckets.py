"""Buckets: the few shapes, width x height x frames, that trainers batch clips by.

A clip goes to the bucket whose aspect is nearest among those whose frames it fills, and of these to
the one with the most frames. It is scaled to cover the bucket and cropped (`--fit`), and gives its
first frames.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.strides import Strides

if TYPE_CHECKING:
    from wfvae_cli.media.clip import ClipInfo

_PATTERN = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,5}))?")
_WIDEST = 4
"""Width over height of the widest bucket that `auto` makes; its inverse for the tallest one."""
_EXAMPLES = 6


class UnsuitableError(InputError):
    """Raised where a clip fits no bucket or window: it is skipped, not failed."""


@dataclass(frozen=True, order=True)
class Bucket:
    """One shape of clips."""

    width: int
    height: int
    frames: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @classmethod
    def parse(cls, text: str) -> Bucket:
        """Read `960x544x49`; without frames it is a bucket of images.

        Raises:
            ValueError: it is something else.
        """
        match = _PATTERN.fullmatch(text.strip().lower())
        if match is None:
            raise ValueError(f"expected WIDTHxHEIGHTxFRAMES such as 960x544x49, got {text!r}")
        return cls(int(match[1]), int(match[2]), int(match[3] or 1))


@dataclass(frozen=True)
class Buckets:
    """The buckets of a dataset, and whether clips may be enlarged for them."""

    shapes: tuple[Bucket, ...]
    """Buckets, sorted, each once."""
    upscale: bool = True
    """True to enlarge clips smaller than their bucket, rather than leave them out."""

    @classmethod
    def of(cls, shapes: Iterable[Bucket], *, upscale: bool = True) -> Buckets:
        """Make a set of buckets; the order in which they were named decides nothing."""
        return cls(tuple(sorted(set(shapes))), upscale)

    def __str__(self) -> str:
        return ",".join(map(str, self.shapes))

    def choose(self, info: ClipInfo, frames: int) -> Bucket:
        """Choose the bucket of a clip.

        Args:
            info: of the clip as it is displayed, before it is scaled.
            frames: that it has, after resampling; an image has 1, and goes to buckets of 1 frame
                only.

        Raises:
            UnsuitableError: it fits none; the message says why.
        """
        filled = [b for b in self.shapes if b.frames <= frames]
        if not filled:
            least = min(b.frames for b in self.shapes)
            what = "an image has 1 frame" if info.is_image else f"it has {frames} frames"
            raise UnsuitableError(f"fits no bucket: {what}, the shortest bucket has {least}")
        aspect = info.width * info.sample_aspect / info.height

        def distance(bucket: Bucket) -> Fraction:
            ratio = Fraction(bucket.width, bucket.height) / aspect
            return max(ratio, 1 / ratio)

        nearest = min(map(distance, filled))
        near = [b for b in filled if distance(b) == nearest]
        fitting = [b for b in near if not _enlarges(info, b)]
        if not fitting and not self.upscale:
            raise UnsuitableError(
                f"too small: {info.width}x{info.height} pixels would be enlarged to "
                f"{min(near)} (--no-upscale)"
            )
        most = max(b.frames for b in fitting or near)
        longest = [b for b in fitting or near if b.frames == most]
        # Of several sizes: the largest one that enlarges nothing, else the smallest one.
        return max(longest) if fitting else min(longest)


def _enlarges(info: ClipInfo, bucket: Bucket) -> bool:
    """Return True where covering a bucket takes more pixels than the clip has."""
    return bucket.width > info.width * info.sample_aspect or bucket.height > info.height


def parse_buckets(text: str) -> tuple[Bucket, ...] | str:
    """Read a list of buckets, or `auto`.

    Raises:
        ValueError: it is something else.
    """
    if text.strip() == "auto":
        return "auto"
    return tuple(Bucket.parse(part) for part in text.split(","))


def parse_frames(text: str) -> tuple[int, ...]:
    """Read numbers of frames such as `1,17,33`.

    Raises:
        ValueError: it is something else.
    """
    numbers = tuple(int(part) if part.strip().isdecimal() else 0 for part in text.split(","))
    if min(numbers) < 1:
        raise ValueError(f"expected numbers of frames such as 1,17,33,49, got {text!r}")
    return numbers


def auto_buckets(
    area: tuple[int, int], step: int, frames: Sequence[int], strides: Strides
) -> list[Bucket]:
    """Make buckets of every aspect from 1:4 to 4:1, each of as many pixels as fit into an area.

    Args:
        area: width and height whose product is the most pixels that a bucket may have.
        step: sides are multiples of it.
        frames: each size becomes a bucket of each of these.
        strides: of the model.

    Raises:
        UsageError: `step` is no multiple of the strides, or larger than the area.
    """
    unit = math.lcm(strides.width, strides.height)
    if step < 1 or step % unit:
        near = unit * max(1, round(step / unit))
        raise UsageError(
            f"--bucket-step must be a multiple of {unit} for this model, got {step}; the nearest "
            f"is {near}"
        )
    pixels = area[0] * area[1]
    sizes = set()
    for width in range(step, math.isqrt(pixels * _WIDEST) + 1, step):
        height = pixels // width // step * step
        if height and width <= _WIDEST * height and height <= _WIDEST * width:
            sizes.add((width, height))
    if not sizes:
        raise UsageError(
            f"--bucket-area {area[0]}x{area[1]} holds no bucket whose sides are multiples of "
            f"{step}: give a larger area or a smaller --bucket-step"
        )
    return [Bucket(width, height, count) for width, height in sizes for count in frames]


def check_buckets(buckets: Sequence[Bucket], strides: Strides) -> None:
    """Refuse buckets that the model would have to pad.

    Raises:
        UsageError: the model takes no pictures of a bucket's size, or no clips of its length.
    """
    nearest = [(b, Bucket(*strides.nearest(b.width, b.height, b.frames))) for b in buckets]
    wrong = [(bucket, near) for bucket, near in nearest if near != bucket]
    if not wrong:
        return
    shown = ", ".join(f"{bucket} (nearest: {near})" for bucket, near in wrong[:_EXAMPLES])
    more = f" and {len(wrong) - _EXAMPLES} more" if len(wrong) > _EXAMPLES else ""
    frames = strides.lengths.frames.form
    raise UsageError(
        f"buckets of this model are {strides.sizes_form} pixels with {frames} frames, "
        f"got {shown}{more}"
    )
