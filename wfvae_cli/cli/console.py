"""Messages and data: stdout carries data, stderr everything else, bars only on a terminal."""

from __future__ import annotations

import contextlib
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import rich.console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from wfvae_cli.errors import UsageError
from wfvae_cli.json_text import to_json
from wfvae_cli.option import Option

stderr = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)
"""Where everything goes that is no data."""

_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that steer a terminal or reorder a line: controls, formats such as the
bidirectional ones, lone surrogates (bytes of a name that are not UTF-8), line separators."""
_JOINERS = "\u200c\u200d"
"""Format characters that names in several scripts, and emoji, are spelled with."""


def printable(text: str) -> str:
    """Escape what a terminal would act on: file names and files' contents are anybody's."""
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

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Console:
        """The console for a command's `--quiet` and `--json`, where it has them."""
        return cls(quiet=bool(options.get("quiet")), json=bool(options.get("json_output")))

    def error(self, message: str) -> None:
        """Say why the command failed, whatever the options."""
        _print(Text.assemble(("error: ", "bold red"), printable(message)))

    def note(self, message: str) -> None:
        """Say something that the user should know and may ignore."""
        if not self.quiet:
            _print(Text.assemble(("note: ", "yellow"), printable(message)))

    def say(self, message: str) -> None:
        """Say what was done."""
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
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            _Speed(unit),
            TimeRemainingColumn(),
        )
        hidden = self.quiet or not stderr.is_terminal
        with Progress(*columns, console=stderr, transient=True, disable=hidden) as bar:
            task = bar.add_task(printable(label), total=total)
            yield lambda frames: bar.advance(task, frames)


def _print(text: Text) -> None:
    with contextlib.suppress(OSError):  # of a terminal that was closed
        stderr.print(text)


class _Speed(ProgressColumn):
    """Frames per second so far, or whatever is counted."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {self._unit}/s")
