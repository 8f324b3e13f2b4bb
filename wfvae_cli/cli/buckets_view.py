"""The display of buckets and windows: the clips of each, and why others were skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wfvae_cli.cli.console import Console
from wfvae_cli.errors import InputError

if TYPE_CHECKING:
    from wfvae_cli.dataset.run import Summary

_MOST_REASONS = 3


def tell_parts(console: Console, summary: Summary) -> None:
    """Print what buckets hold, and why clips were skipped, at the end of a run.

    Raises:
        InputError: no bucket or window takes any clip.
    """
    if summary.buckets:
        tell_buckets(console, summary.buckets)
    reasons = summary.unsuitable
    skipped = sum(reasons.values())
    if skipped and skipped == summary.items:
        raise InputError(
            f"nothing is left to encode: {', '.join(show_reasons(reasons))}. Choose shorter or "
            "smaller --buckets or --windows; manifest.jsonl has the reason for each file"
        )
    if skipped:
        console.say(
            f"skipped {skipped} files, see manifest.jsonl: {', '.join(show_reasons(reasons))}"
        )


def tell_buckets(console: Console, buckets: Mapping[str, tuple[int, int]]) -> None:
    """Show a table of the clips and frames that each bucket has."""
    names = sorted(buckets, key=lambda name: [int(part) for part in name.split("x")])
    rows = [("bucket", "clips", "frames")]
    rows += [(name, str(buckets[name][0]), str(buckets[name][1])) for name in names]
    for line in _aligned(rows):
        console.say(line)
    console.result(
        {
            "event": "buckets",
            "buckets": {n: {"clips": buckets[n][0], "frames": buckets[n][1]} for n in names},
        }
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            (
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            )
        )
        for row in rows
    ]


def show_reasons(reasons: Mapping[str, int]) -> list[str]:
    """Return the most common reasons, those that differ in numbers only together, by an example."""
    kinds: dict[str, dict[str, int]] = {}
    for reason, count in reasons.items():
        kinds.setdefault(reason.partition(":")[0], {})[reason] = count
    shown = []
    for kind, alike in sorted(kinds.items(), key=lambda pair: -sum(pair[1].values())):
        example = next(iter(alike))
        if len(alike) == 1:
            shown.append(f"{alike[example]} because {example!r}")
        else:
            rest = example.partition(":")[2].strip()
            shown.append(f"{sum(alike.values())} because {kind!r}, such as {rest!r}")
    return shown[:_MOST_REASONS]
