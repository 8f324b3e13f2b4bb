"""`wfvae compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wfvae_cli.cli import measuring as m
from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import reported
from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.unreadable import why_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from wfvae_cli.metrics.compare import Measures
    from wfvae_cli.metrics.protocol import Protocol

_EXAMPLES = """Examples:

    wfvae compare in.mp4 roundtrip.mp4
    wfvae compare in.mp4 roundtrip.mp4 --html report/
    wfvae compare originals/ wfvae/ wan/ --html report/
    wfvae compare in.mp4 roundtrip.mp4 --report frames.csv --plot frames.png
    wfvae compare originals/ reconstructions/ --report files.json --worst 3 stills/
    wfvae compare originals/ reconstructions/ --lpips --fid --fid-weights inception.pth
    wfvae compare originals/ reconstructions/ --protocol wf-vae --lpips
"""
_METRICS, _OUT = "Metrics", "Output"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", epilog=_EXAMPLES)(compare)


@reported
def compare(
    original: Annotated[
        str, typer.Argument(metavar="ORIGINAL", help="A video, an image, or a directory of them.")
    ],
    reconstructions: Annotated[
        list[str],
        typer.Argument(
            metavar="RECONSTRUCTION...",
            help="The same, one for each model; of directories, files of equal relative path "
            "belong together, whatever their suffix.",
        ),
    ],
    ms_ssim: Annotated[
        bool,
        typer.Option("--ms-ssim/--no-ms-ssim", help="MS-SSIM too.", rich_help_panel=_METRICS),
    ] = True,
    lpips: m.LpipsFlag = False,
    lpips_net: m.LpipsNet = "alex",
    lpips_weights: m.LpipsWeights = None,
    fid: m.Fid = False,
    fid_weights: m.FidWeights = None,
    fvd_weights: m.FvdWeights = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Take frames, size, crop, LPIPS backbone and FVD window as a paper did: wf-vae.",
            rich_help_panel=_METRICS,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="Of learned metrics: auto, cpu, cuda.", rich_help_panel=_METRICS),
    ] = "auto",
    start: o.Start = 0.0,
    duration: o.Duration = None,
    frames: o.Frames = None,
    fps: o.Fps = None,
    size: o.Size = None,
    fit: o.Fit = "crop",
    short_side: o.ShortSide = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a page to look at: table, players, curves, worst frames. It opens in any "
            "browser, offline.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    stats: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.json",
            help="With --html: statistics of the latents (wfvae stats -o), once for each "
            "reconstruction.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    report: m.Report = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw the scores of every frame, or of every file of directories: "
            "*.png, *.svg or *.pdf.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    worst: Annotated[
        tuple[int, Path] | None,
        typer.Option(
            metavar="K DIR",
            help="Write the K worst frames of each clip, apart from each other, into DIR: "
            "original, reconstruction, luminance error, and the worst part enlarged.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Log the scores to tensorboard:DIR or wandb:PROJECT (extras of those names); may "
            "be repeated. Nothing is sent anywhere unless WANDB_MODE says so.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure how videos, images or directories of them differ from their originals.

    Frames are paired by position and compared as shown: RGB, clamped and rounded, 8 bits (16 where
    either side is deeper). Options of frames and size apply to all sides.
    """
    from wfvae_cli.cli import compare_work as w
    from wfvae_cli.metrics.protocol import find_protocol
    from wfvae_cli.report.tracking import Target

    console = Console(quiet, json_output)
    tracking = tuple(Target.parse(text) for text in log_to or [])
    targets = w.Targets(report, plot, worst, html, tuple(stats or ()), tracking, overwrite)
    sampling = o.make_sampling(start, duration, frames, fps, size, fit, short_side)
    chosen = None if protocol is None else find_protocol(protocol)
    if chosen is not None:
        if sampling != o.make_sampling(0.0, None, None, None, None, "crop", None):
            raise UsageError("--protocol says which frames at what size: leave those options out")
        sampling, lpips_net = chosen.sampling, chosen.lpips_net
    folders = _are_folders(original, reconstructions)
    title, labels = w.labels_of(original, reconstructions)
    targets.check(len(reconstructions))
    learned = m.Learned(lpips, lpips_net, lpips_weights, fid, fid_weights, fvd_weights)
    job = w.Job(
        original=original,
        reconstructions=tuple(reconstructions),
        title=title,
        labels=labels,
        folders=folders,
        sampling=sampling,
        measures=_measures(learned, device, chosen, ms_ssim=ms_ssim),
        protocol=chosen,
        targets=targets,
        options=w.describe_options(sampling, learned, ms_ssim=ms_ssim),
    )
    w.run(console, job)


def _are_folders(original: str, reconstructions: list[str]) -> bool:
    """Whether directories are compared rather than files.

    Raises:
        InputError: a path does not exist, where some are directories.
        UsageError: there are directories and files.
    """
    paths = [original, *reconstructions]
    folders = [Path(path).is_dir() for path in paths]
    if any(folders) != all(folders):
        for path in paths:
            if not Path(path).exists():
                why = why_unreadable(path, "a folder like the other ones", FileNotFoundError())
                raise InputError(f"{path}: {why}")
        raise UsageError(f"expected only files or only directories, got both: {', '.join(paths)}")
    return all(folders)


def _measures(
    learned: m.Learned, device: str, protocol: Protocol | None, *, ms_ssim: bool
) -> Callable[[], Measures]:
    """What makes the metrics of each set of reconstructions, with sums of their own."""

    def make() -> Measures:
        from dataclasses import replace

        if protocol is None:
            return learned.measures(device, ms_ssim=ms_ssim)
        measures = replace(learned, fvd_weights=None).measures(device, ms_ssim=ms_ssim)
        distances = measures.distances
        if learned.fvd_weights is not None:
            from wfvae_cli.metrics.frechet import clip_fvd
            from wfvae_cli.models.load import resolve_device

            fvd = clip_fvd(
                learned.fvd_weights, window=protocol.fvd_window, device=resolve_device(device)
            )
            distances = (*distances, fvd)
        return replace(measures, distances=distances, frames=protocol.sampling.frames)

    return make
