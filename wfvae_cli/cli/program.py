"""The program as a whole: mistakes on the command line are told as all other errors are."""

from __future__ import annotations

import re
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from wfvae_cli.cli.console import Console

_Mistake: Any = typer.BadParameter.__mro__[2]
"""Click's base of what is wrong with a command line, by whichever path Typer has it."""


class Program(TyperGroup):
    """A group of commands whose usage errors are one line, without a box."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command and end the process with its exit code."""
        standalone = options.pop("standalone_mode", True)
        options["standalone_mode"] = False
        if not standalone:
            return super().main(*args, **options)
        try:
            code = super().main(*args, **options)
        except _Mistake as mistake:
            _tell(mistake)
            code = mistake.exit_code
        except typer.Abort:
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def _tell(mistake: Any) -> None:
    context = getattr(mistake, "ctx", None)
    if type(mistake).__name__ == "NoArgsIsHelpError":
        return  # the help has been shown
    message = _in_our_words(mistake.format_message().rstrip("."))
    hint = "" if context is None else f"; see {context.command_path} -h"
    Console().error(f"{message}{hint}")


def _in_our_words(message: str) -> str:
    for theirs, ours in (
        ("Invalid value for ", ""),
        ("Invalid value: ", ""),
        ("Value error, ", ""),
        ("Input should be ", "expected "),
        ("a valid integer, unable to parse string as an integer", "a whole number"),
        ("a valid number, unable to parse string as a number", "a number"),
        ("greater than or equal to", "at least"),
    ):
        message = message.replace(theirs, ours)
    message = re.sub(r"'(-[^']*)'", r"\1", message)
    message = re.sub(r",\s*\n\s*", ", ", re.sub(r"\. Choose from:\s*", ": choose from ", message))
    found = re.fullmatch(r"Option '?(-[\w-]+)'? requires (\d+) arguments", message)
    if found is not None:
        message = f"{found[1]} needs {found[2]} values, as --help shows"
    found = re.fullmatch(r"(.*: )'(.*)' is not one of (.*)", message)
    if found is not None:
        known = found[3].replace("'", "")
        message = f"{found[1]}expected one of {known}, got {found[2]!r}"
    for theirs in ("Missing", "No such"):
        message = message.replace(theirs, theirs.lower(), 1)
    return message
