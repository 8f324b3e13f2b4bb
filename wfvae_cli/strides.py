"""Frames and latents: how many of one make how many of the other, and how clips are chunked.

A causal video VAE of temporal stride `s` maps `1 + s*k` frames to `1 + k` latent frames: the
first frame stands alone and every further latent frame covers `s` frames. Other models name the
lengths that they take in `ClipLengths`. A clip of another length is padded at the end with copies
of its last frame, a picture at its right and bottom with copies of its edge.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from wfvae_cli.errors import UsageError

_PROGRESSION = re.compile(r"([0-9]{1,9}) \+ ([0-9]{1,9})k")


@dataclass(frozen=True)
class Progression:
    """The lengths `first + step*k` for all k from 0, both numbers at least 1."""

    first: int
    step: int

    def __post_init__(self) -> None:
        """Refuse what is no progression."""
        if min(self.first, self.step) < 1:
            raise ValueError(f"expected numbers of at least 1, got {self}")

    @classmethod
    def multiples(cls, unit: int) -> Progression:
        """Give the multiples of `unit`."""
        return cls(unit, unit)

    @classmethod
    def parse(cls, text: str) -> Progression:
        """Read `22 + 17k`.

        Raises:
            ValueError: it is something else.
        """
        match = _PROGRESSION.fullmatch(text)
        if match is None:
            raise ValueError(f"expected two numbers such as 22 + 17k, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.first} + {self.step}k"

    @property
    def form(self) -> str:
        """How messages name the lengths: `1 + 4k`, or `any number of`."""
        return "any number of" if (self.first, self.step) == (1, 1) else str(self)

    def __contains__(self, length: int) -> bool:
        return length >= self.first and (length - self.first) % self.step == 0

    def at(self, k: int) -> int:
        """Give the length number `k`, from 0."""
        return self.first + self.step * k

    def number(self, length: int) -> int:
        """Give the number k of the shortest length that holds `length`."""
        return max(0, -(-(length - self.first) // self.step))

    def holding(self, length: int) -> int:
        """Give the shortest of the lengths that holds `length`."""
        return self.at(self.number(length))

    def nearest(self, length: int) -> int:
        """Give the length nearest to `length`; of two, the longer one."""
        return self.at(max(0, math.floor((length - self.first) / self.step + 0.5)))


@dataclass(frozen=True)
class ClipLengths:
    """Lengths of the clips that a model takes, and of what it makes of them, pair by pair."""

    frames: Progression
    latents: Progression

    @classmethod
    def causal(cls, stride: int) -> ClipLengths:
        """Give those of a causal model: `1 + stride*k` frames, and `1 + k` latent frames."""
        return cls(Progression(1, stride), Progression(1, 1))


@dataclass(frozen=True)
class Strides:
    """Numbers of pixels or frames that one latent position covers along each axis.

    With these go the lengths and sizes that a model takes.
    """

    time: int
    height: int
    width: int
    clips: ClipLengths | None = None
    """None where the model is causal."""
    # Latents of other sizes are latents all the same: headers do not have what follows.
    heights: Progression | None = field(default=None, compare=False)
    """Heights of pictures that the model takes; None for all multiples of the stride."""
    widths: Progression | None = field(default=None, compare=False)
    """Widths, likewise."""

    def __str__(self) -> str:
        return "x".join(map(str, self.values))

    @property
    def values(self) -> tuple[int, int, int]:
        """The strides of time, height and width."""
        return self.time, self.height, self.width

    @property
    def lengths(self) -> ClipLengths:
        """The lengths of clips that the model takes."""
        return self.clips or ClipLengths.causal(self.time)

    @property
    def clip_strings(self) -> dict[str, str]:
        """The lengths of clips as headers and JSON say them; empty where the model is causal."""
        if self.clips is None:
            return {}
        return {"clip_frames": str(self.clips.frames), "clip_latents": str(self.clips.latents)}

    def to_json(self) -> dict[str, int | str]:
        """Give the strides by their names, with the lengths of clips."""
        return {"time": self.time, "height": self.height, "width": self.width, **self.clip_strings}

    @property
    def sizes_form(self) -> str:
        """What the sizes of pictures are: `multiples of 8x8`, width first."""
        if self.heights is None and self.widths is None:
            return f"multiples of {self.width}x{self.height}"
        return f"({self._widths})x({self._heights})"

    @property
    def _heights(self) -> Progression:
        return self.heights or Progression.multiples(self.height)

    @property
    def _widths(self) -> Progression:
        return self.widths or Progression.multiples(self.width)

    def latent_frames(self, frames: int) -> int:
        """Latent frames that hold `frames` frames, at least 1."""
        return self.lengths.latents.at(self.lengths.frames.number(frames))

    def padded_frames(self, frames: int) -> int:
        """The shortest length of clips that holds `frames` frames."""
        return self.lengths.frames.holding(frames)

    def frames_of(self, latents: int) -> int:
        """Frames, padding included, that `latents` latent frames from a clip's begin hold."""
        return self.lengths.frames.at(self.lengths.latents.number(latents))

    def padded_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the smallest picture that holds one of `width` and `height`."""
        return self._widths.holding(width), self._heights.holding(height)

    def nearest(self, width: int, height: int, frames: int) -> tuple[int, int, int]:
        """Width, height and frames of the nearest clip that needs no padding."""
        return (
            self._widths.nearest(width),
            self._heights.nearest(height),
            self.lengths.frames.nearest(frames),
        )

    def latents_per_chunk(self, chunk: int) -> int:
        """Latent frames that each chunk after the first one holds, for a `--chunk` of frames.

        Args:
            chunk: frames in the first chunk, `1 + time*k` with `k >= 1`; every later chunk holds
                `time*k` frames, so that all but the first have the same shape. With a stride of 1,
                an image model, chunks are batches of any size, all alike.

        Raises:
            UsageError: `chunk` has another form.
        """
        if self.time == 1:
            if chunk < 1:
                raise UsageError(f"a chunk must hold at least 1 frame, got {chunk}")
            return chunk
        k, rest = divmod(chunk - 1, self.time)
        if rest or k < 1:
            near = 1 + self.time * max(1, round((chunk - 1) / self.time))
            raise UsageError(
                f"a chunk must hold 1 + {self.time}k frames (k >= 1) for this model, got {chunk}; "
                f"the nearest is {near}"
            )
        return k
