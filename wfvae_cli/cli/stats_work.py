"""What `wfvae stats` does once its options are known: list, collect, merge, show, write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.output import Overwrite
from wfvae_cli.errors import InputError, PartialFailureError, UsageError
from wfvae_cli.option import Option

if TYPE_CHECKING:
    from wfvae_cli.dataset.options import EngineOptions
    from wfvae_cli.dataset.statistics import StatsJob, StatsOnRay, StatsWorker
    from wfvae_cli.media.options import Sampling
    from wfvae_cli.stats.accumulate import FailedClip, LatentStats
    from wfvae_cli.stats.draw import Draw, Source
    from wfvae_cli.stats.report import StatsReport
    from wfvae_cli.stats.subband_clip import Kind
    from wfvae_cli.stats.subbands import SubbandStats


@dataclass(frozen=True)
class Targets:
    """What is to be written."""

    output: Annotated[
        Path | None,
        Option("Write the report.", flags=("--output", "-o"), metavar="FILE.json", common=True),
    ] = None
    plot: Annotated[
        Path | None,
        Option(
            "Draw one page: histograms, means and stds, correlations.",
            "Output",
            metavar="FILE.png",
            common=True,
        ),
    ] = None
    write_config: Annotated[
        Path | None,
        Option(
            "Put the scale factors into a copy of the model's config.json: "
            "CHECKPOINT_DIR/config.stats.json, or config.json itself where there is none yet or "
            "--overwrite is given.",
            "Output",
            metavar="CHECKPOINT_DIR",
        ),
    ] = None
    """The checkpoint's folder."""
    overwrite: Overwrite = False

    def check(self) -> None:
        """Fail before hours of work rather than after them."""
        from wfvae_cli.atomic import check_output

        for path in (self.output, self.plot):
            if str(path) == "-":
                raise UsageError("expected the name of a file, got -: --json writes to stdout")
            if path is not None:
                check_output(path, overwrite=self.overwrite)
        if self.plot is not None:
            from wfvae_cli.report.figure import check_plot

            check_plot(self.plot)
        if self.output is not None:
            from wfvae_cli.report.formats import check_json_path

            check_json_path(self.output)
        if self.write_config is not None:
            from wfvae_cli.pipeline.scaled_config import scaled_config_path

            scaled_config_path(self.write_config, overwrite=self.overwrite)


def list_sources(
    sources: Sequence[str], include: Sequence[str], exclude: Sequence[str], sampling: Sampling
) -> list[Source]:
    """Every clip of the dataset, with its own part of the file where a manifest names one."""
    from wfvae_cli.dataset.config import sampling_of
    from wfvae_cli.dataset.items import find_inputs
    from wfvae_cli.stats.draw import Source

    items = find_inputs(
        sources, kinds=("video", "image", "latents"), include=include, exclude=exclude
    )
    return [Source(item.path, item.relative, sampling_of(sampling, item)) for item in items]


def share_of(sources: Sequence[Source], text: str, draw: Draw) -> list[Source]:
    """Those of the clips that are looked at that a shard holds.

    They are drawn of the whole dataset first, so that the shards together are what one run sees.

    Raises:
        UsageError: it is no shard.
        InputError: it holds none.
    """
    from wfvae_cli.dataset.items import Item
    from wfvae_cli.dataset.shard import Shard

    shard = Shard.parse(text)
    chosen = draw.choose(sources)
    share = [source for source in chosen if shard.takes(Item(source.path, source.name))]
    if not share:
        raise InputError(f"shard {text} holds none of {len(chosen)} clips: use fewer shards")
    return share


def _measurer(
    job: StatsJob, cluster: EngineOptions | None
) -> AbstractContextManager[StatsWorker | StatsOnRay]:
    from wfvae_cli.dataset.statistics import StatsOnRay, StatsWorker

    if cluster is None:
        return nullcontext(StatsWorker(job))
    return StatsOnRay(job, address=cluster.address, workers=cluster.workers)


def collect_latents(
    console: Console,
    sources: Sequence[Source],
    job: StatsJob,
    cluster: EngineOptions | None,
    run: dict[str, Any],
    targets: Targets,
) -> None:
    """Take the statistics of the clips' latents, and write them.

    Raises:
        PartialFailureError: some clips are in no figure; everything is written.
    """
    from wfvae_cli.stats.collect import collect

    draw = job.draw
    total = min(len(sources), draw.limit or len(sources))
    with _measurer(job, cluster) as measurer:
        if targets.write_config is not None and measurer.model is not None:
            from wfvae_cli.pipeline.scaled_config import check_weights

            check_weights(targets.write_config, measurer.model)
        with console.progress("statistics", total, "clips") as progress:

            def on_clip(stats: LatentStats, failed: FailedClip | None) -> None:
                progress(1)
                _tell_failure(console, failed)

            done = collect(
                sources,
                identity=measurer.model,
                draw=draw,
                run={**run, "threads": measurer.identity.threads},
                by=measurer.measure,
                on_clip=on_clip,
            )
    report = done.report
    _write(console, report, targets)
    if draw.until is not None:
        known = report.summary.precision
        if done.converged:
            console.say(f"known to {known.worst:.2%} after {known.clips} of {total} clips: stopped")
        else:
            console.note(
                f"--until {draw.until:.2%} was not reached with all {total} clips: give more"
            )
    _fail_if_any(len(report.stats.failed), total, targets.output)


def merge_files(console: Console, paths: Sequence[Path], targets: Targets) -> None:
    """Combine reports of latents, or of subbands, and write the result."""
    from wfvae_cli.stats.report import StatsReport, merge_reports
    from wfvae_cli.stats.subbands import SCHEMA as SUBBANDS
    from wfvae_cli.stats.subbands import SubbandStats

    if _schema(paths[0]) == SUBBANDS:
        first, *others = [SubbandStats.load(path) for path in paths]
        for other in others:
            first.merge(other)
        _write_subbands(console, first, targets)
        return
    _write(console, merge_reports([StatsReport.load(path) for path in paths]), targets)


def _schema(path: Path) -> str | None:
    from wfvae_cli.stats.scale import read_json

    values = json.loads(read_json(path))
    return values.get("schema") if isinstance(values, dict) else None


def _write(console: Console, report: StatsReport, targets: Targets) -> None:
    """Show the report, and write what was asked for."""
    from wfvae_cli.atomic import atomic_file

    text = report.to_json()
    if targets.output is not None:
        with atomic_file(targets.output, overwrite=targets.overwrite) as file:
            file.write(text.encode())
    if targets.plot is not None:
        from wfvae_cli.report.latent_plot import plot_stats

        plot_stats(report, targets.plot, overwrite=targets.overwrite)
    written = [path for path in (targets.output, targets.plot) if path is not None]
    if targets.write_config is not None:
        from wfvae_cli.pipeline.scaled_config import write_scaled_config

        written.append(
            write_scaled_config(targets.write_config, report, overwrite=targets.overwrite)
        )
    if not (console.json or console.quiet):
        _print(report)
    _tell(console, written, text, ("state", "histogram"))


def _print(report: StatsReport) -> None:
    from wfvae_cli.cli.tables import print_table
    from wfvae_cli.stats.table import channel_table, formula_table, summary_table

    # The histogram stays longest of what a narrow terminal has no room for.
    spare = ("median", "kurt", "skew", "min", "max", "-4σ … 4σ")
    title = f"Latents of {report.model.name}"
    print_table(*channel_table(report), spare=spare, words=spare[-1:], title=title)
    print_table(*summary_table(report), words=("value",))
    print_table(*formula_table(), words=("formula",))


def analyse_subbands(
    console: Console, sources: Sequence[Source], levels: int, job: StatsJob, targets: Targets
) -> None:
    """Take the statistics of the frames' subbands, and write them.

    Args:
        console: where to say how it goes.
        sources: videos, or images.
        levels: how often the low band is transformed again.
        job: how to read the clips; what it says of a model plays no part.
        targets: what to write.

    Raises:
        UsageError: there are videos and images.
        PartialFailureError: some clips are in no figure; everything is written.
    """
    from wfvae_cli.dataset.items import SUFFIXES
    from wfvae_cli.dataset.subbands import SubbandAnalysis
    from wfvae_cli.stats.collect_subbands import collect_subbands

    draw = job.draw
    chosen = draw.choose(sources)
    images = sum(Path(source.path).suffix.lower() in SUFFIXES["image"] for source in chosen)
    if 0 < images < len(chosen):
        raise UsageError(
            f"--subbands analyses videos in 3D and images in 2D, and here are {images} images "
            f"among {len(chosen)} files: choose one kind with --include or --exclude"
        )
    kind: Kind = "image" if images else "video"
    analysis = SubbandAnalysis(
        kind, levels, draw, job.sampling, job.readers, job.hwaccel, job.limits
    )
    with console.progress("subbands", len(chosen), "clips") as progress:

        def on_clip(stats: SubbandStats, failed: FailedClip | None) -> None:
            progress(1)
            _tell_failure(console, failed)

        done = collect_subbands(
            sources,
            kind,
            levels,
            by=analysis.analyse,
            draw=draw,
            on_clip=on_clip,
        )
    _write_subbands(console, done, targets)
    _fail_if_any(len(done.failed), len(chosen), targets.output)


def _write_subbands(console: Console, done: SubbandStats, targets: Targets) -> None:
    from wfvae_cli.atomic import atomic_file
    from wfvae_cli.cli.tables import print_table
    from wfvae_cli.report.subband_plot import plot_subbands
    from wfvae_cli.stats.table import subband_table

    text = done.to_json()
    if targets.output is not None:
        with atomic_file(targets.output, overwrite=targets.overwrite) as file:
            file.write(text.encode())
    if targets.plot is not None:
        plot_subbands(done, targets.plot, overwrite=targets.overwrite)
    if not (console.json or console.quiet):
        what = "3D, videos" if done.kind == "video" else "2D, images"
        title = f"Haar subbands ({what}) of {done.clips} clips"
        print_table(*subband_table(done), words=("",), title=title)
    written = [path for path in (targets.output, targets.plot) if path is not None]
    _tell(console, written, text, ("state", "clip_ids"))


def _tell_failure(console: Console, failed: FailedClip | None) -> None:
    if failed is not None:
        console.note(f"{failed.name}: left out: {failed.reason}")


def _tell(console: Console, written: Sequence[Path], report: str, internal: Sequence[str]) -> None:
    """Say what was written, and put the report without its `internal` fields on stdout."""
    if written:
        console.say("wrote " + ", ".join(map(str, written)))
    if console.json:
        fields = json.loads(report)
        console.result({name: value for name, value in fields.items() if name not in internal})


def _fail_if_any(failed: int, total: int, report: Path | None) -> None:
    """End with exit code 7 where clips are missing from the figures."""
    if failed:
        where = "" if report is None else f", see failed in {report}"
        raise PartialFailureError(
            f"{failed} of {total} clips could not be used and are in no figure{where}; the figures "
            "of all others are complete"
        )
