"""Figures of each clip's numbers and of all together, and which clips stand out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.errors import WfvaeError

LOADER_LIMIT = 1000.0
"""Values beyond it make DFM's loader drop the clip."""
_OUTLIER = 8.0
"""Robust standard deviations from the median of all clips."""
_FEWEST = 8
"""Clips that it takes to call one an outlier."""
_LOGVAR = (-30.0, 20.0)
"""Limits that every family clamps log-variances to, as the first latent diffusion model did."""
_NEAR = math.log(1.5)
"""Distance of the logarithms of two aspects within which a bucket fits a source."""
_MAD_TO_STD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True)
class ClipFigures:
    """Figures of one clip's numbers; per channel, of the finite ones."""

    entry: CacheEntry
    nan: int = 0
    infinite: int = 0
    count: int = 0
    """Finite values in each channel, at most."""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    largest: float = 0.0
    problems: tuple[str, ...] = ()
    outlier: str | None = None
    """Reasons why this clip stands out."""


@dataclass
class CacheFigures:
    """Mean and standard deviation of each channel over all clips of a number of channels."""

    channels: int
    clips: int = 0
    _count: int = 0
    _sum: Tensor = field(init=False)
    _square: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Start with no clip."""
        self._sum = torch.zeros(self.channels, dtype=torch.float64)
        self._square = torch.zeros(self.channels, dtype=torch.float64)

    def add(self, clip: ClipFigures) -> None:
        """Take in a clip; those with NaN count with their finite values."""
        mean = torch.tensor(clip.mean, dtype=torch.float64)
        std = torch.tensor(clip.std, dtype=torch.float64)
        self._sum += clip.count * mean
        self._square += clip.count * (std**2 + mean**2)
        self._count += clip.count
        self.clips += 1

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel."""
        return tuple((self._sum / self._count).tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, of the population."""
        mean = self._sum / self._count
        return tuple((self._square / self._count - mean**2).clamp(min=0).sqrt().tolist())


def measure(entry: CacheEntry, channels: int | None) -> ClipFigures:
    """Read a clip and take its figures.

    Args:
        entry: of a cache.
        channels: of the model's latents, where the model is known.
    """
    problems = list(entry.problems)
    if entry.read is None:
        return ClipFigures(entry, problems=tuple(problems))
    try:
        latents = entry.read().float()
    except (WfvaeError, OSError) as error:
        return ClipFigures(entry, problems=(*problems, f"cannot be read: {error}"))
    found, size = latents.size(0), latents.size(1)
    if channels is not None and found != channels:
        if size == channels:
            latents = latents.transpose(0, 1)
            problems.append(
                f"channels and time are transposed: expected [{channels}, T, H, W], got "
                f"{list(entry.shape)}"
            )
        else:
            problems.append(f"expected the model's {channels} channels, got {found}")
    finite = latents.isfinite()
    nan, bad = int(latents.isnan().sum()), int((~finite).sum())
    if bad:
        problems.append(f"{nan} NaN and {bad - nan} infinities")
        latents = latents.where(finite, torch.zeros(()))
    mean, std = _moments(latents, finite)
    largest = float(latents.abs().max())
    if not bad and not any(std):
        problems.append("all values of each channel are equal")
    if largest > LOADER_LIMIT:
        problems.append(f"values up to {largest:.4g}: loaders drop what is beyond {LOADER_LIMIT:g}")
    problems += _logvar_problems(entry)
    count = int(finite.flatten(1).sum(1).max())
    return ClipFigures(entry, nan, bad - nan, count, mean, std, largest, problems=tuple(problems))


def _logvar_problems(entry: CacheEntry) -> list[str]:
    """Say what is wrong with a log-variance that is stored beside the mean."""
    if entry.read_logvar is None:
        return []
    try:
        logvar = entry.read_logvar().float()
    except (WfvaeError, OSError) as error:
        return [f"its log-variance cannot be read: {error}"]
    bad = int((~logvar.isfinite()).sum())
    if bad:
        return [f"{bad} of its log-variances are NaN or infinite"]
    low, high = _LOGVAR
    if float(logvar.min()) < low or float(logvar.max()) > high:
        return [
            f"log-variances from {float(logvar.min()):.4g} to {float(logvar.max()):.4g}: models "
            f"give {low:g} to {high:g}"
        ]
    return []


def _moments(latents: Tensor, finite: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    values, kept = latents.flatten(1).double(), finite.flatten(1)
    count = kept.sum(1).clamp(min=1)
    mean = values.sum(1) / count
    square = ((values - mean[:, None]) ** 2 * kept).sum(1) / count
    return tuple(mean.tolist()), tuple(square.sqrt().tolist())


def find_outliers(clips: Sequence[ClipFigures]) -> dict[str, str]:
    """Name the clips whose scale or offset lies far from that of all others.

    A cache of one dataset has clips alike: one whose standard deviation or mean is beyond 8 robust
    standard deviations was made from something else, or is black.

    Returns:
        Why, by the clip's name.
    """
    usable = [clip for clip in clips if clip.count and any(clip.std)]
    if len(usable) < _FEWEST:
        return {}
    tests: tuple[tuple[str, Callable[[ClipFigures], float]], ...] = (
        ("standard deviation", lambda clip: math.log(max(_level(clip.std), 1e-12))),
        ("mean", lambda clip: sum(clip.mean) / len(clip.mean)),
        ("largest value", lambda clip: math.log(max(clip.largest, 1e-12))),
    )
    found: dict[str, str] = {}
    for what, figure in tests:
        values = torch.tensor([figure(clip) for clip in usable], dtype=torch.float64)
        centre = values.median()
        spread = max(float((values - centre).abs().median()) * _MAD_TO_STD, 1e-3)
        for clip, value in zip(usable, values.tolist(), strict=True):
            distance = abs(value - float(centre)) / spread
            if distance > _OUTLIER:
                found.setdefault(
                    clip.entry.name, f"its {what} is {distance:.0f} deviations from the others'"
                )
    return found


def find_mixed_shapes(entries: Sequence[CacheEntry]) -> dict[str, str]:
    """Name clips that a trainer puts into one batch and that are not of one shape.

    musubi-tuner picks the bucket by the size and frames in the name, so that clips with the same
    must have the same latents.

    Returns:
        What is wrong, by the clip's name.
    """
    shapes: dict[tuple[object, ...], CacheEntry] = {}
    found: dict[str, str] = {}
    for entry in entries:
        if entry.format != "musubi-tuner" or entry.source_size is None or entry.read is None:
            continue
        first = shapes.setdefault((entry.source_size, entry.frames), entry)
        if first.shape != entry.shape:
            found[entry.name] = (
                f"{list(entry.shape)}, but {first.name} of the same size and frames is "
                f"{list(first.shape)}: they cannot be in one batch"
            )
    return found


def find_misfits(entries: Sequence[CacheEntry]) -> dict[str, str]:
    """Name clips of musubi-tuner whose latents have not the aspect that their names promise.

    The trainer picks the bucket by the source's size in the name. A dataset without buckets, or
    with few, crops clips of any aspect to what there is: only latents for which the cache has a
    nearer shape of as many frames, or that fit no clip and would if they were turned, are wrong.

    Returns:
        What is wrong, by the clip's name.
    """
    clips: list[tuple[CacheEntry, float, float]] = []
    for entry in entries:
        size, grid = entry.source_size, entry.grid
        if entry.format == "musubi-tuner" and size is not None and grid is not None:
            clips.append((entry, size[0] / size[1], grid[3] / grid[2]))
    shapes = {(entry.grid[1], aspect) for entry, _, aspect in clips if entry.grid}
    fitting = {aspect for _, source, aspect in clips if _between(source, aspect) < _NEAR}
    found: dict[str, str] = {}
    for entry, source, aspect in clips:
        distance = _between(source, aspect)
        is_turned = aspect not in fitting and _between(source, 1 / aspect) < _NEAR
        assert entry.grid is not None and entry.source_size is not None
        own = [other for frames, other in shapes if frames == entry.grid[1]]
        is_nearest = all(distance <= _between(source, other) + 1e-9 for other in own)
        if distance < _NEAR or (is_nearest and not is_turned):
            continue
        found[entry.name] = (
            f"latents of {entry.grid[3]}x{entry.grid[2]} do not fit a source of "
            f"{entry.source_size[0]}x{entry.source_size[1]}: "
            + (
                "height and width are transposed"
                if is_turned
                else "the trainer picks the bucket by the name, and the cache has a nearer shape"
            )
        )
    return found


def _between(one: float, other: float) -> float:
    return abs(math.log(one / other))


def _level(std: tuple[float, ...]) -> float:
    return math.sqrt(sum(each**2 for each in std) / len(std))
