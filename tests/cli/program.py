"""Running `wfvae` as a user does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.testing

from wfvae_cli.cli.app import app


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    stdout: str
    stderr: str


def wfvae(*arguments: str | Path) -> Answer:
    """Run a command in this process, where torch is loaded already."""
    runner = typer.testing.CliRunner()
    result = runner.invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception  # a bug of ours, which users would see as a traceback
    return Answer(result.exit_code, result.stdout, result.stderr)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Wait until a running program has come so far, however long a busy machine takes."""
    begin = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begin < 100
        time.sleep(0.01)


def start(
    *arguments: str | Path,
    prepare: str = "",
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start the program as a process of its own, after the Python code of `prepare`."""
    command = [sys.executable, "-c", f"{prepare}\nfrom wfvae_cli.cli import main\nmain()"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        preexec_fn=_heed_signals,
    )


def _heed_signals() -> None:
    """Undo what `nohup` and background jobs of a shell hand on: to ignore signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def assert_refused(answer: Answer, code: int, *words: str) -> None:
    """The command ended with `code` and one message that holds all `words`, no traceback."""
    assert answer.code == code, answer
    assert "Traceback" not in answer.stderr
    # The terminal that tests have wraps long lines.
    message = " ".join(answer.stderr.split())
    assert "error:" in message.lower() or code == 2
    for word in words:
        assert word in message
