"""The one style of all plots, and the formats that they are written in. Needs the extra `plot`."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfvae_cli.atomic import atomic_file
from wfvae_cli.errors import MissingExtraError
from wfvae_cli.latents.strings import clean_text
from wfvae_cli.report.formats import plot_format

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#2563b8", "#d4620e", "#23845a", "#8546b8"
RED, TEAL, OLIVE, SLATE = "#b8224f", "#0f7f90", "#7a6a12", "#5b6472"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED, TEAL, OLIVE, SLATE)
"""Colours of models, as on the pages."""
GREY, INK, MUTED, FAINT = "#9aa3ad", "#1d232b", "#5d6875", "#e6e9ed"

# Neither the version of matplotlib nor the time: the same figures give the same bytes.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def check_plot(path: Path) -> None:
    """Fail before the work where a plot could not be drawn.

    Raises:
        UsageError: the suffix names no format.
        MissingExtraError: matplotlib is not installed.
    """
    plot_format(path)
    new_page(1, 1)


def new_page(width: float, height: float) -> Figure:
    """An empty page of so many inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "a plot") from error
    return Figure(figsize=(width, height), dpi=120, facecolor="white", layout="constrained")


def title(page: Any, heading: str, subtitle: str) -> None:
    """Put a heading and a line below it at the top left of a (sub)figure's own strip.

    Names of files are shown as they are: dollar signs start no formula. What no font can draw, such
    as bytes that are not UTF-8, becomes a replacement character.
    """
    heading, subtitle = clean_text(heading), clean_text(subtitle)
    page.text(
        0.008, 0.86, heading, fontsize=15, weight="bold", color=INK, va="top", parse_math=False
    )
    page.text(0.008, 0.3, subtitle, fontsize=9.5, color=MUTED, va="top", parse_math=False)


def plain(axes: Axes, *, size: float = 8) -> None:
    """Quiet frames and ticks."""
    axes.tick_params(labelsize=size, length=2.5, color=GREY, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)


def panel_title(axes: Axes, text: str) -> None:
    """Head a panel at its left."""
    axes.set_title(text, fontsize=10, loc="left", color=INK)


def rendered(page: Figure, form: str) -> bytes:
    """The page as PNG, SVG or PDF; the same page gives the same bytes."""
    import matplotlib as mpl

    file = io.BytesIO()
    settings: Any = {"svg.hashsalt": "wfvae", "svg.fonttype": "path", "pdf.fonttype": 42}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # Names of files may hold letters that matplotlib's own font lacks: boxes must do.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        page.savefig(file, format=form, metadata=_METADATA[form])
    return file.getvalue()


def save(page: Figure, path: Path, *, overwrite: bool = False) -> None:
    """Write the page in the format of the path's suffix, whole or not at all.

    Raises:
        UsageError: the suffix names no format.
        OutputError: the file exists and `overwrite` is false, or it cannot be written.
    """
    content = rendered(page, plot_format(path))
    with atomic_file(path, overwrite=overwrite) as file:
        file.write(content)
