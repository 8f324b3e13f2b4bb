"""Tables of figures on stdout, as wide as the terminal or the reader of a pipe can take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rich.box
import rich.console
import rich.table
from rich.text import Text

from wfvae_cli.cli.console import printable

_PIPE_COLUMNS = 160
_ASCII = str.maketrans("▁▂▃▄▅▆▇█σ×−–…·", ".:-=+*#@sx--..")
"""For terminals without Unicode: bars by their ink, and look-alikes."""


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    spare: Sequence[str] = (),
    words: Sequence[str] = (),
    title: str | None = None,
) -> None:
    """Print a table on stdout: the first column to the left, numbers to the right.

    Args:
        header: names of the columns.
        rows: as many cells each.
        words: columns that hold no numbers, to the left as well.
        spare: columns to leave out, the first of them first, where the terminal is too narrow.
        title: a line above.
    """
    screen = _screen()
    keep = list(range(len(header)))
    for name in spare:
        if _width(header, rows, keep) <= screen.width:
            break
        keep.remove(list(header).index(name))
    table = rich.table.Table(
        title=None if title is None else Text(_shown(title, screen.encoding)),
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in keep:
        left = column == 0 or header[column] in words
        name = _shown(header[column], screen.encoding)
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(row[column], screen.encoding)) for column in keep))
    screen.print(table)


class _Screen(rich.console.Console):
    """A console that leaves a closed pipe to the command's handler; Rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _screen() -> rich.console.Console:
    screen = _Screen(highlight=False)
    if not screen.is_terminal:
        screen.width = _PIPE_COLUMNS
    return screen


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and values on stdout, one pair a line."""
    screen = _screen()
    table = rich.table.Table.grid(padding=(0, 2))
    for name, value in facts.items():
        shown = _shown(value, screen.encoding)
        table.add_row(Text(_shown(name, screen.encoding), style="bold"), Text(shown))
    screen.print(table)


def _shown(cell: str, encoding: str) -> str:
    """A cell as the output's encoding can say it, in as many characters."""
    cell = printable(cell)
    try:
        cell.encode(encoding)
    except UnicodeEncodeError:
        return cell.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return cell


def _width(header: Sequence[str], rows: Sequence[Sequence[str]], keep: Sequence[int]) -> int:
    """Characters that a line takes: three between columns."""
    return sum(3 + max(len(row[column]) for row in (header, *rows)) for column in keep)
