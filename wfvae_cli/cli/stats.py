"""`wfvae stats`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from wfvae_cli import __version__
from wfvae_cli.cli import dataset_options as d
from wfvae_cli.cli import options as o
from wfvae_cli.cli import stats_work as w
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.paths import check_outputs, check_suffix
from wfvae_cli.cli.run import reported
from wfvae_cli.errors import UsageError

_EXAMPLES = """Examples:

    wfvae stats videos/ --short-side 256 -o stats.json --plot stats.png
    wfvae stats latents/ -o stats.json
    wfvae stats videos/ --sample-frames 33 --until 0.5% -o stats.json
    wfvae stats videos/ --engine ray -o stats.json
    wfvae stats videos/ --shard 0/2 -o a.json
    wfvae stats --merge a.json b.json -o all.json --write-config my-vae
    wfvae stats --subbands videos/ --plot subbands.png
"""
_CLIPS, _OUT, _MODE = "Datasets: which files", "Output", "Other work"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("stats", epilog=_EXAMPLES)(stats)


def parse_share(text: str) -> float:
    """`0.5%` or `0.005` to 0.005."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise typer.BadParameter(f"expected a share such as 0.5% or 0.005, got {text!r}") from None


@reported
def stats(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET...",
            help="Videos, images and latent files: directories, globs, manifests (.txt, .csv, "
            ".jsonl), or the files themselves. With --merge: reports.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="Write the report."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw one page: histograms, means and stds, correlations.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    write_config: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT_DIR",
            help="Put the scale factors into a copy of the model's config.json: "
            "CHECKPOINT_DIR/config.stats.json, or config.json itself where there is none yet or "
            "--overwrite is given.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    include: d.Include = None,
    exclude: d.Exclude = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Take a random subset of this many clips.", rich_help_panel=_CLIPS),
    ] = None,
    sample_frames: Annotated[
        int | None,
        typer.Option(
            metavar="FRAMES",
            help="Take a random window of this many frames of each clip; of latent files, the "
            "latent frames that hold as many.",
            rich_help_panel=_CLIPS,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.", rich_help_panel=_CLIPS)] = 0,
    until: Annotated[
        float | None,
        typer.Option(
            parser=parse_share,
            metavar="SHARE",
            help="Take clips in random order and stop once every channel's mean and std are known "
            "to this share of the channel's std (95% confidence, at least 10 clips), such as 0.5%.",
            rich_help_panel=_CLIPS,
        ),
    ] = None,
    shard: d.ShardOption = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Combine reports of disjoint parts of a dataset.",
            rich_help_panel=_MODE,
        ),
    ] = False,
    subbands: Annotated[
        bool,
        typer.Option(
            "--subbands",
            help="Report energy and entropy of the frames' Haar subbands instead: 3D for videos, "
            "2D for images.",
            rich_help_panel=_MODE,
        ),
    ] = False,
    levels: Annotated[
        int | None,
        typer.Option(help="Of --subbands, 1 to 6; 3 by default.", rich_help_panel=_MODE),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="What encodes videos and images, wfvae-tiny by default; latent files need none.",
            rich_help_panel="Model",
        ),
    ] = None,
    device: o.Device = "auto",
    dtype: o.DType = "auto",
    chunk: o.Chunk = None,
    readers: d.Readers = None,
    threads: d.Threads = None,
    time_limit: d.TimeLimit = None,
    stall_limit: d.StallLimit = 300.0,
    engine: d.EngineOption = "local",
    address: d.Address = None,
    workers: d.Workers = None,
    start: o.Start = 0.0,
    duration: o.Duration = None,
    frames: o.Frames = None,
    fps: o.Fps = None,
    size: o.Size = None,
    fit: o.Fit = "crop",
    short_side: o.ShortSide = None,
    hwaccel: o.Hwaccel = "none",
    overwrite: o.Overwrite = False,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure a latent space: mean, std, scale factors, and how well they are known.

    One pass, in memory that does not grow with the dataset. Figures are of the posterior's mean,
    as encode stores it, padding included.
    """
    console = Console(quiet, json_output)
    o.check_hwaccel(hwaccel)
    targets = w.Targets(output, plot, write_config, overwrite)
    sampling = o.make_sampling(start, duration, frames, fps, size, fit, short_side)
    others = {
        "--include": include,
        "--exclude": exclude,
        "--limit": limit,
        "--sample-frames": sample_frames,
        "--until": until,
        "--shard": shard,
        "--model": model,
        "--readers": readers,
        "--time-limit": time_limit is not None,
        "--engine": engine != "local",
        "--write-config": subbands and write_config,
    }
    d.check_engine(engine, address, workers)
    _check_modes(merge=merge, subbands=subbands, levels=levels, others=others)
    check_suffix("--output", output, (".json",))
    check_outputs([output, plot], sources, model)
    targets.check()
    if merge:
        w.merge_files(console, [Path(source) for source in sources], targets)
        return

    from wfvae_cli.stats.draw import Draw

    draw = Draw(limit, sample_frames, seed, until)
    listed = w.list_sources(sources, include or [], exclude or [], sampling)
    check_outputs([output, plot], [source.path for source in listed])
    if shard is not None:
        listed = w.share_of(listed, shard, draw)
    run = {
        "wfvae": __version__,
        "sources": sources,
        "include": include or [],
        "exclude": exclude or [],
        "limit": limit,
        "seed": seed,
        "until": until,
        "shard": shard,
    }

    from wfvae_cli.dataset.prefetch import Limits
    from wfvae_cli.dataset.run import default_readers, default_threads
    from wfvae_cli.dataset.statistics import StatsJob
    from wfvae_cli.models.load import DEFAULT_MODEL

    encodes = not (subbands or all(source.is_latents for source in draw.choose(listed)))
    job = StatsJob(
        model=model or (DEFAULT_MODEL if encodes else None),
        encodes=encodes,
        device=device if encodes else "cpu",
        dtype=dtype,
        chunk=chunk,
        threads=(threads or default_threads()) if encodes else 1,
        sampling=sampling,
        draw=draw,
        readers=readers or default_readers(),
        hwaccel=hwaccel,
        limits=Limits(time=time_limit, stall=stall_limit),
    )
    if subbands:
        w.analyse_subbands(console, listed, levels or 3, job, targets)
        return
    cluster = w.Cluster(address, workers) if engine == "ray" else None
    w.collect_latents(console, listed, job, cluster, run, targets)


def _check_modes(
    *, merge: bool, subbands: bool, levels: int | None, others: Mapping[str, object]
) -> None:
    """Refuse options that have no meaning together, rather than leave them aside.

    Args:
        merge: whether reports are merged, which takes none of `others`.
        subbands: whether frames are analysed, which takes no model and has no scale.
        levels: of the analysis.
        others: what else was given, by the options' names.
    """
    given = [name for name, value in others.items() if value]
    if merge and (given or subbands):
        listed = ", ".join([*given, *(["--subbands"] if subbands else [])])
        raise UsageError(f"--merge only reads reports: leave {listed} out")
    if "--until" in given and "--shard" in given:
        raise UsageError("--until looks at all clips together: leave --shard or --until out")
    names = ("--until", "--model", "--write-config", "--engine")
    latents = [name for name in names if name in given]
    if subbands and latents:
        raise UsageError(f"--subbands is about frames: leave {', '.join(latents)} out")
    if levels is not None and not subbands:
        raise UsageError("--levels belongs to --subbands: add that, or leave --levels out")
