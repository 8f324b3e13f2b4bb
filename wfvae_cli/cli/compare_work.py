"""What `wfvae compare` does once its options are known: measure each side, show, write."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from wfvae_cli.cli import measuring as m
from wfvae_cli.cli.console import Console
from wfvae_cli.errors import PartialFailureError, UsageError

if TYPE_CHECKING:
    from wfvae_cli.media.clip import ClipInfo
    from wfvae_cli.media.options import Sampling
    from wfvae_cli.metrics.clip import ClipObserver
    from wfvae_cli.metrics.compare import Measures
    from wfvae_cli.metrics.protocol import Protocol
    from wfvae_cli.metrics.result import Comparison, FailedFile, FileResult, JsonValue
    from wfvae_cli.report.report import Report
    from wfvae_cli.report.tracking import Target


@dataclass(frozen=True)
class Targets:
    """What is to be written of the scores."""

    report: Path | None = None
    plot: Path | None = None
    worst: tuple[int, Path] | None = None
    html: Path | None = None
    stats: tuple[Path, ...] = ()
    """Statistics of latents for the page, one for each set of reconstructions."""
    tracking: tuple[Target, ...] = ()
    overwrite: bool = False

    def check(self, sides: int) -> None:
        """Fail before the work rather than after it.

        Args:
            sides: how many sets of reconstructions there are.

        Raises:
            UsageError: a suffix names no format, or options do not fit together.
            OutputError: something exists, or cannot be written.
            MissingExtraError: an optional library is not installed.
        """
        m.Targets(report=self.report, worst=self.worst, overwrite=self.overwrite).check()
        if self.plot is not None:
            from wfvae_cli.atomic import check_output
            from wfvae_cli.report.figure import check_plot

            check_plot(self.plot)
            check_output(self.plot, overwrite=self.overwrite)
        if self.stats and self.html is None:
            raise UsageError("--stats is for the page: add --html, or leave --stats out")
        if self.stats and len(self.stats) != sides:
            raise UsageError(
                f"expected --stats once for each of {sides} reconstructions, in their order, "
                f"got {len(self.stats)}"
            )
        if self.html is not None:
            from wfvae_cli.report.report import check_report_folder

            check_report_folder(self.html, overwrite=self.overwrite)
        for target in self.tracking:
            target.check()


@dataclass(frozen=True)
class Job:
    """What to compare with what."""

    original: str
    reconstructions: tuple[str, ...]
    title: str
    """Short name of the originals."""
    labels: tuple[str, ...]
    """Those of the reconstructions."""
    folders: bool
    sampling: Sampling
    measures: Callable[[], Measures]
    """Makes the metrics of one set of reconstructions, with sums of their own."""
    protocol: Protocol | None
    targets: Targets
    options: dict[str, JsonValue] = field(default_factory=dict)
    """For the page."""


@dataclass(frozen=True)
class Side:
    """The scores of one set of reconstructions."""

    label: str
    path: str
    comparison: Comparison
    distances: dict[str, JsonValue]


def run(console: Console, job: Job) -> None:
    """Compare, show and write.

    Raises:
        PartialFailureError: some files are in no figure; everything is written.
    """
    from wfvae_cli.cli.compare_view import show

    sides = []
    with ExitStack() as stack:
        report = stack.enter_context(_open_report(job)) if job.targets.html is not None else None
        # All before any: what is missing should show before hours of frames.
        measures = [job.measures() for _ in job.reconstructions]
        for number, each in enumerate(measures):
            sides.append(_compare_side(console, job, number, each, report))
            if report is not None:
                report.set_distances(number, sides[-1].distances)
    _write(console, job, sides)
    show(console, job, sides)
    console.result(_summary(job, sides))
    failed = {file.name for side in sides for file in side.comparison.failed}
    if failed:
        names = failed | {file.name for side in sides for file in side.comparison.files}
        raise PartialFailureError(
            f"{len(failed)} of {len(names)} files could not be compared and are in no figure; "
            "the figures of all others are complete"
        )


def labels_of(original: str, reconstructions: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Short names that tell paths apart: as many of their last parts as that takes.

    What all of them end with is left out of the names of the reconstructions: `a/clip.mp4` and
    `b/clip.mp4` of `in/clip.mp4` are `a` and `b`.

    Raises:
        UsageError: reconstructions are given twice.
    """
    if len(set(reconstructions)) < len(reconstructions):
        raise UsageError(f"expected different reconstructions, got {', '.join(reconstructions)}")
    paths = [Path(path).absolute().parts for path in (original, *reconstructions)]
    for count in range(1, max(map(len, paths)) + 1):
        tails = [path[-count:] for path in paths]
        if len(set(tails)) == len(tails):
            columns = zip(*(reversed(tail) for tail in tails), strict=False)
            shared = sum(
                1 for _ in itertools.takewhile(lambda parts: len(set(parts)) == 1, columns)
            )
            labels = (Path(*tail[: len(tail) - shared]) for tail in tails[1:])
            return str(Path(*tails[0])), tuple(map(str, labels))
    # The original is one of the reconstructions, or two paths differ in their spelling only.
    return original, tuple(reconstructions)


def describe_options(
    sampling: Sampling, learned: m.Learned, *, ms_ssim: bool
) -> dict[str, JsonValue]:
    """The options that figures depend on, for the page."""
    options: dict[str, JsonValue] = {"MS-SSIM": "yes" if ms_ssim else "no"}
    for each in fields(sampling):
        value = getattr(sampling, each.name)
        if value != each.default:
            options[each.name] = "x".join(map(str, value)) if each.name == "size" else str(value)
    if learned.lpips or learned.lpips_weights is not None:
        options["LPIPS backbone"] = learned.lpips_net
    for name in ("lpips_weights", "fid_weights", "fvd_weights"):
        path = getattr(learned, name)
        if path is not None:
            options[name.replace("_", " ")] = str(path)
    return options


def _compare_side(
    console: Console, job: Job, number: int, measures: Measures, report: Report | None
) -> Side:
    from wfvae_cli.metrics.compare import compare_clips, compare_directories
    from wfvae_cli.metrics.result import Comparison, FailedFile, FileResult

    path, label = job.reconstructions[number], job.labels[number]
    title = m.title_of(job.original)
    what = label if len(job.reconstructions) > 1 else "comparing"
    with console.progress(what, None, "files" if job.folders else "frames") as progress:
        if job.folders:

            def on_file(file: FileResult | FailedFile) -> None:
                progress(1)
                if isinstance(file, FailedFile):
                    console.note(f"{file.name}: left out: {file.error}")
                    if report is not None:
                        report.fail(file.name, number, file.error)

            comparison = compare_directories(
                Path(job.original),
                Path(path),
                sampling=job.sampling,
                measures=measures,
                observe=lambda pair, info: _observers(job, number, pair.name, info, report),
                on_file=on_file,
            )
        else:
            result = compare_clips(
                job.original,
                path,
                sampling=job.sampling,
                measures=measures,
                observe=lambda info: _observers(job, number, title, info, report),
                on_frame=lambda: progress(1),
            )
            comparison = Comparison((FileResult(title, result),), ())
    return Side(label, path, comparison, m.distances(measures))


def _observers(
    job: Job, number: int, name: str, info: ClipInfo, report: Report | None
) -> list[ClipObserver]:
    from wfvae_cli.metrics.stills import WorstFrames

    observers: list[ClipObserver] = []
    if job.targets.worst is not None:
        count, folder = job.targets.worst
        if len(job.labels) > 1:
            folder = folder / job.labels[number].replace("/", "_")
        observers.append(
            WorstFrames(count, name=name, directory=folder, overwrite=job.targets.overwrite)
        )
    if report is not None:
        rate = job.sampling.fps or info.frame_rate
        observers.append(report.clip(name, number, frame_rate=rate, image=info.is_image))
    return observers


def _open_report(job: Job) -> Report:
    from wfvae_cli.report.report import Report, ReportModel, ReportRun
    from wfvae_cli.report.versions import versions
    from wfvae_cli.stats.report import StatsReport

    assert job.targets.html is not None
    latents: list[StatsReport | None] = [StatsReport.load(path) for path in job.targets.stats]
    latents += [None] * (len(job.labels) - len(latents))
    models = []
    for label, path, stats in zip(job.labels, job.reconstructions, latents, strict=True):
        facts: dict[str, JsonValue] = {"reconstructions": path}
        if stats is not None:
            facts |= {
                "model": stats.model.name,
                "family": stats.model.family,
                "SHA-256 of the weights": stats.model.sha256,
            }
        models.append(ReportModel(label, facts, stats))
    names = " and ".join(job.labels) if len(job.labels) < 4 else f"{len(job.labels)} sets"
    info = ReportRun(
        title=f"{names} against {job.title}",
        command=shlex.join(["wfvae", *sys.argv[1:]]),
        versions=versions(),
        options={"originals": job.original, **job.options},
        notes=() if job.protocol is None else (job.protocol.describe(),),
    )
    return Report(job.targets.html, models, info, overwrite=job.targets.overwrite)


def _facts(job: Job, side: Side) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {"original": job.original, "reconstruction": side.path}
    if job.protocol is not None:
        facts["protocol"] = job.protocol.describe()
    return {**facts, **side.distances}


def _result(job: Job, side: Side, *, per_frame: bool = False) -> dict[str, JsonValue]:
    """One side's scores: of the clip itself, or of all files."""
    if job.folders:
        return side.comparison.to_json(per_frame=per_frame)
    return side.comparison.files[0].result.to_json(per_frame=per_frame)


def _summary(job: Job, sides: Sequence[Side], *, per_frame: bool = False) -> dict[str, JsonValue]:
    """The JSON object of stdout and of `--report`: flat for one side, a list for several."""
    if len(sides) == 1:
        return {**_facts(job, sides[0]), **_result(job, sides[0], per_frame=per_frame)}
    return {
        "original": job.original,
        "reconstructions": [
            {"name": side.label, **_facts(job, side), **_result(job, side, per_frame=per_frame)}
            for side in sides
        ],
    }


def _write(console: Console, job: Job, sides: Sequence[Side]) -> None:
    targets, written = job.targets, []
    if targets.report is not None:
        _write_scores(targets.report, job, sides)
        written.append(targets.report)
    if targets.plot is not None:
        from wfvae_cli.report.figure import save
        from wfvae_cli.report.metric_plots import plot_clips, plot_comparisons

        heading = f"{', '.join(job.labels)} against {job.title}"
        if job.folders:
            page = plot_comparisons({side.label: side.comparison for side in sides}, heading)
        else:
            clips = {side.label: side.comparison.files[0].result for side in sides}
            page = plot_clips(clips, heading)
        save(page, targets.plot, overwrite=targets.overwrite)
        written.append(targets.plot)
    if targets.html is not None:
        written.append(targets.html / "index.html")
    for target in targets.tracking:
        from wfvae_cli.report.tracking import log_comparison

        for side in sides:
            facts = _facts(job, side)
            log_comparison(target, side.label, side.comparison, side.distances, facts)
    if written:
        console.say("wrote " + ", ".join(map(str, written)))
    if targets.worst is not None:
        console.say(f"wrote stills of the worst frames into {targets.worst[1]}")


def _write_scores(path: Path, job: Job, sides: Sequence[Side]) -> None:
    from wfvae_cli.metrics.report import write_comparisons, write_report

    if len(sides) == 1:
        comparison = sides[0].comparison
        result = comparison if job.folders else comparison.files[0].result
        write_report(path, result, extra=_facts(job, sides[0]), overwrite=job.targets.overwrite)
        return
    content = _summary(job, sides, per_frame=True)
    comparisons = {side.label: side.comparison for side in sides}
    write_comparisons(path, comparisons, content, overwrite=job.targets.overwrite)
