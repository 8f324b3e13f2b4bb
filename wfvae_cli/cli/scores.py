"""Scores of commands that measure: showing them, writing them, putting them on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.measuring import Targets
from wfvae_cli.cli.output import trackers

if TYPE_CHECKING:
    from wfvae_cli.metrics.protocol import Protocol
    from wfvae_cli.metrics.result import Comparison, JsonValue


@dataclass(frozen=True)
class Subject:
    """Inputs of a comparison."""

    original: str
    title: str
    """Short name of the originals."""
    labels: tuple[str, ...]
    """Short names of the reconstructions: of models, folders or files."""
    folders: bool
    """True where there may be several files."""
    targets: Targets
    protocol: Protocol | None = None

    @property
    def heading(self) -> str:
        """The title of plots and pages."""
        names = " and ".join(self.labels) if len(self.labels) < 4 else f"{len(self.labels)} sets"
        return f"{names} against {self.title}"


@dataclass(frozen=True)
class Side:
    """The scores of one set of reconstructions."""

    label: str
    comparison: Comparison
    distances: dict[str, JsonValue]
    facts: dict[str, JsonValue]
    """Model and options that made it, for reports."""


def write(console: Console, subject: Subject, sides: Sequence[Side]) -> None:
    """Write the outputs that were asked for; pages and stills are written already."""
    targets, written = subject.targets, []
    if targets.report is not None:
        _write_scores(targets.report, subject, sides)
        written.append(targets.report)
    if targets.plot is not None:
        _draw(targets.plot, subject, sides)
        written.append(targets.plot)
    if targets.html is not None:
        written.append(targets.html / "index.html")
    for target in trackers(targets.log_to):
        from wfvae_cli.report.tracking import log_comparison

        for side in sides:
            facts = {**side.facts, **side.distances}
            log_comparison(target, side.label, side.comparison, side.distances, facts)
    if written:
        console.say("wrote " + ", ".join(map(str, written)))
    if targets.worst is not None:
        console.say(f"wrote stills of the worst frames into {targets.worst[1]}")


def summary(
    subject: Subject, sides: Sequence[Side], *, per_frame: bool = False
) -> dict[str, JsonValue]:
    """The JSON object of stdout and of `--report`: flat for one side, a list for several."""

    def scores(side: Side) -> dict[str, JsonValue]:
        comparison = side.comparison
        found = comparison if subject.folders else comparison.files[0].result
        return {**side.facts, **side.distances, **found.to_json(per_frame=per_frame)}

    if len(sides) == 1:
        return scores(sides[0])
    return {
        "original": subject.original,
        "reconstructions": [{"name": side.label, **scores(side)} for side in sides],
    }


def _write_scores(path: Path, subject: Subject, sides: Sequence[Side]) -> None:
    from wfvae_cli.metrics.report import write_comparisons, write_report

    overwrite = subject.targets.overwrite
    if len(sides) == 1:
        comparison = sides[0].comparison
        result = comparison if subject.folders else comparison.files[0].result
        facts = {**sides[0].facts, **sides[0].distances}
        write_report(path, result, extra=facts, overwrite=overwrite)
        return
    content = summary(subject, sides, per_frame=True)
    comparisons = {side.label: side.comparison for side in sides}
    write_comparisons(path, comparisons, content, overwrite=overwrite)


def _draw(path: Path, subject: Subject, sides: Sequence[Side]) -> None:
    from wfvae_cli.report.figure import save
    from wfvae_cli.report.metric_plots import plot_clips, plot_comparisons

    if subject.folders:
        page = plot_comparisons({side.label: side.comparison for side in sides}, subject.heading)
    else:
        clips = {side.label: side.comparison.files[0].result for side in sides}
        page = plot_clips(clips, subject.heading)
    save(page, path, overwrite=subject.targets.overwrite)
