"""Superseded by `report.metric_plots`; here until `roundtrip` draws from there."""

from __future__ import annotations

from wfvae_cli.metrics.result import ClipResult, Comparison
from wfvae_cli.report.figure import rendered
from wfvae_cli.report.metric_plots import plot_clips, plot_comparisons


def plot_clip(result: ClipResult, *, title: str) -> bytes:
    """A PNG of a clip's scores."""
    return rendered(plot_clips({title: result}, title), "png")


def plot_comparison(comparison: Comparison, *, title: str) -> bytes:
    """A PNG of the scores of many files."""
    return rendered(plot_comparisons({title: comparison}, title), "png")
