"""How commands end when a signal or an error that is not theirs arrives."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import typer

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import run_reported
from wfvae_cli.cli.signals import Stopped
from wfvae_cli.errors import OutputError


def test_ctrl_c_is_told_from_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        run_reported(command, Console())
    assert ended.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("failure", [RuntimeError, OutputError])
def test_an_error_that_comes_of_leaving_is_no_error(failure: type[Exception]) -> None:
    @contextmanager
    def fragile() -> Iterator[None]:
        try:
            yield
        finally:
            raise failure("half entered")

    def command() -> None:
        with fragile():
            raise Stopped(signal.SIGTERM)

    with pytest.raises(typer.Exit) as ended:
        run_reported(command, Console())
    assert ended.value.exit_code == 143


def test_other_errors_are_bugs_and_keep_their_traceback() -> None:
    def command() -> None:
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        run_reported(command, Console())
