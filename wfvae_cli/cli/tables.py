"""Tables of figures on stdout, as wide as the terminal or the reader of a pipe can take."""

from __future__ import annotations

from collections.abc import Sequence

import rich.box
import rich.console
import rich.table
from rich.text import Text

_PIPE_COLUMNS = 160


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
    screen = rich.console.Console(highlight=False)
    if not screen.is_terminal:
        screen.width = _PIPE_COLUMNS
    keep = list(range(len(header)))
    for name in spare:
        if _width(header, rows, keep) <= screen.width:
            break
        keep.remove(list(header).index(name))
    table = rich.table.Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in keep:
        left = column == 0 or header[column] in words
        table.add_column(header[column], justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[column]) for column in keep))
    screen.print(table)


def _width(header: Sequence[str], rows: Sequence[Sequence[str]], keep: Sequence[int]) -> int:
    """Characters that a line takes: three between columns."""
    return sum(3 + max(len(row[column]) for row in (header, *rows)) for column in keep)
