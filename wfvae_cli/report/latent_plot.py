"""`wfvae stats --plot`: a latent space on one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from wfvae_cli.report.figure import (
    BLUE,
    GREY,
    INK,
    MUTED,
    ORANGE,
    RED,
    new_page,
    panel_title,
    plain,
    save,
    title,
)
from wfvae_cli.stats.report import StatsReport
from wfvae_cli.stats.summary import normalised_density

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EDGES = tuple(-5 + 0.125 * k for k in range(81))
_TOP, _HIGHEST = 0.46, 1.5
"""Density that every histogram shows at least, and at most: N(0, 1) has 0.4 at its peak."""
_NAMED_SOURCES = 3


def plot_stats(report: StatsReport, path: Path, *, overwrite: bool = False) -> None:
    """Draw channel histograms against N(0, 1), means and stds, and channel correlations.

    Args:
        report: with at least one clip and no constant channel.
        path: the PNG, SVG or PDF to write.
        overwrite: whether one that exists may be replaced.

    Raises:
        UsageError: the suffix names another format.
        InputError: the report is empty or has a constant channel.
        MissingExtraError: matplotlib is not installed.
        OutputError: the file exists and `overwrite` is false, or it cannot be written.
    """
    s = report.summary
    channels = len(s.mean)
    columns = 4 if channels <= 16 else 8
    rows = math.ceil(channels / columns)
    grid_height = max(1.5 * rows, 1.9)
    page: Any = new_page(12.5, 0.75 + grid_height + 4.3)
    head, top, bottom = page.subfigures(3, 1, height_ratios=(0.75, grid_height, 4.3))
    kl = "" if s.kl_total is None else f" · KL {s.kl_total:.2f} nats per position"
    dataset = dataset_name(report.run)
    title(
        head,
        f"Latents of {report.model.name}" + (f" on {dataset}" if dataset else ""),
        f"{s.clips:,} clips · {s.count:,} latents per channel · mean {s.global_mean:.3f}, "
        f"std {s.global_std:.3f} · beyond 3σ {s.beyond_3_sigma.share:.2%}{kl}",
    )
    _draw_histograms(top, report, rows, columns)
    left, right = bottom.subfigures(1, 2, width_ratios=(1.5, 1))
    _draw_bars(left, report)
    _draw_correlation(right, report)
    save(page, path, overwrite=overwrite)


def dataset_name(run: Mapping[str, Any]) -> str:
    """Name the data of a report: the last parts of its sources' paths; "" if unknown."""
    sources: list[str] = []
    for part in run.get("merged") or [run]:
        sources += [source for source in part.get("sources", []) if source not in sources]
    names = [PurePosixPath(source.replace("\\", "/")).name or source for source in sources]
    if len(names) > _NAMED_SOURCES:
        more = len(names) - _NAMED_SOURCES + 1
        return f"{', '.join(names[: _NAMED_SOURCES - 1])} and {more} more"
    return ", ".join(names)


def _draw_histograms(figure: Any, report: StatsReport, rows: int, columns: int) -> None:
    """A small histogram of each channel's normalised latents, with N(0, 1) as a line."""
    figure.suptitle(
        "Normalised latents, (z − shift) · scale, density against N(0, 1)",
        fontsize=10, x=0.008, ha="left", color=INK,
    )  # fmt: skip
    x = np.linspace(-5, 5, 201)
    normal = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    channels = len(report.summary.mean)
    densities = [normalised_density(report.stats, c, _EDGES) for c in range(channels)]
    # One scale for all: a few spikes must not flatten the other channels, and are marked instead.
    tallest = sorted(max(density) for density in densities)
    top = min(_HIGHEST, max(_TOP, 1.06 * tallest[int(0.9 * (channels - 1))]))
    for c, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if c >= channels:
            axes.set_visible(False)
            continue
        axes.stairs(densities[c], _EDGES, fill=True, color=BLUE, alpha=0.75)
        axes.plot(x, normal, color=ORANGE, linewidth=1.1)
        axes.set_xlim(-5, 5)
        axes.set_ylim(0, top)
        axes.set_xticks([-4, -2, 0, 2, 4])
        axes.set_yticks([0, 0.2, 0.4] if top < 0.8 else [0, 0.5, 1])
        plain(axes, size=6.5)
        if c % columns:
            axes.set_yticklabels([])
        if c + columns < channels:
            axes.set_xticklabels([])
        _mark_clipped(axes, densities[c], top)
        _write_in(axes, 0.02, str(c), size=8.5, weight="bold", color=INK, ha="left")
        # Adding 0.0 turns a rounded -0.0 into 0.0.
        skew = round(report.summary.skewness[c], 1) + 0.0
        kurtosis = round(report.summary.kurtosis[c], 1) + 0.0
        _write_in(axes, 0.99, f"skew {skew:+.1f}\nkurt {kurtosis:+.1f}", size=6, color=MUTED)


def _mark_clipped(axes: Axes, density: Sequence[float], top: float) -> None:
    """Mark a channel whose bars leave the frame with a triangle and the height of the tallest."""
    tallest = max(density)
    if tallest <= top:
        return
    at = _EDGES[density.index(tallest)] + (_EDGES[1] - _EDGES[0]) / 2
    axes.plot([at], [top], marker="^", color=RED, markersize=5, clip_on=False, zorder=6)
    axes.annotate(f"{tallest:.2g}", (at, top), xytext=(5, -6), textcoords="offset points",
                  fontsize=6.5, color=RED, weight="bold")  # fmt: skip


def _write_in(
    axes: Any, x: float, text: str, *, size: float, color: str, weight: str = "normal",
    ha: str = "right",
) -> None:  # fmt: skip
    axes.text(x, 0.97, text, transform=axes.transAxes, va="top", ha=ha, fontsize=size,
              weight=weight, color=color)  # fmt: skip


def _draw_bars(figure: Any, report: StatsReport) -> None:
    """Means with one std to either side, and KL (or the stds alone) below."""
    s = report.summary
    at = np.arange(len(s.mean))
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.bar(at, 2 * np.array(s.std), bottom=np.array(s.mean) - s.std, width=0.72, color=BLUE,
              alpha=0.35, label="mean ± std")  # fmt: skip
    upper.use_sticky_edges = False
    upper.hlines(s.mean, at - 0.36, at + 0.36, color=BLUE, linewidth=2)
    upper.axhline(s.global_mean, color=ORANGE, linewidth=1, label="mean ± std of all channels")
    for sign in (-1, 1):
        upper.axhline(s.global_mean + sign * s.global_std, color=ORANGE, linewidth=0.8, ls=":")
    panel_title(upper, "Mean ± standard deviation, raw latents")
    upper.legend(fontsize=7, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))
    if s.kl is None:
        lower.bar(at, s.std, width=0.72, color=BLUE)
        panel_title(lower, "Standard deviation")
    else:
        lower.bar(at, s.kl, width=0.72, color=BLUE)
        panel_title(lower, "KL to N(0, 1), nats per latent")
    lower.set_xlabel("channel", fontsize=8.5, color=INK)
    step = max(1, math.ceil(len(at) / 16))
    lower.set_xticks(at[::step])
    lower.set_xlim(-0.7, len(at) - 0.3)
    for axes in (upper, lower):
        plain(axes)


def _draw_correlation(figure: Any, report: StatsReport) -> None:
    """The channels' correlations; the diagonal, which is always 1, is left out of the scale."""
    axes: Any = figure.subplots()
    matrix = np.array(report.summary.correlation)
    np.fill_diagonal(matrix, np.nan)  # drawn as nothing
    worst = float(np.nanmax(np.abs(matrix))) if len(matrix) > 1 else 0.0
    limit = worst or 1.0
    image = axes.imshow(matrix, vmin=-limit, vmax=limit, cmap="RdBu_r", interpolation="nearest")
    axes.set_facecolor("#e6e9ed")
    panel_title(axes, f"Correlation of channels (largest {worst:.2f})")
    step = max(1, math.ceil(len(matrix) / 16))
    axes.set_xticks(np.arange(0, len(matrix), step))
    axes.set_yticks(np.arange(0, len(matrix), step))
    axes.tick_params(labelsize=7, length=2, color=GREY)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=28)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
