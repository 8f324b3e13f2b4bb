"""Tables and files of `wfvae stats`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.output import LogTo, Overwrite, trackers
from wfvae_cli.errors import UsageError
from wfvae_cli.option import Option

if TYPE_CHECKING:
    from wfvae_cli.stats.report import StatsReport
    from wfvae_cli.stats.subbands import SubbandStats


@dataclass(frozen=True)
class Targets:
    """Files to write."""

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
    log_to: LogTo = None
    overwrite: Overwrite = False

    def check(self) -> None:
        """Check the outputs before hours of work rather than after them."""
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
        for target in trackers(self.log_to):
            target.check()


def merge_files(console: Console, paths: Sequence[Path], targets: Targets) -> None:
    """Combine reports of latents, or of subbands, and write the result."""
    from wfvae_cli.stats.report import StatsReport, merge_reports
    from wfvae_cli.stats.subbands import SCHEMA as SUBBANDS
    from wfvae_cli.stats.subbands import SubbandStats

    if _schema(paths[0]) == SUBBANDS:
        first, *others = [SubbandStats.load(path) for path in paths]
        for other in others:
            first.merge(other)
        write_subbands(console, first, targets)
        return
    write_report(console, merge_reports([StatsReport.load(path) for path in paths]), targets)


def _schema(path: Path) -> str | None:
    from wfvae_cli.stats.scale import read_json

    values = json.loads(read_json(path))
    return values.get("schema") if isinstance(values, dict) else None


def write_report(console: Console, report: StatsReport, targets: Targets) -> None:
    """Show the report, and write what was asked for."""
    text = report.to_json()
    _write_json(text, targets)
    if targets.plot is not None:
        from wfvae_cli.report.latent_plot import plot_stats

        plot_stats(report, targets.plot, overwrite=targets.overwrite)
    for target in trackers(targets.log_to):
        from wfvae_cli.report.tracking import log_stats

        log_stats(target, report)
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
    print_table(*formula_table(), words=("normalised",))


def write_subbands(console: Console, done: SubbandStats, targets: Targets) -> None:
    """Show statistics of subbands, and write what was asked for."""
    from wfvae_cli.cli.tables import print_table
    from wfvae_cli.report.subband_plot import plot_subbands
    from wfvae_cli.stats.table import subband_table

    text = done.to_json()
    _write_json(text, targets)
    if targets.plot is not None:
        plot_subbands(done, targets.plot, overwrite=targets.overwrite)
    if not (console.json or console.quiet):
        what = "3D, videos" if done.kind == "video" else "2D, images"
        title = f"Haar subbands ({what}) of {done.clips} clips"
        print_table(*subband_table(done), words=("",), title=title)
    written = [path for path in (targets.output, targets.plot) if path is not None]
    _tell(console, written, text, ("state", "clip_ids"))


def _write_json(text: str, targets: Targets) -> None:
    from wfvae_cli.atomic import atomic_file

    if targets.output is not None:
        with atomic_file(targets.output, overwrite=targets.overwrite) as file:
            file.write(text.encode())


def _tell(console: Console, written: Sequence[Path], report: str, internal: Sequence[str]) -> None:
    """List what was written, and put the report without its `internal` fields on stdout."""
    if written:
        console.say("wrote " + ", ".join(map(str, written)))
    if console.json:
        fields = json.loads(report)
        console.result({name: value for name, value in fields.items() if name not in internal})
