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
"""Replacements for terminals without Unicode: bars by their density, and look-alikes."""


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    spare: Sequence[str] = (),
    words: Sequence[str] = (),
    title: str | None = None,
) -> None:
    """Print a table on stdout: the first column to the left, numbers to the right.

    Where the terminal is too narrow for all columns, the others follow below in tables that repeat
    the first one.

    Args:
        header: names of the columns.
        rows: as many cells each.
        words: columns that hold no numbers, to the left as well.
        spare: columns to move below, those that there are, the first of them first, where the
            terminal is too narrow.
        title: a line above.
    """
    screen = _screen()
    keep = list(range(len(header)))
    for name in (each for each in spare if each in header):  # some scores are not always there
        if _width(header, rows, keep) <= screen.width:
            break
        keep.remove(list(header).index(name))
    moved = [0, *(column for column in range(len(header)) if column not in keep)]
    for columns in (
        *_stacked(header, rows, keep, screen.width),
        *_stacked(header, rows, moved, screen.width),
    ):
        _print_columns(screen, header, rows, columns, words, title)
        title = None


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and values on stdout, one pair a line."""
    screen = _screen()
    table = rich.table.Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        shown = _shown(value, screen.encoding)
        table.add_row(Text(_shown(name, screen.encoding), style="bold"), Text(shown))
    screen.print(table)


def size_text(size: float) -> str:
    """Write a number of bytes as people read it."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _screen() -> rich.console.Console:
    screen = _Screen(highlight=False)
    if not screen.is_terminal:
        screen.width = _PIPE_COLUMNS
    return screen


def _print_columns(
    screen: rich.console.Console,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: Sequence[int],
    words: Sequence[str],
    title: str | None,
) -> None:
    table = rich.table.Table(
        title=None if title is None else Text(_shown(title, screen.encoding)),
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        left = column == 0 or header[column] in words
        name = _shown(header[column], screen.encoding)
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(row[column], screen.encoding)) for column in columns))
    screen.print(table)


def _stacked(
    header: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int], width: int
) -> list[list[int]]:
    """Split columns into tables, as many as fit beside the first; none where it is the only one."""
    tables: list[list[int]] = []
    for column in columns[1:]:
        if tables and _width(header, rows, [*tables[-1], column]) <= width:
            tables[-1].append(column)
        else:
            tables.append([columns[0], column])
    return tables


class _Screen(rich.console.Console):
    """A console that leaves a closed pipe to the command's handler; Rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


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
