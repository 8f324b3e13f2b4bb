"""What the program says of itself, of mistakes, and to a shell that completes."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tests.cli.program import wfvae
from wfvae_cli import __version__
from wfvae_cli.cli.app import app


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode"], "missing argument 'INPUT...'; see wfvae encode -h"),
        (["encode", "a.mp4"], "missing option --output / -o; see wfvae encode -h"),
        (["encode", "a", "-o", "z", "--chunk", "x"], "--chunk: expected a whole number"),
        (["bench", "--runs", "0"], "--runs: expected at least 1"),
        (["decode", "z", "-o", "o", "--audio", "x"], "no such option: --audio"),
        (
            ["encode", "a", "-o", "z", "--posterior", "x"],
            "--posterior: expected one of mean, sample, moments, got 'x'",
        ),
        (
            ["convert-cache", "z", "-o", "o"],
            "missing option --format: choose from files, webdataset, musubi, ltx, simpletuner, "
            "energon; see wfvae convert-cache -h",
        ),
        (["compare", "a", "b", "--worst", "3"], "--worst needs 2 values, as --help shows"),
        (["nope"], "no such command 'nope'; see wfvae -h"),
        (["encode", "a", "-o", "z", "--start", "x"], "--start: expected seconds such as 10.5"),
    ],
)
def test_mistakes_are_one_line_like_all_errors(arguments: list[str], message: str) -> None:
    answer = wfvae(*arguments)
    assert answer.code == 2
    assert " ".join(answer.stderr.split()).startswith(f"error: {message}")
    assert "─" not in answer.stderr + answer.stdout


def test_its_version_and_its_help() -> None:
    assert wfvae("-V").stdout == wfvae("--version").stdout == f"wfvae {__version__}\n"
    assert "roundtrip" in wfvae().stdout + wfvae().stderr


@pytest.mark.parametrize(
    ("words", "place", "expected"),
    [
        ("wfvae encode --model wf", 3, "wfvae-tiny"),
        ("wfvae roundtrip --model wf", 3, "wfvae-tiny"),
        ("wfvae decode -m wan", 3, "wan-2.1"),
        ("wfvae decode --dtype b", 3, "bf16"),
        ("wfvae decode --codec h", 3, "hevc"),
        ("wfvae encode --format w", 3, "webdataset"),
    ],
)
def test_values_complete(words: str, place: int, expected: str) -> None:
    environment = {
        "_WFVAE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(place),
    }
    done = CliRunner().invoke(app, [], prog_name="wfvae", env=environment)
    assert expected in done.stdout.split()
