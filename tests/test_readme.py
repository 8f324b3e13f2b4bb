"""What the README says is true; its Python and its links are tested with the documentation."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CHINESE = (ROOT / "README.zh-CN.md").read_text()


def test_every_command_is_mentioned() -> None:
    from wfvae_cli.cli.app import COMMANDS

    for name in COMMANDS:
        assert f"wfvae {name}" in README, name


def test_every_family_is_in_both_tables() -> None:
    from wfvae_cli.models.diffusers_table import CLASSES
    from wfvae_cli.models.published import PUBLISHED

    families = {entry.family for entry in PUBLISHED} | {entry.family for entry in CLASSES.values()}
    for family in families:
        assert f"`{family}`" in README, family
        assert f"`{family}`" in CHINESE, family


def test_ci_finds_the_test_command() -> None:
    for text in (README, CHINESE):
        assert re.search(r"^ *pip install .*&& *pytest", text, re.MULTILINE)
