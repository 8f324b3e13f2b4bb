"""One page of curves: what every frame, or every file, lost. Needs the extra `plot`."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from wfvae_cli.metrics.extras import require
from wfvae_cli.metrics.result import ClipResult, Comparison

_BLUE, _ORANGE, _GREEN, _PURPLE = "#2563a8", "#d9730d", "#2e8b57", "#7d4fa8"
_GREY, _INK = "#c9c9c9", "#222222"
_STYLE = {"psnr": ("PSNR", _BLUE), "flicker_psnr": ("PSNR of frame differences", _ORANGE)}
_STYLE |= {"ssim": ("SSIM", _GREEN), "ms_ssim": ("MS-SSIM", _PURPLE), "lpips": ("LPIPS", _BLUE)}
_PANELS = (
    ("dB", ("psnr", "flicker_psnr")),
    ("similarity", ("ssim", "ms_ssim")),
    ("LPIPS, lower is better", ("lpips",)),
)


def plot_clip(result: ClipResult, *, title: str) -> bytes:
    """Draw the scores of every frame over the clip, its worst frame marked.

    Identical frames, whose PSNR is infinite, leave a gap.

    Args:
        result: of one clip.
        title: headline, such as the clip's name.

    Returns:
        A PNG of about 1400 pixels in width.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    columns = {name: [getattr(frame, name) for frame in result.per_frame] for name in _STYLE}
    page, axes = _page(columns, title, _clip_facts(result))
    frames = [frame.index for frame in result.per_frame]
    for axis, (_, names) in axes:
        for name in names:
            _curve(axis, frames, columns[name], name, mean=getattr(result, name))
    worst = result.worst_frame
    if math.isfinite(worst.psnr):
        label = f"worst: frame {worst.index}\n{worst.psnr:.4g} dB"
        axes[0][0].plot([worst.index], [worst.psnr], "o", color=_INK, zorder=5, label=label)
    for axis, _ in axes:
        _legend(axis)
    axes[-1][0].set_xlabel("frame")
    return _png(page)


def plot_comparison(comparison: Comparison, *, title: str) -> bytes:
    """Draw the scores of every file, ordered from the lowest PSNR to the highest.

    Args:
        comparison: of many files.
        title: headline, such as the directories' names.

    Returns:
        A PNG of about 1400 pixels in width.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    files = comparison.worst(len(comparison.files))
    columns = {name: [getattr(file.result, name) for file in files] for name in _STYLE}
    summaries = comparison.summaries
    facts = f"{len(files)} files"
    if comparison.failed:
        facts += f", {len(comparison.failed)} more skipped"
    page, axes = _page(columns, title, f"{facts}; one point per file, lowest PSNR first")
    places = list(range(1, len(files) + 1))
    for axis, (_, names) in axes:
        for name in names:
            if name in summaries:
                _curve(axis, places, columns[name], name, mean=summaries[name].mean, dots=True)
        _legend(axis)
    axes[-1][0].set_xlabel("file, by PSNR")
    return _png(page)


def _page(
    columns: dict[str, list[float | None]], title: str, facts: str
) -> tuple[Any, list[tuple[Any, tuple[str, tuple[str, ...]]]]]:
    """A figure with one panel for every group of scores that are there at all."""
    figure = require("matplotlib.figure", extra="plot", purpose="a plot")
    ticker = require("matplotlib.ticker", extra="plot", purpose="a plot")
    panels = [
        (label, present)
        for label, names in _PANELS
        if (present := tuple(name for name in names if _drawable(columns[name])))
    ] or [_PANELS[0]]
    page = figure.Figure(figsize=(10, 1.3 + 2.4 * len(panels)), dpi=140, layout="constrained")
    page.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=_INK)
    grid = page.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    grid[0].set_title(facts, loc="left", fontsize=9.5, color="#555555")
    for axis, (label, _) in zip(grid, panels, strict=True):
        axis.set_ylabel(label, color=_INK)
        axis.grid(axis="y", color="#ececec", linewidth=0.8)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    return page, list(zip(grid, panels, strict=True))


def _curve(
    axis: Any,
    places: Sequence[int],
    values: Sequence[float | None],
    name: str,
    *,
    mean: float | None,
    dots: bool = False,
) -> None:
    """One score with its mean as a dashed line."""
    label, colour = _STYLE[name]
    if mean is not None:
        label += f"\nmean {mean:.4g}" if math.isfinite(mean) else "\nidentical"
    heights = [math.nan if v is None or math.isinf(v) else v for v in values]
    few = len(places) <= 60
    axis.plot(
        places,
        heights,
        color=colour,
        linewidth=0 if dots else 1.4,
        marker="o" if dots or few else "",
        markersize=4 if dots else 2.5,
        label=label,
    )
    if mean is not None and math.isfinite(mean):
        axis.axhline(mean, color=colour, linewidth=0.9, linestyle=(0, (4, 4)), alpha=0.6)


def _legend(axis: Any) -> None:
    """Name the curves beside the panel, where they hide nothing; none if it is empty."""
    if axis.get_legend_handles_labels()[1]:
        axis.legend(loc="upper left", bbox_to_anchor=(1.005, 1), frameon=False, fontsize=9)


def _drawable(values: Sequence[float | None]) -> bool:
    return any(value is not None and math.isfinite(value) for value in values)


def _clip_facts(result: ClipResult) -> str:
    facts = f"{result.frames} frames, {result.width}x{result.height}, {result.bits}-bit RGB"
    if result.identical_frames:
        facts += f"; {result.identical_frames} identical, left out of PSNR"
    return facts


def _png(page: Any) -> bytes:
    file = io.BytesIO()
    # Without the version of matplotlib: the same input gives the same bytes anywhere.
    page.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
