"""Animated GIF, PNG, WebP and AVIF as clips of 8-bit RGB frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction

from av.video.frame import VideoFrame

from wfvae_cli.errors import VideoError
from wfvae_cli.media import picture
from wfvae_cli.media.clip import Colour
from wfvae_cli.media.colour import SRGB, PixelFormat
from wfvae_cli.media.memory import check_memory, check_size
from wfvae_cli.media.sampling import Orientation, Timed
from wfvae_cli.media.stills import deep, headers, heif, png
from wfvae_cli.media.stills.compose import Composed, compose_apng, compose_gif
from wfvae_cli.media.stills.pillow_image import (
    blank_frame,
    damage_reported,
    opened,
    orientation_of,
    rgb_frame,
)

_COMPOSED: Mapping[str, Callable[[bytes, tuple[int, int]], Iterator[Composed]]] = {
    "GIF": compose_gif,
    "PNG": compose_apng,
}
"""Formats whose pictures are composed here; those of others, their decoders compose."""
_LOOPS = b"NETSCAPE2.0"
"""What a GIF has that is to be played again and again."""
_CHEAP_PIXELS = 1 << 32
"""Pixels of all pictures together that any animation may have: seconds of decoding."""
_PIXELS_PER_BYTE = 4096
"""Maximum for a longer animation: more than in a GIF or PNG that redraws each picture whole."""
_FINEST_TIME_BASE = Fraction(1, 1_000_000)
_FALLBACK_TIME_BASE = Fraction(1, 90_000)
_MAX_RATE = 1000


@dataclass(frozen=True)
class Frames:
    """The pictures of an animation, as its container announces them."""

    fmt: str
    """Pillow's name of the format."""
    delays: tuple[Fraction, ...]
    """Seconds that each picture is shown: at least two."""
    colour: Colour = SRGB
    needs_ffmpeg: bool = False
    """True where Pillow would reduce its samples to 8 bits, or miss its image sequence."""

    @classmethod
    def find(cls, data: bytes, name: str) -> Frames | None:
        """Find out whether an image file holds several pictures that follow each other in time.

        Args:
            data: the whole file.
            name: its name in messages.

        Returns:
            Its pictures; None for a still image.

        Raises:
            VideoError: it is damaged or cut short.
        """
        fmt = picture.identify(data[: picture.HEAD])
        with damage_reported(name):
            if fmt == "GIF":
                found = cls._of_gif(data)
            elif fmt == "PNG":
                header = png.read_header(data)
                found = cls("PNG", header.delays, header.colour, needs_ffmpeg=header.bits > 8)
            elif fmt == "WEBP":
                found = cls("WEBP", headers.webp_delays(data))
            elif fmt == "AVIF":
                found = cls._of_avif(data)
            else:
                return None
        return found if len(found.delays) > 1 else None

    @classmethod
    def _of_gif(cls, data: bytes) -> Frames:
        layout = headers.gif_layout(data)
        if len(layout.delays) > 1 and not layout.whole:
            raise ValueError(f"it ends amid or after picture {len(layout.delays)}, not as GIFs do")
        if layout.stray is not None and (len(layout.delays) > 1 or _LOOPS in data):
            # What decoders skip there may be the rest of a picture, and more of them.
            raise ValueError(f"byte {layout.stray} belongs to no picture")
        return cls("GIF", layout.delays)

    @classmethod
    def _of_avif(cls, data: bytes) -> Frames:
        sequence = heif.read_sequence(data)
        if sequence is None or len(sequence.delays) < 2:
            return cls("AVIF", ())
        with opened(data, "AVIF") as image:
            seen = getattr(image, "n_frames", 1)
        missed = sequence.samples.bits > 8 or seen != len(sequence.delays)
        return cls(
            "AVIF", sequence.delays, deep.avif_colour(sequence.samples.nclx), needs_ffmpeg=missed
        )


class AnimationSource:
    """The pictures of an animation as a source of frames, each composed as it is shown."""

    is_image = False
    sample_aspect = Fraction(1)
    orientation = Orientation()  # applied while converting
    origin = 0

    def __init__(
        self, data: bytes, name: str, frames: Frames, *, memory: int | None = None
    ) -> None:
        """Open an animation and decode its first picture.

        Args:
            data: the whole file.
            name: its name in messages.
            frames: the pictures that its container announces.
            memory: bytes that decoding may take; None is half of what is free.

        Raises:
            VideoError: it is damaged, too large, or takes too long.
        """
        self.name = name
        self._index = -1
        self._stack = ExitStack()
        try:
            with damage_reported(name):
                self._open(data, frames, memory)
                self._take(0)
        except BaseException:
            self.close()
            raise
        self.format = PixelFormat("rgb24", "rgb", 8, False)
        self.colour = frames.colour
        self.container = self.codec = "apng" if frames.fmt == "PNG" else frames.fmt.lower()
        self.width, self.height = self._frame.width, self._frame.height
        self._set_times(frames.delays)

    def _open(self, data: bytes, frames: Frames, memory: int | None) -> None:
        if frames.fmt == "PNG":
            data = png.without_metadata(data)
        picture.check_header(data, frames.fmt, self.name, memory)
        image = self._image = self._stack.enter_context(opened(data, frames.fmt))
        width, height = self._size = image.size
        count = len(frames.delays)
        check_size(self.name, image.size)
        needed = picture.needed_memory(image.size, image.mode, frames.fmt, len(data), animated=True)
        check_memory(self.name, picture.decoding_of(image.size), needed, memory)
        if count * width * height > max(_CHEAP_PIXELS, _PIXELS_PER_BYTE * len(data)):
            raise VideoError(
                f"{self.name}: {count} pictures of {width}x{height} pixels in {len(data)} bytes: "
                "decoding them would take far longer than such a file is worth; make a video of it"
            )
        # A default image before the animation is for programs that show none.
        announced = getattr(image, "n_frames", count) - getattr(image, "default_image", False)
        if announced > count:
            raise ValueError(f"{count} of the {announced} pictures that it announces are there")
        image.load()
        self.pixel_format = picture.pixel_format_of(image)
        self._turn = orientation_of(image)
        self._pictures = self._decoded(data, frames)

    def _set_times(self, delays: tuple[Fraction, ...]) -> None:
        shown = [delay if delay > 0 else Fraction(1, 10) for delay in delays]
        unit = _common_unit(shown)
        ends = list(itertools.accumulate(shown))
        self._begins = [round(begin / unit) for begin in (Fraction(0), *ends)]
        self.time_base = unit
        self.promised: tuple[int | None, Fraction | None] = (len(delays), ends[-1])
        rate = len(shown) / ends[-1]
        self.frame_rate = rate if rate <= _MAX_RATE else None

    @property
    def first(self) -> Timed[VideoFrame]:
        """The frame that iteration begins with."""
        begin, end = self._begins[self._index : self._index + 2]
        return Timed(self._frame, begin, max(1, end - begin))

    def seek(self, start: Fraction) -> None:
        """Go to the first picture shown `start` seconds after the first one or later.

        Raises:
            VideoError: there is none, or it is damaged.
        """
        target = start / self.time_base - Fraction(1, 2)
        index = next((i for i, at in enumerate(self._begins[:-1]) if at >= target), None)
        if index is None:
            length = float(self._begins[-1] * self.time_base)
            raise VideoError(
                f"{self.name}: nothing is left after {float(start):g} s, the clip is "
                f"{length:.3f} s long: choose an earlier start"
            )
        with damage_reported(self.name):
            self._take(index)

    def __iter__(self) -> Iterator[Timed[VideoFrame]]:
        """The frames from the point reached on; once."""
        yield self.first
        for index in range(self._index + 1, len(self._begins) - 1):
            with damage_reported(self.name):
                self._take(index)
            yield self.first

    def close(self) -> None:
        """Let go of the file's content."""
        self._pictures = iter(())
        self._stack.close()

    def _decoded(self, data: bytes, frames: Frames) -> Iterator[tuple[VideoFrame, bool]]:
        """The pictures in order, upright, and whether any of each was transparent."""
        compose = _COMPOSED.get(frames.fmt)
        if compose is None:
            for index in range(len(frames.delays)):
                self._image.seek(index)
                self._image.load()
                yield rgb_frame(self._image, self._turn)
            return
        for pixels, transparent in compose(data, self._size):
            frame, target = blank_frame(*self._size, 8, self._turn)
            target[...] = pixels
            yield frame, transparent

    def _take(self, index: int) -> None:
        """Decode up to one picture."""
        while self._index < index:
            decoded = next(self._pictures, None)
            if decoded is None:
                raise ValueError(f"picture {self._index + 1} is missing")
            self._frame, transparent = decoded
            self._index += 1
            if self._index == 0:
                self.notices = ["its alpha channel is composited onto black"] * transparent


def _common_unit(delays: list[Fraction]) -> Fraction:
    """The longest time base in which all delays are whole numbers, unless it is too short."""
    different = set(delays)
    unit = Fraction(
        math.gcd(*(delay.numerator for delay in different)),
        math.lcm(*(delay.denominator for delay in different)),
    )
    return unit if unit >= _FINEST_TIME_BASE else _FALLBACK_TIME_BASE
