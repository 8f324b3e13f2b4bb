"""Draw clips of a dataset, and a window of frames of each, by a seed.

Every choice follows from the seed and the clip's name alone, by SHA-256: neither the order of
the files, nor the other files, nor the machine plays a part.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from wfvae_cli.errors import InputError, UsageError, VideoError
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.options import DATASET_IMAGE_MEMORY, Sampling
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.media.sampling import seconds
from wfvae_cli.stats.accumulate import file_identity
from wfvae_cli.strides import Strides
from wfvae_cli.unreadable import why_unreadable

_LATENTS = ".safetensors"


@dataclass(frozen=True)
class Source:
    """One clip of a dataset: a video, an image or a latent file."""

    path: str
    """Path to open; a URL that FFmpeg opens is possible for videos."""
    name: str
    """Name in reports, on which the draw depends: its path in the dataset."""
    sampling: Sampling = field(default_factory=Sampling)
    """Frames that count, and their size; the default for latent files."""
    hwaccel: str = "none"
    """Decoder of a video, as `open_clip` takes it."""
    begin: int = 0
    """Offset of the latent file in `path`, a tar shard, in bytes."""
    size: int | None = None
    """Bytes of a latent file in a tar shard; None where `path` is all of it."""

    @property
    def is_latents(self) -> bool:
        """True for stored latents, by the name."""
        return self.size is not None or self.path.lower().endswith(_LATENTS)

    def open_member(self) -> _Member:
        """Open a latent file in a tar shard.

        Raises:
            InputError: the shard cannot be read.
        """
        assert self.size is not None
        try:
            return _Member(self.path, self.name, self.begin, self.size)
        except OSError as error:
            why = why_unreadable(self.path, "a tar shard", error)
            raise InputError(f"{self.path}: {why}") from error

    def identity(self, window: str) -> str:
        """Give what tells the clip from all others, wherever it lies.

        Raises:
            InputError: the file cannot be read.
        """
        if "://" in self.path or "%" in self.path:
            return f"{self.path}|{window}"
        try:
            return file_identity(Path(self.path), window, self.begin, self.size)
        except OSError as error:
            why = why_unreadable(self.path, "a video, an image or a latent file", error)
            raise InputError(f"{self.path}: {why}") from error


class _Member(io.FileIO):
    """A part of a file, from front to back."""

    def __init__(self, path: str, name: str, begin: int, size: int) -> None:
        super().__init__(path)
        self.name = f"{path}, {name}"
        self._left = size
        self.seek(begin)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read on, at most to the part's end."""
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        data = super().read(wanted)
        self._left -= len(data)
        return data


@dataclass(frozen=True)
class Draw:
    """A random part of a dataset; the default is all of it."""

    limit: int | None = None
    """Clips to look at, a random subset where there are more."""
    sample_frames: int | None = None
    """Frames to take of each clip: a random window where there are more."""
    seed: int = 0
    until: float | None = None
    """Stop once every channel's mean and std are known to this share of its std (95%)."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        for name in ("limit", "sample_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} must be at least 1, got {value}")
        if self.until is not None and not 0 < self.until < 1:
            raise UsageError(f"--until must be between 0 and 1, or 0% and 100%, got {self.until:g}")

    def choose(self, sources: Sequence[Source]) -> Sequence[Source]:
        """Choose sources in order, or in random order where not all of them may be needed."""
        if self.until is None and (self.limit is None or self.limit >= len(sources)):
            return sources
        return sorted(sources, key=lambda source: self._number(source.name, "clip"))[: self.limit]

    def window(self, name: str, total: int, length: int) -> int:
        """Draw a window's start: 0 to `total - length`, all as likely."""
        return self._number(name, "window") * max(1, total - length + 1) >> 256

    def _number(self, name: str, purpose: str) -> int:
        """Hash a clip's name to a number of 256 bits, uniform over seeds."""
        digest = hashlib.sha256(f"{purpose}|{self.seed}|{name}".encode(errors="surrogatepass"))
        return int.from_bytes(digest.digest(), "big")


def open_window(source: Source, draw: Draw, *, threads: int = 0) -> tuple[ClipReader, str]:
    """Open a video or image at the window that is drawn of it.

    A window's place follows from the number of frames that the container promises. Where that
    is missing, or turns out too large, the window is the clip's beginning.

    Args:
        source: a file of this machine.
        draw: what is drawn.
        threads: of the decoder; 0 lets FFmpeg choose.

    Returns:
        The reader, and the clip's identity, window included.

    Raises:
        InputError: it cannot be read.
        UsageError: the sampling asks for the impossible.
    """
    sampling = source.sampling
    if draw.sample_frames is not None:
        with open_clip(source.path, sampling, threads=1) as reader:
            window = _window(source, draw, reader.info)
        if window.start > sampling.start:
            with contextlib.suppress(VideoError):
                return _open(source, window, threads)
            window = replace(sampling, frames=window.frames)
        sampling = window
    return _open(source, sampling, threads)


def latent_window(name: str, draw: Draw, total: int, strides: Strides) -> tuple[int, int]:
    """Draw the window of a latent file, in latent frames: as many as hold the frames of a window.

    Args:
        name: of the clip.
        draw: what is drawn.
        total: latent frames in the file.
        strides: of the model that made it.

    Returns:
        Begin and end.
    """
    if draw.sample_frames is None:
        return 0, total
    length = min(total, strides.latent_frames(draw.sample_frames))
    begin = draw.window(name, total, length)
    return begin, begin + length


def _open(source: Source, sampling: Sampling, threads: int) -> tuple[ClipReader, str]:
    reader = open_clip(
        source.path,
        sampling,
        threads=threads,
        hwaccel=source.hwaccel,
        image_memory=DATASET_IMAGE_MEMORY,
    )
    try:
        return reader, source.identity(_part(sampling))
    except BaseException:
        reader.close()
        raise


def dataset_options(sources: Sequence[Source], draw: Draw) -> dict[str, Any]:
    """Give what reports must agree on to be merged: what was done to the frames of all clips."""
    options: dict[str, Any] = {}
    media = [source.sampling for source in sources if not source.is_latents]
    for name, default in ((each.name, each.default) for each in fields(Sampling)):
        found = {getattr(sampling, name) for sampling in media}
        # Manifests give parts of clips of their own; those are in the clips' identities.
        if len(found) == 1 and (value := found.pop()) != default:
            options[name] = value if isinstance(value, int | float | str) else str(value)
    if sizes := {sampling.size for sampling in media} - {None}:
        options["size"] = ", ".join(
            f"{size[0]}x{size[1]}" for size in sorted(sizes, key=str) if size
        )
    if options.get("size") is None:
        options.pop("fit", None)
    else:
        options.setdefault("fit", Sampling().fit)
    if draw.sample_frames is not None:
        options["sample_frames"] = draw.sample_frames
    return options


def _window(source: Source, draw: Draw, info: ClipInfo) -> Sampling:
    """The part of a clip that is drawn, as a sampling of its own."""
    assert draw.sample_frames is not None
    sampling = source.sampling
    length = min(draw.sample_frames, sampling.frames or draw.sample_frames)
    skipped = Fraction(0)
    if info.frames is not None and info.frame_rate is not None:
        skipped = draw.window(source.name, info.frames, length) / info.frame_rate
    rest = sampling.duration
    if rest is not None and skipped:
        rest = max(float(seconds(rest) - skipped), float(1 / (info.frame_rate or 1)))
    start = float(seconds(sampling.start) + skipped)
    return replace(sampling, start=start, duration=rest, frames=length)


def _part(sampling: Sampling) -> str:
    """Describe the part of a clip that a sampling takes; nothing for all of it."""
    fields = (sampling.start, sampling.duration, sampling.frames, sampling.fps)
    return "" if fields == (0, None, None, None) else "|".join(map(str, fields))
