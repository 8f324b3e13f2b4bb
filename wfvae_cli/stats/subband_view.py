"""The wavelet analysis as a table and on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wfvae_cli.stats.figure import BLUE, INK, ORANGE, new_page, plain, save, title
from wfvae_cli.stats.subband_clip import NAMES
from wfvae_cli.stats.subbands import Subband, SubbandStats
from wfvae_cli.stats.table import Table, bar

_SHADES = (BLUE, ORANGE, "#5a9e6f", "#8a6bb1", "#b5534f", "#6d7780")


def subband_table(stats: SubbandStats) -> Table:
    """One row per subband of every level; the bar shows the entropy.

    Raises:
        InputError: there is no clip.
    """
    rows = stats.subbands()
    top = max(row.entropy for row in rows)
    return Table(
        ("level", "subband", "energy", "share", "entropy (bits)", ""),
        tuple(
            (
                str(row.level),
                row.name,
                f"{row.energy:.3e}",
                f"{row.share:.3%}",
                f"{row.entropy:.3f}",
                bar(row.entropy, top),
            )
            for row in rows
        ),
    )


def plot_subbands(stats: SubbandStats, path: Path, *, overwrite: bool = False) -> None:
    """Draw energy (log scale) and entropy of every subband, a colour for each level.

    Raises:
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
    energy.set_title("Energy: mean squared coefficient, pixels in [−1, 1]", fontsize=10,
                     loc="left", color=INK)  # fmt: skip
    energy.legend(fontsize=8, frameon=False, ncols=stats.levels, loc="upper right")
    _bars(entropy, stats, [(row, row.entropy) for row in rows], bottom=0.0)
    entropy.set_title("Entropy, bits per coefficient", fontsize=10, loc="left", color=INK)
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
        axes.bar(at, tops - bottom, width * 0.92, bottom=bottom, color=_SHADES[level - 1],
                 label=f"level {level}")  # fmt: skip
