"""Options for metrics that `compare` and `roundtrip` share, and the outputs of their scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from wfvae_cli.cli.output import LogTo, Overwrite, trackers
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.option import Option

if TYPE_CHECKING:
    from wfvae_cli.metrics.compare import Measures
    from wfvae_cli.metrics.result import ClipResult

_METRICS, _OUT = "Metrics", "Output"


@dataclass(frozen=True)
class Learned:
    """Options of learned metrics and their weights."""

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

    @property
    def names(self) -> list[str]:
        """The options that ask for a metric, for messages."""
        given = {
            "--lpips": self.lpips or self.lpips_weights,
            "--fid": self.fid or self.fid_weights,
            "--fvd-weights": self.fvd_weights,
        }
        return [name for name, value in given.items() if value]

    def measures(self, device: str, *, ms_ssim: bool) -> Measures:
        """Load what is wanted, so that what is missing shows before any frame is read.

        Raises:
            MissingExtraError: the extra `metrics` is not installed.
            WeightsError: weights cannot be had.
        """
        from wfvae_cli.metrics.compare import Measures, SetMetric

        lpips = None
        distances: list[SetMetric] = []
        if not self.names:
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


@dataclass(frozen=True)
class Targets:
    """Options of the outputs of scores."""

    html: Annotated[
        Path | None,
        Option(
            "Write a page to look at: table, players, curves, worst frames. It opens in any "
            "browser, offline.",
            _OUT,
            metavar="FOLDER",
            common=True,
        ),
    ] = None
    report: Annotated[
        Path | None,
        Option(
            "Write all scores: *.json holds every frame, *.csv a row per frame, or per file of "
            "several.",
            _OUT,
            metavar="FILE",
            common=True,
        ),
    ] = None
    plot: Annotated[
        Path | None,
        Option(
            "Draw the scores of every frame, or of every file of several: *.png, *.svg or *.pdf.",
            _OUT,
            metavar="FILE",
            common=True,
        ),
    ] = None
    worst: Annotated[
        tuple[int, Path] | None,
        Option(
            "Write the K worst frames of each clip, apart from each other, into DIR: original, "
            "reconstruction, luminance error, and the worst part enlarged.",
            _OUT,
            metavar="K DIR",
        ),
    ] = None
    log_to: LogTo = None
    overwrite: Overwrite = False

    @property
    def names(self) -> list[str]:
        """The options that were given, for messages."""
        given = {
            "--html": self.html,
            "--report": self.report,
            "--plot": self.plot,
            "--worst": self.worst,
            "--log-to": self.log_to,
        }
        return [name for name, value in given.items() if value]

    def check(self) -> None:
        """Check the outputs before the work rather than after it.

        Raises:
            UsageError: a suffix names no format, or no frame is asked for.
            OutputError: something exists, or cannot be written.
            MissingExtraError: an optional library is not installed.
        """
        from wfvae_cli.atomic import check_output
        from wfvae_cli.metrics.report import check_report_path

        if self.report is not None:
            check_report_path(self.report)
        if self.plot is not None:
            from wfvae_cli.report.figure import check_plot

            check_plot(self.plot)
        for path in (self.report, self.plot):
            if path is not None:
                check_output(path, overwrite=self.overwrite)
        if self.worst is not None:
            _check_stills(*self.worst, overwrite=self.overwrite)
        if self.html is not None:
            from wfvae_cli.report.report import check_report_folder

            check_report_folder(self.html, overwrite=self.overwrite)
        for target in trackers(self.log_to):
            target.check()


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


def describe_scores(result: ClipResult) -> str:
    """Format a clip's scores as one line."""
    from wfvae_cli.metrics.result import LABELS

    parts = []
    for name in ("psnr", "ssim", "ms_ssim", "lpips", "flicker_psnr"):
        value = getattr(result, name)
        if value is not None:
            shown = decibels(value) if "psnr" in name else f"{value:.4f}"
            parts.append(f"{LABELS[name]} {shown}")
    if result.frames > 1:
        worst = result.worst_frame
        parts.append(f"worst frame {worst.index} with {decibels(worst.psnr)}")
    return ", ".join(parts)


def decibels(value: float) -> str:
    """Format a PSNR."""
    return "identical" if math.isinf(value) else f"{value:.2f} dB"


def title_of(source: str) -> str:
    """Return the name of an input in plots and stills."""
    return "standard input" if source == "-" else Path(source).name
