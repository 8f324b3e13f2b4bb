"""Metadata of a latent file: everything that decoding or training needs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from wfvae_cli.errors import LatentError
from wfvae_cli.latents.normalization import AppliedNormalization
from wfvae_cli.latents.strings import LARGEST_TERM, Strings, clean_text, format_value, require
from wfvae_cli.strides import ClipLengths, Progression, Strides

SCHEMA = "wfvae-latents"
SCHEMA_VERSION = 1

PosteriorKind = Literal["mean", "sample", "moments"]
"""Stored part of the posterior: its mean, one sample, or mean and log-variance."""

_POSTERIORS: tuple[PosteriorKind, ...] = ("mean", "sample", "moments")
_BITS: tuple[Literal[8, 16], ...] = (8, 16)
_RANGES: tuple[Literal["tv", "pc"], ...] = ("tv", "pc")
_EXTRA_PREFIX = "extra."
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_STRIDE = 1024
_LARGEST_RATE_TERM = 2**31 - 1
LONGEST_HOLD = Fraction(24 * 60 * 60)
"""Maximum duration of one frame in seconds, which keeps times far from 64 bits."""


@dataclass(frozen=True)
class LatentMetadata:
    """The header's metadata of one latent file.

    A writer is given one with `frames` and `pad_frames` still 0, since only the end of a clip
    tells its length; a file never has them so.

    Raises:
        LatentError: a field is out of its range or contradicts another; the message names it.
    """

    model: str
    """Name that the user gave for the model that made the latents."""
    model_sha256: str
    """SHA-256 of its weights, 64 lower-case hexadecimal digits."""
    family: str
    """Its architecture: `wfvae`, `wan`, …"""
    strides: Strides
    """Frames and pixels that one latent position covers."""
    channels: int
    """Latent channels (Z)."""
    width: int
    """Pixels of the clip, before padding."""
    height: int
    """Pixels of the clip, before padding."""
    frames: int = 0
    """Frames of the clip, before padding."""
    pad_right: int = 0
    """Pixels by which the right edge was repeated before encoding."""
    pad_bottom: int = 0
    """Pixels by which the bottom edge was repeated before encoding."""
    pad_frames: int = 0
    """Times that the last frame was repeated before encoding."""
    posterior: PosteriorKind = "mean"
    seed: int | None = None
    """Seed of the noise, exactly where `posterior` is `sample`; 0 to 2**63 - 1."""
    normalization: AppliedNormalization | None = None
    """Normalisation of the stored latents; None where they are the model's own, as moments are."""
    compute_dtype: str = "float32"
    """Type that the model computed in, such as `float32`, `tf32` or `bfloat16`."""
    tile: int | None = None
    """Pixels of the side of the overlapping tiles that were encoded; None for whole pictures."""
    frame_rate: Fraction | None = None
    """Nominal frames per second; None for images and streams without one."""
    time_base: Fraction = Fraction(1)
    """Seconds per unit of `pts`."""
    start: Fraction = Fraction(0)
    """Seconds on the source container's timeline at which the first frame is shown."""
    last_duration: Fraction | None = None
    """Seconds that the last frame is shown, where that is not what its rate or the frames before
    it say; above 0, at most a day."""
    sample_aspect: Fraction = Fraction(1)
    """Width of a pixel over its height."""
    bits: Literal[8, 16] = 8
    """Bits of a sample as it was read."""
    source_bits: int = 8
    """Bits of a sample in the source file."""
    colour_matrix: str = "bt709"
    """YUV matrix of the source, in FFmpeg's names as the three below."""
    colour_range: Literal["tv", "pc"] = "tv"
    colour_primaries: str = "unknown"
    colour_transfer: str = "unknown"
    pixel_format: str = ""
    """FFmpeg's name of the source's pixel format."""
    is_image: bool = False
    """True where the source was a still image."""
    source: str = ""
    """The source file's name, without its directory."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further strings that travel with the latents, such as what resuming compares."""

    def __post_init__(self) -> None:
        """Check every field that has a range, and every pair that must agree."""
        for name, stride in zip(_STRIDE_KEYS, self.strides.values, strict=True):
            require(1 <= stride <= _LARGEST_STRIDE, name, f"1 to {_LARGEST_STRIDE}", stride)
        for name in ("channels", "width", "height"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.tile is None or self.tile >= 1, "tile", "at least 1", self.tile)
        for name in ("frames", "pad_right", "pad_bottom", "pad_frames"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("model", "family", "compute_dtype"):
            require(bool(getattr(self, name)), name, "a name", "")
        require(
            bool(_SHA256.fullmatch(self.model_sha256)),
            "model_sha256",
            "64 lower-case hexadecimal digits",
            self.model_sha256[:80],
        )
        self._check_grid()
        self._check_posterior()
        self._check_clip()

    def _check_grid(self) -> None:
        width, height = self.width + self.pad_right, self.height + self.pad_bottom
        frames = self.frames + self.pad_frames
        lengths = self.strides.lengths.frames
        require(
            width % self.strides.width == 0,
            "pad_right",
            f"width and padding to be a multiple of {self.strides.width}",
            f"{self.width} + {self.pad_right}",
        )
        require(
            height % self.strides.height == 0,
            "pad_bottom",
            f"height and padding to be a multiple of {self.strides.height}",
            f"{self.height} + {self.pad_bottom}",
        )
        require(
            frames == 0 or (self.frames > 0 and frames in lengths),
            "pad_frames",
            f"frames and padding to be {lengths}",
            f"{self.frames} + {self.pad_frames}",
        )

    def _check_posterior(self) -> None:
        require(self.posterior in _POSTERIORS, "posterior", f"one of {_POSTERIORS}", self.posterior)
        if self.posterior == "sample":
            require(
                self.seed is not None and 0 <= self.seed < 2**63,
                "seed",
                "0 to 2**63 - 1",
                self.seed,
            )
        else:
            require(self.seed is None, "seed", f"none for posterior {self.posterior}", self.seed)
        if self.normalization is not None:
            require(
                self.posterior != "moments",
                "normalization",
                "none for posterior moments",
                self.normalization.source,
            )
            shift, scale = self.normalization.shift, self.normalization.scale
            for name, values in (("shift", shift), ("scale", scale)):
                require(
                    len(values) == self.channels,
                    name,
                    f"{self.channels} values, one per channel",
                    f"{len(values)} values",
                )
                require(all(map(math.isfinite, values)), name, "finite values", "others")
            require(all(scale), "scale", "no zero", "one")
            require(
                self.normalization.source not in ("", "none"),
                "normalization",
                "where the values come from",
                self.normalization.source,
            )

    def _check_clip(self) -> None:
        hold = self.last_duration
        require(hold is None or hold <= LONGEST_HOLD, "last_duration", "at most a day", hold)
        for name in ("frame_rate", "time_base", "sample_aspect", "last_duration"):
            value = getattr(self, name)
            require(value is None or value > 0, name, "above 0", value)
        for name, largest, what in (
            ("frame_rate", _LARGEST_RATE_TERM, "32-bit"),  # FFmpeg's AVRational
            ("time_base", _LARGEST_RATE_TERM, "32-bit"),
            ("sample_aspect", _LARGEST_RATE_TERM, "32-bit"),
            ("start", LARGEST_TERM, "64-bit"),
            ("last_duration", LARGEST_TERM, "64-bit"),
        ):
            value = getattr(self, name) or Fraction(0)
            fits = max(abs(value.numerator), value.denominator) <= largest
            require(fits, name, f"a fraction of {what} integers", value)
        require(self.bits in _BITS, "bits", "8 or 16", self.bits)
        require(1 <= self.source_bits <= 32, "source_bits", "1 to 32", self.source_bits)
        require(self.colour_range in _RANGES, "colour_range", "tv or pc", self.colour_range)
        for name, text in self.extra.items():
            require(
                clean_text(name + text, keep_controls=True) == name + text,
                f"{_EXTRA_PREFIX}{name}",
                "valid Unicode",
                text[:80],
            )

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """The shape `[Z, T', H', W']` of this clip's latents."""
        return (
            self.channels,
            self.strides.latent_frames(self.frames + self.pad_frames),
            (self.height + self.pad_bottom) // self.strides.height,
            (self.width + self.pad_right) // self.strides.width,
        )

    def to_strings(self) -> dict[str, str]:
        """The metadata as safetensors stores it; control characters in names are replaced."""
        if self.frames < 1:
            raise ValueError("metadata of a clip whose length is not known cannot be written")
        values: dict[str, str | int | bool | Fraction | None] = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            **dict(zip(_STRIDE_KEYS, self.strides.values, strict=True)),
            **self.strides.clip_strings,
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
            "normalization": "none",
        }
        if self.normalization is not None:
            values["normalization"] = self.normalization.source
            values["shift"] = json.dumps(self.normalization.shift)
            values["scale"] = json.dumps(self.normalization.scale)
        strings = {name: format_value(value) for name, value in values.items() if value is not None}
        return strings | {_EXTRA_PREFIX + name: text for name, text in self.extra.items()}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str]) -> LatentMetadata:
        """Read the metadata back. Keys that this version does not know are left aside.

        Raises:
            LatentError: another schema or version, or a field that is missing or garbled.
        """
        parse = Strings(strings)
        _check_schema(parse)
        return cls(
            model=parse.text("model"),
            model_sha256=parse.text("model_sha256"),
            family=parse.text("family"),
            strides=_parse_strides(parse, strings),
            channels=parse.integer("channels"),
            width=parse.integer("width"),
            height=parse.integer("height"),
            frames=parse.integer("frames", least=1),
            pad_right=parse.integer("pad_right"),
            pad_bottom=parse.integer("pad_bottom"),
            pad_frames=parse.integer("pad_frames"),
            posterior=parse.choice("posterior", _POSTERIORS),
            seed=parse.integer("seed") if "seed" in strings else None,
            normalization=_parse_normalization(parse),
            compute_dtype=parse.text("compute_dtype"),
            tile=parse.integer("tile", least=1) if "tile" in strings else None,
            frame_rate=parse.fraction("frame_rate") if "frame_rate" in strings else None,
            time_base=parse.fraction("time_base"),
            start=parse.fraction("start"),
            last_duration=parse.fraction("last_duration") if "last_duration" in strings else None,
            sample_aspect=parse.fraction("sample_aspect"),
            bits=parse.choice("bits", _BITS),
            source_bits=parse.integer("source_bits"),
            colour_matrix=parse.text("colour_matrix"),
            colour_range=parse.choice("colour_range", _RANGES),
            colour_primaries=parse.text("colour_primaries"),
            colour_transfer=parse.text("colour_transfer"),
            pixel_format=parse.text("pixel_format"),
            is_image=parse.choice("is_image", ("true", "false")) == "true",
            source=parse.text("source"),
            extra={
                name.removeprefix(_EXTRA_PREFIX): text
                for name, text in strings.items()
                if name.startswith(_EXTRA_PREFIX)
            },
        )


_STRIDE_KEYS = ("stride_time", "stride_height", "stride_width")
_PLAIN_FIELDS = tuple(
    name
    for name in LatentMetadata.__dataclass_fields__
    if name not in ("strides", "normalization", "extra")
)
"""Fields that are one string under their own name."""


def _check_schema(strings: Strings) -> None:
    schema = strings.text("schema")
    require(schema == SCHEMA, "schema", repr(SCHEMA), repr(schema[:80]))
    version = strings.integer("schema_version")
    if version != SCHEMA_VERSION:
        raise LatentError(
            f"latent metadata has schema version {version}, but this wfvae reads version "
            f"{SCHEMA_VERSION}: upgrade wfvae, or encode the source again"
        )


def _parse_strides(parse: Strings, strings: Mapping[str, str]) -> Strides:
    """Read the strides, and the lengths of clips that only models that are not causal record."""
    clips = None
    if "clip_frames" in strings:
        clips = ClipLengths(*(_progression(parse, key) for key in ("clip_frames", "clip_latents")))
    time, height, width = (parse.integer(name) for name in _STRIDE_KEYS)
    return Strides(time, height, width, clips)


def _progression(parse: Strings, name: str) -> Progression:
    text = parse.text(name)
    try:
        found = Progression.parse(text)
    except ValueError:
        raise LatentError(
            f"latent metadata: {name!r} should be two numbers such as '22 + 17k', got {text[:80]!r}"
        ) from None
    largest = max(found.first, found.step)
    require(largest <= _LARGEST_STRIDE, name, f"of numbers up to {_LARGEST_STRIDE}", text)
    return found


def _parse_normalization(strings: Strings) -> AppliedNormalization | None:
    source = strings.text("normalization")
    if source == "none":
        return None
    return AppliedNormalization(strings.numbers("shift"), strings.numbers("scale"), source)
