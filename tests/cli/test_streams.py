"""Standard streams that are closed or full, and terminals that are not asked for trust."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wfvae_cli.cli.console import Console, printable
from wfvae_cli.cli.tables import print_table

PROGRAM = f'{sys.executable} -c "from wfvae_cli.cli import main; main()"'


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run a shell command in which WFVAE stands for the program; its exit code and stderr."""
    done = subprocess.run(
        ["bash", "-c", command.replace("WFVAE", PROGRAM)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("WFVAE info z.safetensors > /dev/full", 5, "cannot write standard output (No space left"),
        ("WFVAE info z.safetensors --json >&-", 5, "cannot write standard output (Bad file desc"),
        ("WFVAE --help > /dev/full", 5, "cannot write standard output"),
        ("WFVAE decode - -o x.mp4 <&-", 3, "cannot read standard input (Bad file descriptor)"),
        ("WFVAE info - <&-", 3, "cannot read standard input (Bad file descriptor)"),
        ("WFVAE info nothing.mp4 2>&-", 3, ""),
        ("WFVAE info z.safetensors 2> /dev/full", 0, ""),
        ("WFVAE info z.safetensors | true", 0, ""),
    ],
)
def test_closed_and_full_streams(
    tmp_path: Path, latents: Path, command: str, code: int, words: str
) -> None:
    (tmp_path / "z.safetensors").symlink_to(latents)
    got, message = run(f"set -o pipefail; {command}", tmp_path)
    assert got == code, message
    assert words in message
    assert "Traceback" not in message
    assert "Exception ignored" not in message
    assert not (tmp_path / "x.mp4").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_data_that_standard_output_does_not_take(tmp_path: Path, clip: Path) -> None:
    for target in (">&-", "> /dev/full"):
        code, message = run(f"WFVAE encode {clip} -o - {target}", tmp_path)
        assert code == 5, message
        assert "cannot write standard output" in message
        assert "Traceback" not in message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve ☃ 影片.mp4", "naïve ☃ 影片.mp4"),
        ("two\nlines", "two\nlines"),
        ("\x1b[2J\x1b]0;owned\x07.mp4", r"\x1b[2J\x1b]0;owned\x07.mp4"),
        ("\x9b31m\r\t", r"\x9b31m\r\t"),
        ("gpj.\u202e4pm", r"gpj.\u202e4pm"),
        (os.fsdecode(b"\xff\xfe.mp4"), r"\xff\xfe.mp4"),
        ("\ud800", r"\ud800"),
        ("line\u2028end", r"line\u2028end"),
    ],
)
def test_names_do_not_steer_the_terminal(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable(text) == shown
    Console().error(text)
    Console().note(text)
    Console().say(text)
    assert capsys.readouterr().err == f"error: {shown}\nnote: {shown}\n{shown}\n"


def test_json_of_names_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    Console(json=True).result({"name": "ï\ud800"})
    Console(json=True).result({"name": "ï"})
    assert capsys.readouterr().out == '{"name": "\\u00ef\\ud800"}\n{"name": "ï"}\n'


def test_tables_in_a_terminal_without_unicode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding="ascii"))
    print_table(("channel", "-4σ … 4σ"), [("0", "▁▃█"), ("影", "\x1b[2J")], title="Latents ±")
    sys.stdout.flush()
    text = out.getvalue().decode("ascii")
    assert "-4s . 4s" in text
    assert ".-@" in text
    assert r"\x1b[2J" in text
