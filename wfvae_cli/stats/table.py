"""Rows of text for a terminal; the command line draws them."""

from __future__ import annotations

from typing import NamedTuple

from wfvae_cli.stats.report import StatsReport
from wfvae_cli.stats.scale import FORMULAS
from wfvae_cli.stats.subbands import SubbandStats
from wfvae_cli.stats.summary import RANKS, normalised_density

_BLOCKS = " ▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_SPARK_EDGES = tuple(-4 + 0.5 * k for k in range(17))
_MEDIAN = RANKS.index(0.5)


class Table(NamedTuple):
    """Cells as plain strings; every row is as long as the header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sparkline(values: tuple[float, ...], top: float | None = None) -> str:
    """One block character for each value, from 0 (a space) to `top` (default: the largest).

    What is above zero shows, however little it is.
    """
    top = max(values, default=0.0) if top is None else top
    if top <= 0:
        return _BLOCKS[0] * len(values)
    steps = len(_BLOCKS) - 1
    return "".join(
        _BLOCKS[0 if value <= 0 else max(1, min(steps, round(value / top * steps)))]
        for value in values
    )


def bar(value: float, top: float, width: int = 12) -> str:
    """A bar to the right, `width` characters long where `value` is `top`."""
    eighths = round(value / top * width * 8) if top > 0 else 0
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def channel_table(report: StatsReport) -> Table:
    """One row per channel; the histogram is of normalised latents from -4 to 4 sigma."""
    s = report.summary
    header = ("channel", "mean", "std", "min", "median", "max", "skew", "kurt", "kl", "scale")
    rows = []
    for c in range(len(s.mean)):
        density = normalised_density(report.stats, c, _SPARK_EDGES)
        rows.append(
            (
                str(c),
                f"{s.mean[c]:.4f}",
                f"{s.std[c]:.4f}",
                f"{s.minimum[c]:.3f}",
                f"{s.quantiles[c][_MEDIAN]:.3f}",
                f"{s.maximum[c]:.3f}",
                f"{s.skewness[c]:.2f}",
                f"{s.kurtosis[c]:.2f}",
                "-" if s.kl is None else f"{s.kl[c]:.3f}",
                f"{s.factors.scale[c]:.4f}",
                sparkline(density),
            )
        )
    return Table((*header, "-4σ … 4σ"), tuple(rows))


def summary_table(report: StatsReport) -> Table:
    """Tabulate the figures of all channels together, a name and a value in each row."""
    s = report.summary
    worst = s.precision.worst
    rows = [
        ("clips", f"{s.clips:,}" + (f" ({n} failed)" if (n := len(report.stats.failed)) else "")),
        ("latents per channel", f"{s.count:,}"),
        ("mean and std of all", f"{s.global_mean:.4f} and {s.global_std:.4f}"),
        ("shift_factor", f"{s.factors.shift_factor:.6g}"),
        ("scaling_factor", f"{s.factors.scaling_factor:.6g}"),
        ("beyond 3 and 5 sigma", f"{s.beyond_3_sigma.share:.3%} and {s.beyond_5_sigma.share:.4%}"),
    ]
    if s.kl_total is not None and s.collapsed is not None:
        rows.append(("KL to N(0, I)", f"{s.kl_total:.3f} nats per latent position"))
        rows.append(("collapsed channels", f"{s.collapsed:.1%} (KL below 0.01 nat)"))
    known = f"±{worst:.2%} of a std (95%)" if s.precision.clips and worst < 1e9 else "too few clips"
    rows.append(("means and stds known to", known))
    return Table(("figure", "value"), tuple(rows))


def formula_table() -> Table:
    """Tabulate each convention's fields, and what encoding does with them."""
    rows = ((name, formula.partition(";")[0]) for name, formula in FORMULAS.items())
    return Table(("convention", "normalised"), tuple(rows))


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
