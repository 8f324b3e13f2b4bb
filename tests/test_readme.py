"""What the README says is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import wfvae
from tests.media.conftest import write_clip

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def make_dataset(folder: Path) -> None:
    """What the training example starts from: `latents/` and `stats.json`."""
    videos = folder / "videos"
    videos.mkdir()
    for i in range(4):
        write_clip(videos / f"{i}.mp4", 17 + i)
    assert wfvae("encode", videos, "-o", folder / "latents", "--size", "64x48").code == 0
    assert wfvae("stats", folder / "latents", "-o", folder / "stats.json").code == 0


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: code.strip().splitlines()[-1])
def test_python_examples_run(tmp_path: Path, example: str) -> None:
    if "LatentDataset" in example:
        make_dataset(tmp_path)
    sample = tmp_path / "tests" / "data" / "sample.mp4"  # in the place of a longer one
    sample.parent.mkdir(parents=True)
    write_clip(sample, 21)
    answer = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=100
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
