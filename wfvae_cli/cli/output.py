"""Outputs as several commands name them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from wfvae_cli.option import Option

Overwrite = Annotated[bool, Option("Replace OUT if it exists.", "Output", common=True)]


def display(path: str | Path) -> str:
    """What messages call an input or output."""
    return {"-": "standard input or output"}.get(str(path), str(path))
