"""`wfvae stats`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from wfvae_cli import __version__
from wfvae_cli.cli import run as command
from wfvae_cli.cli import stats_output as w
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.dataset import make_engine, tell_unused_fit
from wfvae_cli.cli.paths import check_outputs
from wfvae_cli.dataset.isolation import isolate
from wfvae_cli.dataset.options import (
    EngineOptions,
    Readers,
    Threads,
    default_readers,
    default_threads,
)
from wfvae_cli.errors import PartialFailureError, UsageError
from wfvae_cli.media.options import Hwaccel, Sampling
from wfvae_cli.models.options import DEFAULT_MODEL, RunOptions, model_option
from wfvae_cli.option import Argument, Option
from wfvae_cli.pipeline.options import Chunk, Limits

if TYPE_CHECKING:
    from wfvae_cli.dataset.measure import Measure
    from wfvae_cli.dataset.measure_job import StatsJob, SubbandJob
    from wfvae_cli.stats.accumulate import FailedClip
    from wfvae_cli.stats.draw import Source

EXAMPLES = """
    wfvae stats videos/ --short-side 256 -o stats.json --plot stats.png
    wfvae stats latents/ -o stats.json
    wfvae stats videos/ --sample-frames 33 --until 0.5% -o stats.json
    wfvae stats videos/ --engine ray -o stats.json
    wfvae stats videos/ --shard 0/2 -o a.json
    wfvae stats --merge a.json b.json -o all.json --write-config my-vae
    wfvae stats --subbands videos/ --plot subbands.png
"""
_CLIPS, _MODE = "Datasets: which files", "Other work"


def parse_share(text: str) -> float:
    """A share, from `0.5%` or `0.005`."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ValueError(f"expected a share such as 0.5% or 0.005, got {text!r}") from None


def stats(
    sources: Annotated[
        list[str],
        Argument(
            "DATASET...",
            "Videos, images, latent files and tar shards of these: directories, globs, manifests "
            "(.txt, .csv, .jsonl), or the files themselves. With --merge: reports.",
        ),
    ],
    targets: w.Targets,
    computing: RunOptions,
    limits: Limits,
    engine: EngineOptions,
    sampling: Sampling,
    console: Console,
    include: Annotated[
        list[str] | None, Option("Take only names that match one.", _CLIPS, metavar="GLOB")
    ] = None,
    exclude: Annotated[
        list[str] | None, Option("Leave out names that match.", _CLIPS, metavar="GLOB")
    ] = None,
    limit: Annotated[
        int | None, Option("Take a random subset of this many clips.", _CLIPS, metavar="N")
    ] = None,
    sample_frames: Annotated[
        int | None,
        Option(
            "Take a random window of this many frames of each clip; of latent files, the latent "
            "frames that hold as many.",
            _CLIPS,
            metavar="FRAMES",
        ),
    ] = None,
    seed: Annotated[int, Option("Of all that is random.", _CLIPS, metavar="N")] = 0,
    until: Annotated[
        float | None,
        Option(
            "Take clips in random order and stop once every channel's mean and std are known to "
            "this share of the channel's std (95% confidence, at least 10 clips), such as 0.5%.",
            _CLIPS,
            metavar="SHARE",
            parse=parse_share,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        Option(
            "Take share I (from 0) of N, by the hash of each name: for job arrays.",
            _CLIPS,
            metavar="I/N",
        ),
    ] = None,
    merge: Annotated[
        bool, Option("Combine reports of disjoint parts of a dataset.", _MODE)
    ] = False,
    subbands: Annotated[
        bool,
        Option(
            "Report energy and entropy of the frames' Haar subbands instead: 3D for videos, 2D for "
            "images.",
            _MODE,
        ),
    ] = False,
    levels: Annotated[
        int | None, Option("Of --subbands, 1 to 6; 3 by default.", _MODE, metavar="N")
    ] = None,
    model: Annotated[
        str | None,
        model_option(
            "What encodes videos and images, wfvae-tiny by default; latent files need none."
        ),
    ] = None,
    chunk: Chunk = None,
    readers: Readers = None,
    threads: Threads = None,
    hwaccel: Hwaccel = "none",
) -> None:
    """Measure a latent space: mean, std, scale factors, and how well they are known.

    One pass, in memory that does not grow with the dataset. Figures are of the posterior's mean,
    as encode stores it, padding included.
    """
    from wfvae_cli.media.hwaccel import check

    check(hwaccel)
    tell_unused_fit(sampling)
    others = {
        "--include": include,
        "--exclude": exclude,
        "--limit": limit,
        "--sample-frames": sample_frames,
        "--until": until,
        "--shard": shard,
        "--model": model,
        "--readers": readers,
        "--time-limit": limits.time is not None,
        "--engine": engine.engine != "local",
        "--write-config": subbands and targets.write_config,
        "--log-to": subbands and targets.log_to,
    }
    _check_modes(merge=merge, subbands=subbands, levels=levels, others=others)
    check_outputs([targets.output, targets.plot], sources, model)
    isolation = None
    if command.owns_process and engine.engine == "local" and not merge:
        isolation = isolate()
    targets.check()
    if merge:
        w.merge_files(console, [Path(source) for source in sources], targets)
        return

    from wfvae_cli.dataset.measure import (
        expected_model,
        kind_of,
        list_clips,
        measuring,
        share_of,
    )
    from wfvae_cli.dataset.measure_job import StatsJob, SubbandJob
    from wfvae_cli.stats.draw import Draw

    draw = Draw(limit, sample_frames, seed, until)
    clips = list_clips(sources, include or [], exclude or [], sampling)
    check_outputs([targets.output, targets.plot], [clip.path for clip in clips])
    if shard is not None:
        clips = share_of(clips, shard, draw)
    chosen = draw.choose(clips)
    encodes = not (subbands or all(clip.is_latents for clip in chosen))
    options: dict[str, Any] = {
        "model": (model or DEFAULT_MODEL) if encodes else None,
        "device": computing.device if encodes else "cpu",
        "dtype": computing.dtype,
        "compile": computing.compile,
        "threads": (threads or default_threads()) if encodes else 1,
        "chunk": chunk,
        "draw": draw,
        "sampling": sampling,
        "readers": readers or default_readers(),
        "hwaccel": hwaccel,
        "limits": limits,
    }
    if subbands:
        job = SubbandJob(kind=kind_of(chosen), levels=levels or 3, **options)
        with measuring(job, make_engine(engine, isolation), targets.output) as (by, _):
            _collect_subbands(by, clips, job, targets, console)
        return
    name = options["model"] or model
    expected = None if name is None else expected_model(name)
    if targets.write_config is not None and expected is not None:
        from wfvae_cli.pipeline.scaled_config import check_weights

        check_weights(targets.write_config, expected.identity)
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
    stats_job = StatsJob(expected=expected, **options)
    with measuring(stats_job, make_engine(engine, isolation), targets.output) as (by, cores):
        _collect_latents(by, clips, stats_job, {**run, "threads": cores}, targets, console)


def _collect_latents(
    by: Measure,
    clips: Sequence[Source],
    job: StatsJob,
    run: dict[str, Any],
    targets: w.Targets,
    console: Console,
) -> None:
    """Take the statistics of the clips' latents, and write them.

    Raises:
        PartialFailureError: some clips are in no figure; everything is written.
    """
    from wfvae_cli.stats.collect import collect

    draw = job.draw
    total = min(len(clips), draw.limit or len(clips))
    with console.progress("statistics", total, "clips") as progress:
        done = collect(
            clips,
            by=by,
            identity=None if job.expected is None else job.expected.identity,
            draw=draw,
            run=run,
            on_clip=lambda _, failed: _tell_clip(console, progress, failed),
        )
    report = done.report
    w.write_report(console, report, targets)
    if draw.until is not None:
        known = report.summary.precision
        if done.converged:
            console.say(f"known to {known.worst:.2%} after {known.clips} of {total} clips: stopped")
        else:
            console.note(
                f"--until {draw.until:.2%} was not reached with all {total} clips: give more"
            )
    _judge(len(report.stats.failed), total, targets.output)


def _collect_subbands(
    by: Measure,
    clips: Sequence[Source],
    job: SubbandJob,
    targets: w.Targets,
    console: Console,
) -> None:
    """Take the statistics of the frames' subbands, and write them.

    Raises:
        PartialFailureError: some clips are in no figure; everything is written.
    """
    from wfvae_cli.stats.collect import collect_subbands

    total = min(len(clips), job.draw.limit or len(clips))
    with console.progress("subbands", total, "clips") as progress:
        done = collect_subbands(
            clips,
            job.kind,
            job.levels,
            by=by,
            draw=job.draw,
            on_clip=lambda _, failed: _tell_clip(console, progress, failed),
        )
    w.write_subbands(console, done, targets)
    _judge(len(done.failed), total, targets.output)


def _tell_clip(
    console: Console, progress: Callable[[int], None], failed: FailedClip | None
) -> None:
    progress(1)
    if failed is not None:
        console.note(f"{failed.name}: left out: {failed.reason}")


def _judge(failed: int, total: int, report: Path | None) -> None:
    """End with exit code 7 where clips are missing from the figures."""
    if failed:
        where = "" if report is None else f", see failed in {report}"
        raise PartialFailureError(
            f"{failed} of {total} clips could not be used and are in no figure{where}; the figures "
            "of all others are complete"
        )


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
    names = ("--until", "--model", "--write-config", "--log-to", "--engine")
    latents = [name for name in names if name in given]
    if subbands and latents:
        raise UsageError(f"--subbands is about frames: leave {', '.join(latents)} out")
    if levels is not None and not subbands:
        raise UsageError("--levels belongs to --subbands: add that, or leave --levels out")
