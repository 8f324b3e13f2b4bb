"""Scores in a terminal: a line for a clip, tables for files and for several models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from wfvae_cli.cli import measuring as m
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.tables import print_table
from wfvae_cli.metrics.result import LABELS, Comparison, JsonValue

if TYPE_CHECKING:
    from wfvae_cli.cli.scores import Side, Subject

_SHOWN = ("psnr", "ssim", "ms_ssim", "flicker_psnr", "lpips")


def show(console: Console, job: Subject, sides: Sequence[Side]) -> None:
    """Print scores: a line for a clip, tables for files or several reconstructions."""
    if job.protocol is not None:
        console.say(job.protocol.describe())
    if console.json or console.quiet:
        return
    if len(sides) > 1:
        _print_ranking(sides)
    elif job.folders:
        _print_files(sides[0].comparison)
    else:
        result = sides[0].comparison.files[0].result
        console.say(f"{result.frames} frames of {result.width}x{result.height}, {result.bits} bits")
        console.say(m.describe_scores(result))
    for side in sides:
        whose = f"{side.label}: " if len(sides) > 1 else ""
        for line in describe_distances(side.distances):
            console.say(f"{whose}{line}")


def describe_distances(distances: Mapping[str, JsonValue]) -> Iterator[str]:
    """A line for each of the distances over all frames."""
    for name in (name for name in distances if not name.endswith("_samples")):
        value, samples = distances[name], distances[f"{name}_samples"]
        shown = f"{value:.4f}" if isinstance(value, float) else "too few samples"
        yield f"{name.upper()} {shown} ({samples} samples)"


def _print_ranking(sides: Sequence[Side]) -> None:
    """A row for each set of reconstructions, highest mean PSNR first."""
    ranked = sorted(sides, key=lambda side: -side.comparison.summaries["psnr"].mean)
    shown = [name for name in _SHOWN if any(name in side.comparison.summaries for side in sides)]
    rows = []
    for rank, side in enumerate(ranked, start=1):
        summaries = side.comparison.summaries
        means = [summaries[name].mean if name in summaries else None for name in shown]
        cells = [_score(name, mean) for name, mean in zip(shown, means, strict=True)]
        rows.append((side.label, str(rank), str(len(side.comparison.files)), *cells))
    print_table(("name", "rank", "files", *(LABELS[name] for name in shown)), rows)


def _print_files(result: Comparison) -> None:
    """Every file, then what they have in common."""
    summaries = result.summaries
    shown = [name for name in _SHOWN if name in summaries]
    header = ("file", "frames", *(LABELS[name] for name in shown), "worst frame")
    rows = [
        (
            file.name,
            str(file.result.frames),
            *(_score(name, getattr(file.result, name)) for name in shown),
            f"{file.result.worst_frame.index}: {m.decibels(file.result.worst_frame.psnr)}",
        )
        for file in result.files
    ]
    print_table(
        header, rows, spare=(LABELS["flicker_psnr"], "worst frame", LABELS["ms_ssim"], "frames")
    )
    print_table(
        ("score", "mean", "median", "5th percentile", "95th percentile"),
        [
            (
                LABELS[name],
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
