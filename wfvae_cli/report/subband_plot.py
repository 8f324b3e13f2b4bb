"""`wfvae stats --subbands --plot`: energy and entropy of Haar subbands on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wfvae_cli.report.figure import SERIES, new_page, panel_title, plain, save, title
from wfvae_cli.stats.subband_clip import NAMES
from wfvae_cli.stats.subbands import Subband, SubbandStats


def plot_subbands(stats: SubbandStats, path: Path, *, overwrite: bool = False) -> None:
    """Draw energy (log scale) and entropy of every subband, a colour for each level.

    Args:
        stats: with at least one clip.
        path: the PNG, SVG or PDF to write.
        overwrite: whether one that exists may be replaced.

    Raises:
        UsageError: the suffix names another format.
        InputError: there is no clip.
        MissingExtraError: matplotlib is not installed.
        OutputError: the file exists and `overwrite` is false, or it cannot be written.
    """
    rows = stats.subbands()
    page: Any = new_page(11, 6.6)
    head, body = page.subfigures(2, 1, height_ratios=(0.75, 5.85))
    what = "3D, videos" if stats.kind == "video" else "2D, images"
    letters = "time, height, width" if stats.kind == "video" else "height, width"
    title(
        head,
        f"Haar subbands ({what})",
        f"{stats.clips:,} clips · letters are {letters}; L a sum, H a difference · "
        "entropy of coefficients rounded to 8-bit steps",
    )
    energy, entropy = body.subplots(2, 1, sharex=True)
    floor = min((row.energy for row in rows if row.energy > 0), default=1.0) / 3
    _bars(energy, stats, [(row, max(row.energy, floor)) for row in rows], bottom=floor)
    energy.set_yscale("log")
    panel_title(energy, "Energy: mean squared coefficient, pixels in [−1, 1]")
    energy.legend(fontsize=8, frameon=False, ncols=stats.levels, loc="upper right")
    _bars(entropy, stats, [(row, row.entropy) for row in rows], bottom=0.0)
    panel_title(entropy, "Entropy, bits per coefficient")
    names = NAMES[stats.kind]
    entropy.set_xticks(np.arange(len(names)), names)
    for axes in (energy, entropy):
        plain(axes, size=8.5)
    save(page, path, overwrite=overwrite)


def _bars(
    axes: Any, stats: SubbandStats, heights: list[tuple[Subband, float]], bottom: float
) -> None:
    """Groups of bars, one group for each subband and one bar for each level."""
    names = NAMES[stats.kind]
    width = 0.8 / stats.levels
    for level in range(1, stats.levels + 1):
        tops = np.array([height for row, height in heights if row.level == level])
        at = np.arange(len(names)) + (level - (stats.levels + 1) / 2) * width
        axes.bar(at, tops - bottom, width * 0.92, bottom=bottom, color=SERIES[level - 1],
                 label=f"level {level}")  # fmt: skip
