"""How commands end when a signal or an error that is not theirs arrives."""

from __future__ import annotations

import pytest
import typer

from wfvae_cli.cli.run import reported


def test_ctrl_c_is_told_from_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    @reported
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err


def test_other_errors_are_bugs_and_keep_their_traceback() -> None:
    @reported
    def command() -> None:
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        command()
