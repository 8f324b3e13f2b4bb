"""`wfvae models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wfvae_cli.cli.console import Console

if TYPE_CHECKING:
    from wfvae_cli.models.published import PublishedModel

EXAMPLES = """
    wfvae models
    wfvae models --json
    wfvae roundtrip in.mp4 -o out.mp4 --model wan-2.1
"""


def models(console: Console) -> None:
    """List the models that have a name, and which of them are on this machine.

    Folders, files and owner/repo on Hugging Face load too: see --model of the other commands.
    """
    from wfvae_cli.models.published import PUBLISHED

    rows = [describe(entry) for entry in PUBLISHED]
    if console.json:
        console.result({"models": rows})
        return
    from wfvae_cli.cli.tables import print_table

    header = ("name", "family", "strides", "channels", "parameters", "licence", "here", "source")
    print_table(
        header,
        [
            (
                row["name"],
                row["family"],
                "x".join(map(str, row["strides"])),
                str(row["channels"]),
                f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "unknown",
                row["licence"] or "unknown",
                "embedded" if row["embedded"] else "cached" if row["cached"] else "no",
                row["source"] or "",
            )
            for row in rows
        ],
        words=("family", "licence", "here", "source"),
        spare=("source",),
    )


def describe(entry: PublishedModel) -> dict[str, Any]:
    """Describe a model without its files; all values are fit for JSON."""
    from wfvae_cli.models.hub import is_cached

    return {
        "name": entry.name,
        "family": entry.family,
        "source": None if entry.source is None else str(entry.source),
        "file": entry.pickle,
        "licence": entry.licence,
        "strides": list(entry.strides.values),
        **entry.strides.clip_strings,
        "channels": entry.channels,
        "parameters": entry.parameters,
        "embedded": entry.source is None,
        "cached": is_cached(entry),
    }
