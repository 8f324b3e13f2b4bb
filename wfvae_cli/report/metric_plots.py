"""Scores of every frame of a clip, or of every file of directories, on one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wfvae_cli.latents.strings import clean_text
from wfvae_cli.metrics.result import FRAME_METRICS, LABELS, ClipResult, Comparison
from wfvae_cli.report.figure import (
    FAINT,
    GREY,
    INK,
    MUTED,
    SERIES,
    new_page,
    panel_title,
    plain,
    title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BARS = 40
"""Files up to which each has a bar and its name; more are drawn as distributions."""
_PANELS = ("psnr", "flicker_psnr", "ssim", "ms_ssim", "lpips")
_UNITS = {"psnr": ", dB", "flicker_psnr": ", dB", "lpips": ", lower is better"}
_NAME_LENGTH = 46
_WIDTH = 11.5


@dataclass(frozen=True)
class _Series:
    """One score of one set of reconstructions."""

    label: str
    colour: str
    values: list[float]
    """NaN where there is none, or where nothing was lost."""
    mean: float | None


def plot_clips(results: Mapping[str, ClipResult], heading: str) -> Figure:
    """Draw the scores of every frame, a panel a score and a line a reconstruction.

    Identical frames, whose PSNR is infinite, leave a gap.

    Args:
        results: of one clip, by the name of the reconstruction; at least one.
        heading: the clip's name.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    first = next(iter(results.values()))
    panels = []
    for name in _PANELS:
        series = [
            _Series(
                clean_text(label),
                SERIES[k % len(SERIES)],
                [_drawn(getattr(frame, name)) for frame in result.per_frame],
                getattr(result, name),
            )
            for k, (label, result) in enumerate(results.items())
        ]
        panels.append((name, series))
    shown = _visible(panels)
    facts = f"{first.frames} frames, {first.width}x{first.height}, {first.bits}-bit RGB"
    if len(results) == 1 and first.identical_frames:
        facts += f"; {first.identical_frames} identical, left out of PSNR"
    page, body = _page(heading, facts, 1.9 * len(shown) + 0.3)
    grid = body.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, series) in zip(grid, shown, strict=True):
        _frame_panel(axes, name, series, named=len(results) > 1)
    if len(results) == 1 and math.isfinite(first.worst_frame.psnr):
        worst = first.worst_frame
        grid[0].plot([worst.index], [worst.psnr], "o", color=INK, markersize=5, zorder=5,
                     label=f"worst: frame {worst.index}, {worst.psnr:.2f} dB")  # fmt: skip
    for axes in grid:
        _legend(axes)
    _whole_numbers(grid[-1])
    grid[-1].set_xlabel("frame", fontsize=8.5, color=INK)
    return page


def plot_comparisons(comparisons: Mapping[str, Comparison], heading: str) -> Figure:
    """Draw the scores of every file, lowest PSNR first.

    Up to `MAX_BARS` files are horizontal bars with their names; more are a distribution a score.

    Args:
        comparisons: by the name of the reconstructions; at least one.
        heading: such as the directories' names.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    first = next(iter(comparisons.values()))
    order = [file.name for file in first.worst(len(first.files))]
    known = set(order)
    for other in comparisons.values():
        order += sorted({file.name for file in other.files} - known)
        known |= {file.name for file in other.files}
    panels = []
    for name in _PANELS:
        series = []
        for k, (label, each) in enumerate(comparisons.items()):
            found = {file.name: getattr(file.result, name) for file in each.files}
            summary = each.summaries.get(name)
            values = [_drawn(found.get(file)) for file in order]
            mean = None if summary is None else summary.mean
            series.append(_Series(clean_text(label), SERIES[k % len(SERIES)], values, mean))
        panels.append((name, series))
    shown = _visible(panels)
    skipped = len({failed.name for each in comparisons.values() for failed in each.failed} - known)
    facts = f"{len(order)} files" + (f", {skipped} more could not be compared" if skipped else "")
    if len(order) <= MAX_BARS:
        height = max(2.2, 0.55 + len(order) * max(0.24, 0.12 * len(comparisons)))
        page, body = _page(heading, f"{facts}, lowest PSNR first; dashed: mean", height)
        grid = body.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, (name, series) in zip(grid, shown, strict=True):
            _bars(axes, name, series)
        _name_files(grid[0], order)
    else:
        page, body = _page(heading, f"{facts}; dashed: mean", 1.9 * len(shown) + 0.3)
        grid = body.subplots(len(shown), 1, squeeze=False)[:, 0]
        for axes, (name, series) in zip(grid, shown, strict=True):
            _distribution(axes, name, series)
    if len(comparisons) > 1:
        _legend(grid[-1] if len(order) <= MAX_BARS else grid[0])
    return page


def _page(heading: str, facts: str, height: float) -> tuple[Figure, Any]:
    page: Any = new_page(_WIDTH, 0.75 + height)
    head, body = page.subfigures(2, 1, height_ratios=(0.75, height))
    title(head, heading, facts)
    return page, body


def _visible(panels: Sequence[tuple[str, list[_Series]]]) -> list[tuple[str, list[_Series]]]:
    """Those with something to draw; PSNR stays, so that no page is empty."""
    return [
        (name, series)
        for name, series in panels
        if name == FRAME_METRICS[0] or any(math.isfinite(v) for each in series for v in each.values)
    ]


def _frame_panel(axes: Any, name: str, series: Sequence[_Series], *, named: bool) -> None:
    """A score over the frames, with its mean as a dashed line."""
    for each in series:
        few = len(each.values) <= 60
        axes.plot(range(len(each.values)), each.values, color=each.colour, linewidth=1.4,
                  marker="o" if few else "", markersize=2.5,
                  label=f"{each.label}, {_mean(each)}" if named else _mean(each))  # fmt: skip
        _mean_line(axes.axhline, each)
    panel_title(axes, LABELS[name] + _UNITS.get(name, ""))
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    plain(axes)


def _bars(axes: Any, name: str, series: Sequence[_Series]) -> None:
    """A horizontal bar for each file and reconstruction, on an axis that fits this score."""
    thickness = 0.8 / len(series)
    finite = [v for each in series for v in each.values if math.isfinite(v)]
    for k, each in enumerate(series):
        at = [row + (k - (len(series) - 1) / 2) * thickness for row in range(len(each.values))]
        axes.barh(at, each.values, thickness * 0.9, color=each.colour, label=each.label)
        _mean_line(axes.axvline, each)
    panel_title(axes, LABELS[name] + _UNITS.get(name, ""))
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    plain(axes)
    axes.tick_params(axis="y", length=0)
    if finite:
        low, high = min(finite), max(finite)
        pad = (high - low) * 0.15 or abs(high) * 0.05 or 1
        # Bars of distances start at 0; decibels and similarities have no zero worth the room.
        axes.set_xlim(0 if name == "lpips" else low - 2 * pad, high + pad)


def _name_files(axes: Any, names: Sequence[str]) -> None:
    shown = [clean_text(name) for name in names]
    labels = [n if len(n) <= _NAME_LENGTH else "…" + n[1 - _NAME_LENGTH :] for n in shown]
    axes.set_yticks(range(len(names)), labels, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _distribution(axes: Any, name: str, series: Sequence[_Series]) -> None:
    """Draw the distribution of the files over a score."""
    finite = [[v for v in each.values if math.isfinite(v)] for each in series]
    low, high = min(map(min, filter(None, finite))), max(map(max, filter(None, finite)))
    pad = (high - low) * 0.02 or 0.5
    edges = [low - pad + (high - low + 2 * pad) * k / 40 for k in range(41)]
    for each, values in zip(series, finite, strict=True):
        axes.hist(values, edges, color=each.colour, alpha=0.55, label=each.label)
        axes.hist(values, edges, color=each.colour, histtype="step", linewidth=1.2)
        _mean_line(axes.axvline, each)
    panel_title(axes, LABELS[name] + _UNITS.get(name, ""))
    axes.set_ylabel("files", fontsize=8.5, color=INK)
    axes.yaxis.get_major_locator().set_params(integer=True)
    plain(axes)


def _mean_line(draw: Any, series: _Series) -> None:
    if series.mean is not None and math.isfinite(series.mean):
        draw(series.mean, color=series.colour, linewidth=0.9, linestyle=(0, (4, 4)), alpha=0.7)


def _mean(series: _Series) -> str:
    if series.mean is None:
        return "no score"
    return f"mean {series.mean:.4g}" if math.isfinite(series.mean) else "identical"


def _legend(axes: Any) -> None:
    """Name the series beside the panel, where they hide nothing; none if there are none."""
    if axes.get_legend_handles_labels()[1]:
        legend = axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.02), frameon=False,
                             fontsize=8, labelcolor=MUTED, borderaxespad=0.2)  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)


def _whole_numbers(axes: Any) -> None:
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(axis="x", color=GREY)


def _drawn(value: float | None) -> float:
    return math.nan if value is None or math.isinf(value) else value
