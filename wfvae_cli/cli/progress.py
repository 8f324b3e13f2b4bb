"""The progress bar of one clip, or of a count of files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

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
from rich.progress_bar import ProgressBar
from rich.text import Text


@contextlib.contextmanager
def show_progress(
    terminal: rich.console.Console, label: str, total: int | None, unit: str
) -> Iterator[Callable[[int], None]]:
    """Show a bar, which disappears in the end; see `Console.progress`."""
    pace = _Pace()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        _SteadyBar(pace),
        MofNCompleteColumn(),
        _Speed(unit),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=terminal, transient=True, expand=True) as bar:
        task = bar.add_task(label, total=total)

        def advance(count: int) -> None:
            pace.advance(count)
            bar.advance(task, count)

        yield advance


class _Pace:
    """Progress within the current chunk of a clip, at the pace of the one before."""

    def __init__(self) -> None:
        self._done = self._last = 0
        self._at = time.monotonic()
        self._seconds: float | None = None

    def advance(self, count: int) -> None:
        """Take note of a chunk that is done."""
        now = time.monotonic()
        self._seconds, self._at = max(now - self._at, 1e-3), now
        self._done, self._last = self._done + count, count

    @property
    def position(self) -> float | None:
        """Units done, with an estimate for the current chunk; None before the first one."""
        if self._seconds is None:
            return None
        share = (time.monotonic() - self._at) / self._seconds
        return self._done + self._last * min(0.95, share)


class _SteadyBar(BarColumn):
    """A bar that moves within chunks, too."""

    def __init__(self, pace: _Pace) -> None:
        super().__init__(bar_width=None)
        self._pace = pace

    def render(self, task: Task) -> ProgressBar:
        position = self._pace.position
        bar = super().render(task)
        bar.pulse = position is None or task.total is None
        bar.completed = min(position or 0, task.total or 0)
        return bar


class _Speed(ProgressColumn):
    """Frames per second so far, or whatever is counted."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(self._unit if speed is None else f"{self._unit}, {speed:.1f}/s", no_wrap=True)
