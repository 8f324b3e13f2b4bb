"""`wfvae stats --plot`: a latent space on one page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfvae_cli.stats.figure import BLUE, GREY, INK, ORANGE, new_page, plain, save, title
from wfvae_cli.stats.report import StatsReport
from wfvae_cli.stats.summary import normalised_density

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EDGES = tuple(-5 + 0.125 * k for k in range(81))


def plot_stats(report: StatsReport, path: Path, *, overwrite: bool = False) -> None:
    """Draw channel histograms against N(0, 1), means and stds, and channel correlations.

    Args:
        report: with at least one clip and no constant channel.
        path: the PNG to write.
        overwrite: whether one that exists may be replaced.

    Raises:
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
    title(
        head,
        f"Latents of {report.model.name}",
        f"{s.clips:,} clips · {s.count:,} latents per channel · mean {s.global_mean:.3f}, "
        f"std {s.global_std:.3f} · beyond 3σ {s.beyond_3_sigma.share:.2%}{kl}",
    )
    _draw_histograms(top, report, rows, columns)
    left, right = bottom.subfigures(1, 2, width_ratios=(1.5, 1))
    _draw_bars(left, report)
    _draw_correlation(right, report)
    save(page, path, overwrite=overwrite)


def _draw_histograms(figure: Any, report: StatsReport, rows: int, columns: int) -> None:
    """A small histogram of each channel's normalised latents, with N(0, 1) as a line."""
    figure.suptitle(
        "Normalised latents, (z − shift) · scale, against N(0, 1)",
        fontsize=10, x=0.008, ha="left", color=INK,
    )  # fmt: skip
    x = np.linspace(-5, 5, 201)
    normal = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    channels = len(report.summary.mean)
    densities = [normalised_density(report.stats, c, _EDGES) for c in range(channels)]
    # A spike must not flatten the other channels: the tallest bars may leave the frame.
    top = min(1.5, max(0.46, 1.06 * max(max(density) for density in densities)))
    for c, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if c >= channels:
            axes.set_visible(False)
            continue
        axes.stairs(densities[c], _EDGES, fill=True, color=BLUE, alpha=0.75)
        axes.plot(x, normal, color=ORANGE, linewidth=1.1)
        axes.set_xlim(-5, 5)
        axes.set_ylim(0, top)
        axes.set_yticks([])
        axes.set_xticks([-4, -2, 0, 2, 4])
        plain(axes, size=6.5)
        axes.spines["left"].set_visible(False)
        if c + columns < channels:
            axes.set_xticklabels([])
        axes.text(0.02, 0.97, str(c), transform=axes.transAxes, va="top", fontsize=8.5,
                  weight="bold", color=INK)  # fmt: skip
        # Adding 0.0 turns a rounded -0.0 into 0.0.
        skew = round(report.summary.skewness[c], 1) + 0.0
        kurtosis = round(report.summary.kurtosis[c], 1) + 0.0
        axes.text(0.99, 0.97, f"skew {skew:+.1f}\nkurt {kurtosis:+.1f}", va="top", ha="right",
                  transform=axes.transAxes, fontsize=6, color="#5b646e")  # fmt: skip


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
    upper.set_title("Mean ± standard deviation, raw latents", fontsize=10, loc="left", color=INK)
    upper.legend(fontsize=7, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))
    if s.kl is None:
        lower.bar(at, s.std, width=0.72, color=BLUE)
        lower.set_title("Standard deviation", fontsize=10, loc="left", color=INK)
    else:
        lower.bar(at, s.kl, width=0.72, color=BLUE)
        lower.set_title("KL to N(0, 1), nats per latent", fontsize=10, loc="left", color=INK)
    lower.set_xlabel("channel", fontsize=8.5, color=INK)
    step = max(1, math.ceil(len(at) / 16))
    lower.set_xticks(at[::step])
    lower.set_xlim(-0.7, len(at) - 0.3)
    for axes in (upper, lower):
        plain(axes)


def _draw_correlation(figure: Any, report: StatsReport) -> None:
    """The channels' correlation matrix."""
    axes: Axes = figure.subplots()
    matrix = np.array(report.summary.correlation)
    image = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
    worst = np.abs(matrix - np.eye(len(matrix))).max()
    axes.set_title(
        f"Correlation of channels (largest {worst:.2f})", fontsize=10, loc="left", color=INK
    )
    step = max(1, math.ceil(len(matrix) / 16))
    axes.set_xticks(np.arange(0, len(matrix), step))
    axes.set_yticks(np.arange(0, len(matrix), step))
    axes.tick_params(labelsize=7, length=2, color=GREY)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=28)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
