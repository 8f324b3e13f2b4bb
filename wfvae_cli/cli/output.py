"""Options about outputs that several commands share."""

from __future__ import annotations

from typing import Annotated

from wfvae_cli.option import Option

Overwrite = Annotated[bool, Option("Replace OUT if it exists.", "Output", common=True)]
