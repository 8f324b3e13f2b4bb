"""How commands end when a signal arrives, wherever it does."""

from __future__ import annotations

import pytest
import typer

from wfvae_cli.cli.run import reported


class _Interrupting:
    """An attribute in whose making Ctrl-C arrives, as in a module that is being imported."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_while_a_class_is_made_is_an_interruption(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @reported
    def command() -> None:
        type("Made", (), {"attribute": _Interrupting()})

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err


def test_other_runtime_errors_are_bugs_and_keep_their_traceback() -> None:
    @reported
    def command() -> None:
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        command()
