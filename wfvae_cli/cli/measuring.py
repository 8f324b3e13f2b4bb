"""Options for metrics that `compare` and `roundtrip` share, and the outputs of their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.output import Overwrite
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.option import Option

if TYPE_CHECKING:
    from wfvae_cli.metrics.clip import ClipMetrics
    from wfvae_cli.metrics.compare import Measures
    from wfvae_cli.metrics.result import ClipResult, Comparison, JsonValue
    from wfvae_cli.metrics.stills import WorstFrames

_METRICS, _OUT = "Metrics", "Output"


@dataclass(frozen=True)
class Learned:
    """Which learned metrics are wanted, and where their weights are."""

    lpips: Annotated[
        bool, Option("LPIPS too, a learned perceptual distance (extra metrics).", _METRICS)
    ] = False
    lpips_net: Annotated[Literal["alex", "vgg"], Option("Backbone of LPIPS.", _METRICS)] = "alex"
    lpips_weights: Annotated[
        Path | None,
        Option(
            "LPIPS with this torchvision .pth of the backbone: no download.",
            _METRICS,
            metavar="FILE",
        ),
    ] = None
    fid: Annotated[
        bool,
        Option(
            "FID (rFID) over all frames: Inception v3 of torch-fidelity (extra metrics).", _METRICS
        ),
    ] = False
    fid_weights: Annotated[
        Path | None,
        Option(
            "FID with torch-fidelity's .pth, or another extractor as TorchScript: no download.",
            _METRICS,
            metavar="FILE",
        ),
    ] = None
    fvd_weights: Annotated[
        Path | None,
        Option(
            "FVD-style distance over windows of 16 frames with this extractor as TorchScript, such "
            "as i3d_torchscript.pt. TorchScript is code and runs as such.",
            _METRICS,
            metavar="FILE",
        ),
    ] = None

    def measures(self, device: str, *, ms_ssim: bool) -> Measures:
        """Load what is wanted, so that what is missing shows before any frame is read.

        Raises:
            MissingExtraError: the extra `metrics` is not installed.
            WeightsError: weights cannot be had.
        """
        from wfvae_cli.metrics.compare import Measures, SetMetric

        lpips = None
        distances: list[SetMetric] = []
        if not (self.lpips or self.lpips_weights or self.fid or self.fid_weights) and (
            self.fvd_weights is None
        ):
            return Measures(ms_ssim=ms_ssim)

        from wfvae_cli.metrics.frechet import clip_fvd, inception_fid
        from wfvae_cli.metrics.lpips import Lpips
        from wfvae_cli.models.load import resolve_device

        placed = resolve_device(device)
        if self.lpips or self.lpips_weights is not None:
            lpips = Lpips(net=self.lpips_net, weights=self.lpips_weights, device=placed)
        if self.fid or self.fid_weights is not None:
            distances.append(inception_fid(self.fid_weights, device=placed))
        if self.fvd_weights is not None:
            distances.append(clip_fvd(self.fvd_weights, device=placed))
        return Measures(ms_ssim=ms_ssim, lpips=lpips, distances=tuple(distances))


Report = Annotated[
    Path | None,
    Option(
        "Write all scores: *.json holds every frame, *.csv a row per frame, or per file of "
        "directories.",
        _OUT,
        metavar="FILE",
        common=True,
    ),
]
Plot = Annotated[
    Path | None,
    Option(
        "Draw the scores of every frame, or of every file of directories: *.png, *.svg or *.pdf.",
        _OUT,
        metavar="FILE.png",
        common=True,
    ),
]
Worst = Annotated[
    tuple[int, Path] | None,
    Option(
        "Write the K worst frames of each clip, apart from each other, into DIR: original, "
        "reconstruction, luminance error, and the worst part enlarged.",
        _OUT,
        metavar="K DIR",
    ),
]


@dataclass(frozen=True)
class Targets:
    """What is to be written of the scores."""

    report: Report = None
    plot: Plot = None
    worst: Worst = None
    overwrite: Overwrite = False

    def check(self) -> None:
        """Fail before the work rather than after it.

        Raises:
            UsageError: the report has another suffix, or no frame is asked for.
            OutputError: something exists, or cannot be written.
            MissingExtraError: matplotlib is not installed, and a plot is wanted.
        """
        from wfvae_cli.atomic import check_output
        from wfvae_cli.metrics.report import check_report_path

        if self.report is not None:
            check_report_path(self.report)
        for path in (self.report, self.plot):
            if path is not None:
                check_output(path, overwrite=self.overwrite)
        if self.plot is not None:
            from wfvae_cli.metrics.extras import require

            require("matplotlib.figure", extra="plot", purpose="a plot")
        if self.worst is not None:
            _check_stills(*self.worst, overwrite=self.overwrite)

    def stills(self, name: str) -> WorstFrames | None:
        """What keeps the worst frames, if they are wanted."""
        from wfvae_cli.metrics.stills import WorstFrames

        return None if self.worst is None else WorstFrames(self.worst[0], name=name)

    def write(
        self,
        console: Console,
        result: ClipResult | Comparison,
        title: str,
        stills: WorstFrames | None,
        facts: Mapping[str, JsonValue],
    ) -> None:
        """Write what was asked for, and say so.

        Args:
            console: where to say it.
            result: what was measured.
            title: of the plot.
            stills: from `stills`.
            facts: for the top level of a JSON report.
        """
        from wfvae_cli.metrics.report import write_report

        written: list[Path] = []
        if self.report is not None:
            write_report(self.report, result, extra=facts, overwrite=self.overwrite)
            written.append(self.report)
        if self.plot is not None:
            _draw(self.plot, result, title, overwrite=self.overwrite)
            written.append(self.plot)
        if written:
            console.say("wrote " + ", ".join(map(str, written)))
        if self.worst is not None and stills is not None:
            pictures = stills.write(self.worst[1], overwrite=self.overwrite)
            console.say(f"wrote {len(pictures)} stills into {self.worst[1]}")


def _check_stills(count: int, folder: Path, *, overwrite: bool) -> None:
    from wfvae_cli.atomic import check_directory

    if count < 1:
        raise UsageError(f"--worst: expected at least 1 frame, got {count}")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"--worst: expected a folder, got the file {folder}")
    if folder.is_dir():
        check_directory(folder, folder)
        if any(folder.iterdir()) and not overwrite:
            raise OutputError(
                f"--worst: {folder} is not empty: choose another folder or add --overwrite"
            )


def _draw(path: Path, result: ClipResult | Comparison, title: str, *, overwrite: bool) -> None:
    from wfvae_cli.atomic import atomic_file
    from wfvae_cli.metrics.plot import plot_clip, plot_comparison
    from wfvae_cli.metrics.result import ClipResult

    if isinstance(result, ClipResult):
        picture = plot_clip(result, title=title)
    else:
        picture = plot_comparison(result, title=title)
    with atomic_file(path, overwrite=overwrite) as file:
        file.write(picture)


def clip_metrics(measures: Measures, stills: WorstFrames | None) -> ClipMetrics:
    """What scores the frames of one clip."""
    from wfvae_cli.metrics.clip import ClipMetrics

    return ClipMetrics(
        ms_ssim=measures.ms_ssim,
        lpips=measures.lpips,
        observers=[*measures.distances, *([] if stills is None else [stills])],
    )


def distances(measures: Measures) -> dict[str, JsonValue]:
    """The learned distances over all frames, by their names, with their numbers of samples."""
    facts: dict[str, JsonValue] = {}
    if measures.distances:
        from wfvae_cli.metrics.frechet import FrechetDistance

        for distance in measures.distances:
            assert isinstance(distance, FrechetDistance)
            facts |= distance.to_json()
    return facts


def describe_distances(measures: Measures) -> str | None:
    """One line with the learned distances; None where none was wanted."""
    facts = distances(measures)
    parts = []
    for name in (name for name in facts if not name.endswith("_samples")):
        value = facts[name]
        shown = f"{value:.4f}" if isinstance(value, float) else "too few samples"
        parts.append(f"{name.upper()} {shown} ({facts[name + '_samples']} samples)")
    return ", ".join(parts) or None


def describe_scores(result: ClipResult) -> str:
    """One line with a clip's scores."""
    parts = [f"PSNR {decibels(result.psnr)}"]
    for label, value in (("SSIM", result.ssim), ("MS-SSIM", result.ms_ssim)):
        if value is not None:
            parts.append(f"{label} {value:.4f}")
    if result.lpips is not None:
        parts.append(f"LPIPS {result.lpips:.4f}")
    if result.flicker_psnr is not None:
        parts.append(f"flicker {decibels(result.flicker_psnr)}")
    if result.frames > 1:
        worst = result.worst_frame
        parts.append(f"worst frame {worst.index} with {decibels(worst.psnr)}")
    return ", ".join(parts)


def decibels(value: float) -> str:
    """A PSNR for people."""
    return "identical" if math.isinf(value) else f"{value:.2f} dB"


def title_of(source: str) -> str:
    """What plots and stills call an input."""
    return "standard input" if source == "-" else Path(o.display(source)).name
