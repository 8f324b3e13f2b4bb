"""Numbered sequences of image files, and single images, as clips of RGB frames."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from wfvae_cli.errors import VideoError
from wfvae_cli.media.clip import Colour
from wfvae_cli.media.colour import PixelFormat
from wfvae_cli.media.picture import Picture, load
from wfvae_cli.media.sampling import Orientation, Timed

PATTERN = re.compile(r"%(?:0(\d+))?d")


class ImageSource:
    """One image, or the images that a pattern names, as a source of frames."""

    orientation = Orientation()  # applied while loading, since each file has its own
    sample_aspect = Fraction(1)
    colour = Colour("gbr", "pc", "bt709", "iec61966-2-1")

    def __init__(self, names: list[Path] | Picture, name: str, frame_rate: Fraction | None) -> None:
        """Load the first image.

        Args:
            names: the files in order, or a single picture that is loaded already.
            name: what messages call the source.
            frame_rate: of a sequence; None for a single image.

        Raises:
            VideoError: the first image cannot be read.
        """
        self.name = name
        self.frame_rate = frame_rate
        self.time_base = 1 / frame_rate if frame_rate else Fraction(1)
        self._names: list[Path] = [] if isinstance(names, Picture) else names
        self._picture = names if isinstance(names, Picture) else load(names[0])
        self._index = 0
        self.height, self.width = self._picture.pixels.shape[:2]
        self.format = PixelFormat(
            "rgb24" if self._depth == 8 else "rgb48le", "rgb", self._depth, False
        )
        self.pixel_format = self._picture.pixel_format
        self.container = self.codec = self._picture.format
        self.notices = list(self._picture.notices)
        self.is_image = frame_rate is None
        self.origin = 0

    @property
    def _depth(self) -> int:
        return self._picture.pixels.dtype.itemsize * 8

    @property
    def promised(self) -> tuple[int | None, Fraction | None]:
        """How many images there are, and how long they last."""
        count = max(1, len(self._names))
        return count, None if self.frame_rate is None else count * self.time_base

    @property
    def first(self) -> Timed[VideoFrame]:
        """The frame that iteration begins with."""
        return self._timed(self._picture)

    def seek(self, start: Fraction) -> None:
        """Skip the images shown before `start` seconds.

        Raises:
            VideoError: none is left.
        """
        skip = (start / self.time_base - Fraction(1, 2)).__ceil__()
        if skip >= max(1, len(self._names)):
            count, length = self.promised
            long = f"{count} images are {float(length):.3f} s long" if length else "it is one image"
            raise VideoError(
                f"{self.name}: nothing is left after {float(start):g} s, {long}: "
                "choose an earlier start"
            )
        if skip > 0:
            self._index = skip
            self._picture = self._load(self._names[skip])

    def __iter__(self) -> Iterator[Timed[VideoFrame]]:
        """The frames from the point reached on; once."""
        yield self.first
        for name in self._names[self._index + 1 :]:
            self._index += 1
            yield self._timed(self._load(name))

    def close(self) -> None:
        """Nothing is kept open."""

    def _timed(self, picture: Picture) -> Timed[VideoFrame]:
        frame = VideoFrame.from_ndarray(picture.pixels, format=self.format.name)
        return Timed(frame, self._index, 1)

    def _load(self, name: Path) -> Picture:
        """Load one more image, of the same size and depth as the first."""
        picture = load(name)
        height, width = picture.pixels.shape[:2]
        if (width, height) != (self.width, self.height):
            raise VideoError(
                f"{name}: the resolution changes from {self.width}x{self.height} to "
                f"{width}x{height}: scale the images to one size"
            )
        if picture.pixels.dtype == np.uint8 and self.format.bits == 16:
            return Picture(picture.pixels.astype(np.uint16) * 257, "", "")
        if picture.pixels.dtype == np.uint16 and self.format.bits == 8:
            raise VideoError(
                f"{name}: 16 bits a sample after images of 8: convert them to one depth"
            )
        return picture


def sequence(pattern: Path) -> list[Path]:
    """The files of a pattern such as `frames/%05d.png`, in order.

    The lowest number found starts the sequence and the first gap ends it.

    Raises:
        VideoError: no file matches.
    """
    match = PATTERN.search(pattern.name)
    assert match is not None
    width = int(match[1] or 1)
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    found: dict[int, Path] = {}
    entries = pattern.parent.iterdir() if pattern.parent.is_dir() else iter(())
    for path in entries:
        digits = path.name[len(before) : len(path.name) - len(after)]
        if (
            path.name == before + digits + after
            and digits.isascii()
            and digits.isdigit()
            and digits == f"{int(digits):0{width}d}"
        ):
            found[int(digits)] = path
    if not found:
        raise VideoError(
            f"{pattern}: no file matches, such as {before}{0:0{width}d}{after}: check the folder "
            "and the number of digits"
        )
    return [found[i] for i in itertools.takewhile(found.__contains__, itertools.count(min(found)))]
