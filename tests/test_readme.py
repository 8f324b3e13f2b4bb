"""What the README says is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: code.strip().splitlines()[-1])
def test_python_examples_run(tmp_path: Path, example: str) -> None:
    code = example.replace("tests/data/", f"{ROOT / 'tests' / 'data'}/")
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert answer.returncode == 0, answer.stderr


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


def test_every_command_is_mentioned() -> None:
    from wfvae_cli.cli.app import app

    for command in app.registered_commands:
        assert f"wfvae {command.name}" in README


def test_ci_finds_the_test_command() -> None:
    assert re.search(r"^ *pip install .*&& *pytest", README, re.MULTILINE)
