"""Commands made from functions whose parameters are options dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.params import add_command
from wfvae_cli.errors import UsageError
from wfvae_cli.option import Argument, Option


def parse_pair(text: str) -> tuple[int, int]:
    left, _, right = text.partition("x")
    if not (left.isdecimal() and right.isdecimal()):
        raise ValueError(f"expected AxB, got {text!r}")
    return int(left), int(right)


@dataclass(frozen=True)
class Choice:
    """Options of a test."""

    size: Annotated[
        tuple[int, int] | None, Option("A size.", metavar="AxB", parse=parse_pair, common=True)
    ] = None
    fit: Annotated[Literal["crop", "pad"], Option("A way.", "How")] = "crop"
    short_side: Annotated[int | None, Option("A side.", least=1)] = None
    internal: int = 3

    def __post_init__(self) -> None:
        if self.size and self.short_side:
            raise UsageError("--size and --short-side are mutually exclusive")


seen: list[Any] = []


def sample(
    source: Annotated[str, Argument("INPUT", "What to read.")],
    choice: Choice,
    console: Console,
    force: Annotated[bool, Option("Do it all the same.")] = False,
) -> None:
    """Try options.

    More of it,
    on two lines.
    """
    seen.append((source, choice, console, force))


@pytest.fixture
def program() -> typer.Typer:
    seen.clear()
    app = typer.Typer(add_completion=False)
    add_command(app, sample, "wfvae sample a.mp4\nwfvae sample b.mp4 --size 1x2")
    return app


def test_fields_become_options_and_the_function_gets_the_dataclass(program: typer.Typer) -> None:
    arguments = ["in.mp4", "--size", "4x6", "--fit", "pad", "--force", "-q"]
    done = CliRunner().invoke(program, arguments)
    assert done.exit_code == 0, done.output
    assert seen == [("in.mp4", Choice((4, 6), "pad"), Console(quiet=True), True)]


def test_defaults_are_those_of_the_fields(program: typer.Typer) -> None:
    assert CliRunner().invoke(program, ["in.mp4"]).exit_code == 0
    assert seen == [("in.mp4", Choice(), Console(), False)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "big"], "--size: expected AxB, got 'big'"),
        (["--size", "1x2", "--short-side", "3"], "--size and --short-side are mutually exclusive"),
        (["--fit", "stretch"], "stretch"),
        (["--short-side", "0"], "short-side"),
        (["--internal", "4"], "internal"),
    ],
)
def test_mistakes_are_usage_errors(
    program: typer.Typer, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    done = CliRunner().invoke(program, ["in.mp4", *arguments])
    assert done.exit_code == 2
    assert message in done.output + capfd.readouterr().err
    assert not seen


def test_help_shows_examples_first_and_the_short_one_the_usual_options(
    program: typer.Typer,
) -> None:
    long, short = (CliRunner().invoke(program, [flag]).output for flag in ("--help", "-h"))
    assert long.index("wfvae sample b.mp4 --size 1x2") < long.index("More of it, on two lines.")
    assert "--fit" in long
    assert "--fit" not in short
    assert "--size" in short
    assert "4 more options" in short


def test_two_options_of_one_name_are_a_bug() -> None:
    def twice(choice: Choice, size: Annotated[str, Option("Another.")] = "") -> None: ...

    twice.__annotations__ = {"choice": Choice, "size": Annotated[str, Option("Another.")]}
    with pytest.raises(AssertionError, match="one name"):
        add_command(typer.Typer(), twice, "")
