"""The work of `wfvae compare` once its options are known: measure each side, show, write."""

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
from wfvae_cli.cli.scores import Side, Subject, summary, write
from wfvae_cli.errors import PartialFailureError, UsageError
from wfvae_cli.media.options import Sampling

if TYPE_CHECKING:
    from wfvae_cli.media.clip import ClipInfo
    from wfvae_cli.metrics.clip import ClipObserver
    from wfvae_cli.metrics.compare import Measures
    from wfvae_cli.metrics.result import FailedFile, FileResult, JsonValue
    from wfvae_cli.report.report import Report


@dataclass(frozen=True)
class Job(Subject):
    """Inputs and options of a comparison."""

    reconstructions: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    measures: Callable[[], Measures] = field(kw_only=True)
    """Makes the metrics of one set of reconstructions, with sums of their own."""
    stats: tuple[Path, ...] = ()
    """Statistics of latents for the page, one for each set of reconstructions."""
    options: dict[str, JsonValue] = field(default_factory=dict)
    """Options that the page lists."""


def run(console: Console, job: Job) -> None:
    """Compare, show and write.

    Raises:
        PartialFailureError: some files are in no figure; everything is written.
    """
    from wfvae_cli.cli.scores_view import show

    sides = []
    with ExitStack() as stack:
        report = stack.enter_context(_open_report(job)) if job.targets.html is not None else None
        # All before any: what is missing should show before hours of frames.
        measures = [job.measures() for _ in job.reconstructions]
        for number, each in enumerate(measures):
            sides.append(_compare_side(console, job, number, each, report))
            if report is not None:
                report.set_distances(number, sides[-1].distances)
    write(console, job, sides)
    show(console, job, sides)
    console.result(summary(job, sides))
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
    facts: dict[str, JsonValue] = {"original": job.original, "reconstruction": path}
    if job.protocol is not None:
        facts["protocol"] = job.protocol.describe()
    return Side(label, comparison, measures.figures, facts)


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
    latents: list[StatsReport | None] = [StatsReport.load(path) for path in job.stats]
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
    info = ReportRun(
        title=job.heading,
        command=shlex.join(["wfvae", *sys.argv[1:]]),
        versions=versions(),
        options={"originals": job.original, **job.options},
        notes=() if job.protocol is None else (job.protocol.describe(),),
    )
    return Report(job.targets.html, models, info, overwrite=job.targets.overwrite)
