"""Messages and data: stdout carries data, stderr everything else, bars only on a terminal."""

from __future__ import annotations

import contextlib
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import rich.console
from rich.text import Text

from wfvae_cli.errors import UsageError
from wfvae_cli.json_text import to_json
from wfvae_cli.option import Option

stderr = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)
"""Console of messages, notes and progress bars."""

_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that steer a terminal or reorder a line: controls, formats such as the
bidirectional ones, lone surrogates (bytes of a name that are not UTF-8), line separators."""
_JOINERS = "\u200c\u200d"
"""Format characters that names in several scripts, and emoji, are spelled with."""


def printable(text: str) -> str:
    """Escape what a terminal would act on: file names and contents are not trusted."""
    return "".join(
        _escape(char)
        if unicodedata.category(char) in _UNPRINTABLE and char not in f"\n{_JOINERS}"
        else char
        for char in text
    )


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8, as Python keeps it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode()


@dataclass(frozen=True)
class Console:
    """Messages of one command, as loud as its options allow."""

    quiet: Annotated[
        bool, Option("Say nothing but errors.", "Messages", flags=("--quiet", "-q"))
    ] = False
    json: Annotated[bool, Option("Put one JSON object on stdout.", "Messages", common=True)] = False

    def error(self, message: str) -> None:
        """Print the reason that the command failed, whatever the options."""
        _print(Text.assemble(("error: ", "bold red"), printable(message)))

    def note(self, message: str) -> None:
        """Print something that the user should know and may ignore."""
        if not self.quiet:
            _print(Text.assemble(("note: ", "yellow"), printable(message)))

    def warn(self, message: str) -> None:
        """Print something that is likely to be a mistake."""
        if not self.quiet:
            _print(Text.assemble(("warning: ", "bold yellow"), printable(message)))

    def say(self, message: str) -> None:
        """Print what was done."""
        if not (self.quiet or self.json):
            _print(Text(printable(message)))

    def result(self, value: Mapping[str, Any]) -> None:
        """Put one JSON object on stdout where `--json` asks for it."""
        if self.json:
            sys.stdout.write(to_json(value, sys.stdout.encoding or "ascii") + "\n")

    def check_stdout(self, target: str | None) -> None:
        """Refuse to mix data and JSON on stdout, or to fill a terminal with data.

        Raises:
            UsageError: `target` is stdout, and stdout is taken.
        """
        if target != "-":
            return
        if self.json:
            raise UsageError("-o - puts data on stdout, where --json would mix with it: choose one")
        if sys.stdout.isatty():
            raise UsageError(
                "-o - would write binary data to the terminal: pipe it, or give a file"
            )

    @contextlib.contextmanager
    def progress(
        self, label: str, total: int | None, unit: str = "frames"
    ) -> Iterator[Callable[[int], None]]:
        """A bar with frames, frames/s and remaining time, where stderr is a terminal.

        Yields:
            A function that is told how many more frames (or whatever `unit` says) are done.
        """
        if self.quiet or not stderr.is_terminal:
            yield lambda count: None
            return
        # Here, because it is shown on terminals only.
        from wfvae_cli.cli.progress import show_progress

        with show_progress(stderr, printable(label), total, unit) as advance:
            yield advance


def _print(text: Text) -> None:
    with contextlib.suppress(OSError):  # of a terminal that was closed
        # A terminal would break lines in the middle of words; a log wants them whole.
        stderr.print(text, soft_wrap=not stderr.is_terminal)
