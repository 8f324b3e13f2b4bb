"""Pages of plots: what the statistics' drawings share. matplotlib is the extra `plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfvae_cli.atomic import atomic_path
from wfvae_cli.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, INK = "#2f6db3", "#d9772b", "#9aa3ad", "#2b3138"


def new_page(width: float, height: float) -> Figure:
    """An empty page of so many inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "drawing statistics") from error
    return Figure(figsize=(width, height), dpi=120, facecolor="white", layout="constrained")


def title(page: Any, heading: str, subtitle: str) -> None:
    """Put a heading and a line below it at the top left of a (sub)figure's own strip."""
    page.text(0.008, 0.86, heading, fontsize=15, weight="bold", color=INK, va="top")
    page.text(0.008, 0.3, subtitle, fontsize=9.5, color="#5b646e", va="top")


def plain(axes: Axes, *, size: float = 8) -> None:
    """Quiet frames and ticks."""
    axes.tick_params(labelsize=size, length=2.5, color=GREY, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)


def save(page: Figure, path: Path, *, overwrite: bool = False) -> None:
    """Write the page as PNG, whole or not at all; the same page gives the same bytes.

    Raises:
        OutputError: the file exists and `overwrite` is false, or it cannot be written.
    """
    with atomic_path(path, overwrite=overwrite) as part:
        page.savefig(part, format="png", metadata={"Software": None})
