"""Outputs as several commands name them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wfvae_cli.option import Option

if TYPE_CHECKING:
    from wfvae_cli.report.tracking import Target

Overwrite = Annotated[bool, Option("Replace OUT if it exists.", "Output", common=True)]

LogTo = Annotated[
    list[str] | None,
    Option(
        "Log the figures to tensorboard:DIR or wandb:PROJECT (extras of those names); may be "
        "repeated. Nothing is sent anywhere unless WANDB_MODE says so.",
        "Output",
        metavar="TRACKER",
    ),
]


def trackers(log_to: list[str] | None) -> list[Target]:
    """Return the trackers that figures are logged to.

    Raises:
        UsageError: a text names no tracker.
    """
    from wfvae_cli.report.tracking import Target

    return [Target.parse(text) for text in log_to or []]


def display(path: str | Path) -> str:
    """Return the name of an input or output in messages."""
    return {"-": "standard input or output"}.get(str(path), str(path))
