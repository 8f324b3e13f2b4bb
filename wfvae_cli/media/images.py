"""Single images, numbered sequences of image files, and animations as clips of RGB frames."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from wfvae_cli.errors import VideoError
from wfvae_cli.media import picture
from wfvae_cli.media.picture import Picture
from wfvae_cli.media.sampling import Orientation, Timed
from wfvae_cli.media.stills.animation import AnimationSource, Frames
from wfvae_cli.media.stills.headers import is_series

PATTERN = re.compile(r"%(?:0(\d+))?d")


def open_image(
    file: Path | io.BytesIO, name: str, *, memory: int | None = None
) -> ImageSource | AnimationSource | None:
    """Open an image file as a clip: of one frame, or of as many as an animation has.

    Args:
        file: one that `picture.is_image` takes for an image.
        name: its name in messages.
        memory: bytes that decoding one picture may take; None is half of what is free.

    Returns:
        A source of frames; None for what FFmpeg decodes instead: an animation that Pillow would
        not give in full depth, or files of one kind that follow each other.

    Raises:
        VideoError: it is damaged or too large.
    """
    data = picture.read_bytes(file, name, memory)
    if is_series(data):
        return None
    frames = Frames.find(data, name)
    if frames is None:
        return ImageSource(picture.decode(data, name, memory), name, memory=memory)
    if frames.needs_ffmpeg:
        return None
    return AnimationSource(data, name, frames, memory=memory)


def open_series(pattern: Path, frame_rate: Fraction, *, memory: int | None = None) -> ImageSource:
    """Open the images that a pattern such as `frames/%05d.png` names as a clip.

    Args:
        pattern: see `sequence`.
        frame_rate: in frames per second.
        memory: bytes that decoding one picture may take; None is half of what is free.

    Raises:
        VideoError: no file matches, or the first cannot be read.
    """
    numbered = _numbered(pattern)
    names = _first_run(numbered)
    source = ImageSource(
        picture.load(names[0], memory=memory), str(pattern), names, frame_rate, memory=memory
    )
    if len(names) < len(numbered):
        first = min(numbered)
        later = min(number for number in numbered if number > first + len(names))
        source.notices.append(
            f"it ends before number {first + len(names)}, which is missing; "
            f"{len(numbered) - len(names)} later images, from {numbered[later].name} on, are "
            "left out"
        )
    return source


class ImageSource:
    """One image, or a numbered sequence of them, as a source of frames."""

    orientation = Orientation()  # applied while loading, since each file has its own
    sample_aspect = Fraction(1)
    origin = 0

    def __init__(
        self,
        first: Picture,
        name: str,
        names: list[Path] | None = None,
        frame_rate: Fraction | None = None,
        *,
        memory: int | None = None,
    ) -> None:
        """Take the first image.

        Args:
            first: the image, or the first of the sequence.
            name: name of the source in messages.
            names: the files of a sequence in order, the first included.
            frame_rate: of a sequence; None for a single image.
            memory: bytes that decoding one picture may take; None is half of what is free.
        """
        self.name = name
        self.frame_rate = frame_rate
        self.time_base = 1 / frame_rate if frame_rate else Fraction(1)
        self._names = names or []
        self._memory = memory
        self._frame = first.frame
        self._index = 0
        self.width, self.height = first.frame.width, first.frame.height
        self.format = first.format
        self.pixel_format = first.pixel_format
        self.colour = first.colour
        self.container = self.codec = first.container
        self.notices = list(first.notices)
        self.is_image = frame_rate is None

    @property
    def promised(self) -> tuple[int | None, Fraction | None]:
        """Announced number of images, and their duration in seconds."""
        count = max(1, len(self._names))
        return count, None if self.frame_rate is None else count * self.time_base

    @property
    def first(self) -> Timed[VideoFrame]:
        """The frame that iteration begins with."""
        return Timed(self._frame, self._index, 1)

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
            self._frame = self._load(self._names[skip])

    def __iter__(self) -> Iterator[Timed[VideoFrame]]:
        """The frames from the point reached on; once."""
        yield self.first
        for name in self._names[self._index + 1 :]:
            self._index += 1
            self._frame = self._load(name)
            yield self.first

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _load(self, name: Path) -> VideoFrame:
        """Load one more image, of the same size and depth as the first."""
        loaded = picture.load(name, memory=self._memory)
        size = (loaded.frame.width, loaded.frame.height)
        if size != (self.width, self.height):
            raise VideoError(
                f"{name}: the resolution changes from {self.width}x{self.height} to "
                f"{size[0]}x{size[1]}: scale the images to one size"
            )
        if loaded.format.bits == self.format.bits:
            return loaded.frame
        if loaded.format.bits == 16:
            raise VideoError(
                f"{name}: 16 bits a sample after images of 8: convert them to one depth"
            )
        wide = loaded.frame.to_ndarray().astype(np.uint16) * 257
        return VideoFrame.from_ndarray(wide, format="rgb48le")


def sequence(pattern: Path) -> list[Path]:
    """The files of a pattern such as `frames/%05d.png`, in order.

    The lowest number found starts the sequence and the first gap ends it.

    Raises:
        VideoError: no file matches.
    """
    return _first_run(_numbered(pattern))


def _first_run(numbered: dict[int, Path]) -> list[Path]:
    """The files from the lowest number to the first one that is missing."""
    numbers = itertools.takewhile(numbered.__contains__, itertools.count(min(numbered)))
    return [numbered[number] for number in numbers]


def _numbered(pattern: Path) -> dict[int, Path]:
    """All files of a pattern, by their numbers.

    Raises:
        VideoError: there is none.
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
    return found
