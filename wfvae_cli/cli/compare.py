"""`wfvae compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wfvae_cli.cli import measuring as m
from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.paths import check_outputs
from wfvae_cli.cli.run import reported
from wfvae_cli.errors import InputError, PartialFailureError, UsageError
from wfvae_cli.unreadable import why_unreadable

if TYPE_CHECKING:
    from wfvae_cli.media.clip import Sampling
    from wfvae_cli.metrics.compare import Measures
    from wfvae_cli.metrics.result import Comparison, FailedFile, FileResult, JsonValue

_EXAMPLES = """Examples:

    wfvae compare in.mp4 roundtrip.mp4
    wfvae compare in.mp4 roundtrip.mp4 --report frames.csv --plot frames.png
    wfvae compare originals/ reconstructions/ --report files.json --worst 8 stills/
    wfvae compare originals/ reconstructions/ --lpips --fid --fid-weights inception.pth
"""
_SHOWN = ("psnr", "ssim", "ms_ssim", "flicker_psnr", "lpips")
_LABELS = {
    "psnr": "PSNR",
    "psnr_mse": "PSNR of all",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "flicker_psnr": "flicker",
    "lpips": "LPIPS",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", epilog=_EXAMPLES)(compare)


@reported
def compare(
    original: Annotated[
        str, typer.Argument(metavar="ORIGINAL", help="A video, an image, or a directory of them.")
    ],
    reconstruction: Annotated[
        str,
        typer.Argument(
            metavar="RECONSTRUCTION",
            help="The same; of directories, files of equal relative path belong together, "
            "whatever their suffix.",
        ),
    ],
    ms_ssim: Annotated[
        bool,
        typer.Option("--ms-ssim/--no-ms-ssim", help="MS-SSIM too.", rich_help_panel="Metrics"),
    ] = True,
    lpips: m.LpipsFlag = False,
    lpips_net: m.LpipsNet = "alex",
    lpips_weights: m.LpipsWeights = None,
    fid: m.Fid = False,
    fid_weights: m.FidWeights = None,
    fvd_weights: m.FvdWeights = None,
    device: Annotated[
        str,
        typer.Option(help="Of learned metrics: auto, cpu, cuda.", rich_help_panel="Metrics"),
    ] = "auto",
    start: o.Start = 0.0,
    duration: o.Duration = None,
    frames: o.Frames = None,
    fps: o.Fps = None,
    size: o.Size = None,
    fit: o.Fit = "crop",
    short_side: o.ShortSide = None,
    report: m.Report = None,
    plot: m.Plot = None,
    worst: m.Worst = None,
    overwrite: o.Overwrite = False,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure how two videos, two images or two directories of them differ.

    Frames are paired by position and compared as shown: RGB, clamped and rounded, 8 bits (16 where
    either side is deeper). Options of frames and size apply to both sides.
    """
    console = Console(quiet, json_output)
    targets = m.Targets(report, plot, worst, overwrite)
    sampling = o.make_sampling(start, duration, frames, fps, size, fit, short_side)
    folders = [Path(path).is_dir() for path in (original, reconstruction)]
    if any(folders) != all(folders):
        for path in (original, reconstruction):
            if not Path(path).exists():
                why = why_unreadable(path, "a folder like the other one", FileNotFoundError())
                raise InputError(f"{path}: {why}")
        raise UsageError(
            f"expected two files or two directories, got one of each: {original} and "
            f"{reconstruction}"
        )
    check_outputs(
        [report, plot], [original, reconstruction, lpips_weights, fid_weights, fvd_weights]
    )
    targets.check()
    learned = m.Learned(lpips, lpips_net, lpips_weights, fid, fid_weights, fvd_weights)
    measures = learned.measures(device, ms_ssim=ms_ssim)
    if all(folders):
        _directories(console, original, reconstruction, sampling, measures, targets)
    else:
        _clips(console, original, reconstruction, sampling, measures, targets)


def _clips(
    console: Console,
    original: str,
    reconstruction: str,
    sampling: Sampling,
    measures: Measures,
    targets: m.Targets,
) -> None:
    from wfvae_cli.metrics.compare import compare_clips

    name = m.title_of(original)
    stills = targets.stills(name)
    with console.progress("comparing", None) as progress:
        result = compare_clips(
            original,
            reconstruction,
            sampling=sampling,
            measures=measures,
            worst=stills,
            on_frame=lambda: progress(1),
        )
    facts: dict[str, JsonValue] = {
        "original": original,
        "reconstruction": reconstruction,
        **m.distances(measures),
    }
    targets.write(console, result, f"{name} and {m.title_of(reconstruction)}", stills, facts)
    console.say(f"{result.frames} frames of {result.width}x{result.height}, {result.bits} bits")
    console.say(m.describe_scores(result))
    _tell_distances(console, measures)
    console.result({**facts, **result.to_json()})


def _directories(
    console: Console,
    original: str,
    reconstruction: str,
    sampling: Sampling,
    measures: Measures,
    targets: m.Targets,
) -> None:
    from wfvae_cli.metrics.compare import compare_directories
    from wfvae_cli.metrics.result import FailedFile

    stills = targets.stills(m.title_of(original))
    with console.progress("comparing", None, "files") as progress:

        def on_file(file: FileResult | FailedFile) -> None:
            progress(1)
            if isinstance(file, FailedFile):
                console.note(f"{file.name}: left out: {file.error}")

        result = compare_directories(
            Path(original),
            Path(reconstruction),
            sampling=sampling,
            measures=measures,
            worst=stills,
            on_file=on_file,
        )
    facts: dict[str, JsonValue] = {
        "original": original,
        "reconstruction": reconstruction,
        **m.distances(measures),
    }
    title = f"{m.title_of(original)} and {m.title_of(reconstruction)}"
    targets.write(console, result, title, stills, facts)
    if not (console.json or console.quiet):
        _print(result)
    _tell_distances(console, measures)
    console.result({**facts, **result.to_json()})
    if result.failed:
        raise PartialFailureError(
            f"{len(result.failed)} of {len(result.failed) + len(result.files)} files could not be "
            "compared and are in no figure; the figures of all others are complete"
        )


def _tell_distances(console: Console, measures: Measures) -> None:
    line = m.describe_distances(measures)
    if line is not None:
        console.say(line)


def _print(result: Comparison) -> None:
    """Every file, then what they have in common."""
    from wfvae_cli.cli.tables import print_table

    summaries = result.summaries
    shown = [name for name in _SHOWN if name in summaries]
    header = ("file", "frames", *(_LABELS[name] for name in shown), "worst frame")
    rows = [
        (
            file.name,
            str(file.result.frames),
            *(_score(name, getattr(file.result, name)) for name in shown),
            f"{file.result.worst_frame.index}: {m.decibels(file.result.worst_frame.psnr)}",
        )
        for file in result.files
    ]
    print_table(header, rows, spare=("flicker", "worst frame", "MS-SSIM", "frames"))
    print_table(
        ("score", "mean", "median", "5th percentile", "95th percentile"),
        [
            (
                _LABELS[name],
                *(_score(name, getattr(each, part)) for part in ("mean", "median", "p5", "p95")),
            )
            for name, each in summaries.items()
        ],
        title=f"{len(result.files)} files, every one counts the same",
    )
    if len(result.files) > 1:
        worst = result.worst(5)
        print_table(("worst files", "PSNR"), [(f.name, m.decibels(f.result.psnr)) for f in worst])


def _score(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return m.decibels(value) if "psnr" in name else f"{value:.4f}"
