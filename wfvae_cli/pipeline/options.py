"""Options of encoding and decoding: chunks, tiles, batches, and the stored posterior."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Literal

from wfvae_cli.errors import UsageError
from wfvae_cli.latents.header import LatentDtype
from wfvae_cli.latents.metadata import PosteriorKind
from wfvae_cli.latents.normalization import AppliedNormalization
from wfvae_cli.media.options import parse_seconds
from wfvae_cli.option import Option

Tile = int | Literal["auto", "off"]
"""Pixels of a tile's side; `auto` where nothing exact fits into memory; `off` never."""
Batch = int | Literal["auto"]
"""Clips that go through the model together; `auto` suits their size."""

_MODEL, _LATENTS = "Model", "Latents"
_FRAMES = "Which frames"


def parse_tile(text: str) -> Tile:
    """Pixels of a tile's side, or `auto`, or `off`."""
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    if not text.isdecimal():
        raise ValueError(f"expected auto, off or a number of pixels, got {text!r}")
    return int(text)


def parse_batch(text: str) -> Batch:
    """Clips of a batch, or `auto`."""
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise ValueError(f"expected a number or auto, got {text!r}")
    return int(text)


def check_batch(batch: Batch, tile: Tile) -> None:
    """Refuse impossible batch sizes.

    Raises:
        UsageError: the number is out of range, or tiles take clips one by one.
    """
    if batch != "auto" and not 1 <= batch <= 4096:
        raise UsageError(f"expected a batch of 1 to 4096 or auto, got {batch}")
    if batch != 1 and isinstance(tile, int):
        raise UsageError("--tile takes clips one by one: leave --batch out")


Chunk = Annotated[
    int | None,
    Option(
        "Frames that go through the model together, 1 + 4k (1 + 8k for 8x8x8 models). The result "
        "is the same for every size, to rounding; memory is not. Default: suits the resolution.",
        _MODEL,
        metavar="FRAMES",
    ),
]
TileOption = Annotated[
    Tile,
    Option(
        "Run the picture in overlapping tiles of so many pixels a side, blended: less memory, but "
        "not exact. auto: only where nothing exact fits into memory.",
        _MODEL,
        metavar="auto|off|PIXELS",
        flags=("--tile",),
        parse=parse_tile,
    ),
]
BatchOption = Annotated[
    Batch,
    Option(
        "The most clips and images of one shape that go through the model together; never more "
        "than keep the device busy, beyond which batches cost time.",
        _MODEL,
        metavar="N|auto",
        flags=("--batch",),
        parse=parse_batch,
    ),
]


@dataclass(frozen=True)
class EncodeOptions:
    """Options of the stored posterior, and of the chunks and tiles that it is encoded in."""

    posterior: Annotated[
        PosteriorKind,
        Option("Store the posterior's mean, a sample of it, or mean and log-variance.", _LATENTS),
    ] = "mean"
    seed: Annotated[
        int, Option("Of --posterior sample; each clip derives its own.", _LATENTS, metavar="N")
    ] = 0
    """Seed of the noise where `posterior` is `sample`; 0 to 2**63 - 1."""
    normalization: AppliedNormalization | None = None
    """Applied to the stored latents; None stores the model's own."""
    save_dtype: Annotated[LatentDtype, Option("What latents are stored as.", _LATENTS)] = "float32"
    chunk: Chunk = None
    """Frames of a clip's first chunk, `1 + k*stride`; None suits the resolution."""
    tile: TileOption = "auto"
    """Pixels of a tile's side, where the picture goes through in tiles, which is not exact."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Strings to keep in the file's header."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if self.normalization is not None and self.posterior == "moments":
            raise UsageError(
                "--normalize applies to a mean or a sample; moments stay as the model gives them"
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"expected a seed from 0 to 2**63 - 1, got {self.seed}")


@dataclass(frozen=True)
class ChunkOptions:
    """Size of the chunks and tiles that clips are cut into."""

    chunk: Chunk = None
    tile: TileOption = "auto"


@dataclass(frozen=True)
class DecodedPart:
    """Range of a clip's frames to write; earlier ones are decoded, since the model needs them."""

    start: Annotated[
        float,
        Option("Skip the beginning.", _FRAMES, metavar="SECONDS", parse=parse_seconds),
    ] = 0.0
    frames: Annotated[
        int | None, Option("Write at most this many frames.", _FRAMES, metavar="N", least=1)
    ] = None

    def __post_init__(self) -> None:
        """Refuse what is no part."""
        if not (math.isfinite(self.start) and self.start >= 0):
            raise UsageError(f"--start: expected at least 0 seconds, got {self.start}")
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"--frames: expected at least 1, got {self.frames}")

    def of(self, times: Sequence[Fraction], name: str) -> range:
        """Indices of the frames, given when each is shown, in seconds from 0.

        Raises:
            UsageError: the clip ends before.
        """
        first = next((i for i, time in enumerate(times) if time >= self.start), len(times))
        if first == len(times):
            raise UsageError(
                f"--start {self.start:g}: expected less than the length of {name}, whose last "
                f"frame is shown at {float(times[-1]):g} s"
            )
        end = len(times) if self.frames is None else min(len(times), first + self.frames)
        return range(first, end)


@dataclass(frozen=True)
class Limits:
    """Time limits after which a file counts as failed."""

    time: Annotated[
        float | None,
        Option(
            "Give up a file that takes longer to read and decode.",
            "Datasets: how",
            flags=("--time-limit",),
            metavar="SECONDS",
        ),
    ] = None
    """Its waiting for the model is not counted."""
    stall: Annotated[
        float | None,
        Option(
            "Give up a file that gives nothing for so long.",
            "Datasets: how",
            flags=("--stall-limit",),
            metavar="SECONDS",
        ),
    ] = 300.0

    def __post_init__(self) -> None:
        """Refuse limits that no file could keep."""
        for name, value in (("--time-limit", self.time), ("--stall-limit", self.stall)):
            if value is not None and not value > 0:  # nor NaN
                raise UsageError(f"{name} must be more than 0 seconds, got {value:g}")
