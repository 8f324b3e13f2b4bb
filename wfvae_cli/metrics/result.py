"""Results: scores of a frame, a clip, and many files. Loads neither torch nor av."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from wfvae_cli.media.clip import Bits

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

FRAME_METRICS = ("psnr", "ssim", "ms_ssim", "flicker_psnr", "lpips")
"""Names of the scores that every frame has, as fields of `FrameScores` and `ClipResult`."""
CLIP_METRICS = ("psnr", "psnr_mse", "ssim", "ms_ssim", "flicker_psnr", "lpips")
"""Names of the scores that every clip has, as fields of `ClipResult`."""
LABELS = {
    "psnr": "PSNR",
    "psnr_mse": "PSNR of all",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "flicker_psnr": "flicker PSNR",
    "lpips": "LPIPS",
}
"""Names of the scores in tables, plots and pages."""


def json_number(value: float | None) -> float | str | None:
    """A score as JSON can hold it: infinity, which JSON lacks, as the string `"inf"`."""
    return "inf" if value == math.inf else value


@dataclass(frozen=True, slots=True)
class FrameScores:
    """Scores of one frame; None where a score is not defined or was not asked for."""

    index: int
    """Position in the clip, from 0."""
    psnr: float
    """dB; inf for identical frames."""
    ssim: float | None = None
    ms_ssim: float | None = None
    flicker_psnr: float | None = None
    """dB, of the change since the frame before; None for the first frame."""
    lpips: float | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """One object of a report's `per_frame` list."""
        scores: dict[str, JsonValue] = {
            name: json_number(getattr(self, name)) for name in FRAME_METRICS
        }
        return {"index": self.index, **scores}


@dataclass(frozen=True)
class ClipResult:
    """Scores of one clip: means over its frames, unless said otherwise."""

    frames: int
    width: int
    height: int
    bits: Bits
    """Depth at which the frames were compared; the data range is `2**bits - 1`."""
    psnr: float
    """dB; mean over the frames that differ, inf if none does."""
    psnr_mse: float
    """dB; of the mean squared error of the whole clip."""
    ssim: float | None
    ms_ssim: float | None
    flicker_psnr: float | None
    lpips: float | None
    identical_frames: int
    """Frames of infinite PSNR, which `psnr` leaves out."""
    worst_frame: FrameScores
    """The frame of lowest PSNR, the first of several."""
    per_frame: tuple[FrameScores, ...]

    def to_json(self, *, per_frame: bool = False) -> dict[str, JsonValue]:
        """The result as one JSON object.

        Args:
            per_frame: add the list `per_frame`, an object for every frame.
        """
        scores: dict[str, JsonValue] = {
            name: json_number(getattr(self, name)) for name in CLIP_METRICS
        }
        out: dict[str, JsonValue] = {
            "frames": self.frames,
            "width": self.width,
            "height": self.height,
            "bits": self.bits,
            **scores,
            "identical_frames": self.identical_frames,
            "worst_frame": self.worst_frame.to_json(),
        }
        if per_frame:
            out["per_frame"] = [frame.to_json() for frame in self.per_frame]
        return out


@dataclass(frozen=True)
class FileResult:
    """Scores of one pair of many; `name` is the original's relative path."""

    name: str
    result: ClipResult


@dataclass(frozen=True)
class FailedFile:
    """A file that could not be compared, and why."""

    name: str
    error: str


@dataclass(frozen=True)
class Summary:
    """One score over many files. Percentiles interpolate linearly between files."""

    mean: float
    """Over the finite values; inf if there is none."""
    median: float
    p5: float
    p95: float

    def to_json(self) -> dict[str, JsonValue]:
        """The summary as a JSON object."""
        return {
            "mean": json_number(self.mean),
            "median": json_number(self.median),
            "p5": json_number(self.p5),
            "p95": json_number(self.p95),
        }


@dataclass(frozen=True)
class Comparison:
    """Scores of many pairs of files; every file counts the same, however long it is."""

    files: tuple[FileResult, ...]
    """At least one."""
    failed: tuple[FailedFile, ...]
    """Files that were skipped; the exit code is 7 if there are any."""

    @property
    def summaries(self) -> dict[str, Summary]:
        """A summary of every score that at least one file has, by its name."""
        columns = {
            name: [
                value for file in self.files if (value := getattr(file.result, name)) is not None
            ]
            for name in CLIP_METRICS
        }
        return {name: summarise(values) for name, values in columns.items() if values}

    def worst(self, count: int) -> tuple[FileResult, ...]:
        """The `count` files of lowest PSNR, worst first."""
        return tuple(sorted(self.files, key=lambda file: file.result.psnr)[:count])

    def to_json(self, *, per_frame: bool = False, worst: int = 5) -> dict[str, JsonValue]:
        """The comparison as one JSON object, the means over files at the top level.

        Args:
            per_frame: add every file's list `per_frame`.
            worst: how many names `worst_files` holds at most.
        """
        summaries = self.summaries
        means: dict[str, JsonValue] = {
            name: json_number(summaries[name].mean) if name in summaries else None
            for name in CLIP_METRICS
        }
        return {
            "files": len(self.files),
            "frames": sum(file.result.frames for file in self.files),
            **means,
            "summary": {name: summary.to_json() for name, summary in summaries.items()},
            "worst_files": [file.name for file in self.worst(worst)],
            "per_file": [
                {"name": file.name, **file.result.to_json(per_frame=per_frame)}
                for file in self.files
            ],
            "failed": [{"name": file.name, "error": file.error} for file in self.failed],
        }


def finite_mean(values: Iterable[float | None]) -> float | None:
    """Mean of the finite values; inf if all are infinite, None if there are none.

    One identical frame, such as a black one, would otherwise make a clip's PSNR infinite and
    hide what all others lost.
    """
    present = [value for value in values if value is not None]
    if not present:
        return None
    finite = [value for value in present if value != math.inf]
    return math.fsum(finite) / len(finite) if finite else math.inf


def summarise(values: Sequence[float]) -> Summary:
    """Mean, median, 5th and 95th percentile of at least one value, of which some may be inf."""
    mean = finite_mean(values)
    assert mean is not None
    ordered = sorted(values)
    median, p5, p95 = (_percentile(ordered, share) for share in (0.5, 0.05, 0.95))
    return Summary(mean, median, p5, p95)


def _percentile(ordered: Sequence[float], share: float) -> float:
    """NumPy's linear percentile, except that inf beside inf gives inf rather than NaN."""
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return low if low == high or position == below else low + (high - low) * (position - below)
