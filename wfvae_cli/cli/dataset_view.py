"""The display of a long run: a bar, plain lines, or events as JSON."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wfvae_cli.cli import console as _console
from wfvae_cli.cli.console import Console
from wfvae_cli.metrics.result import LABELS

if TYPE_CHECKING:
    from wfvae_cli.dataset.plan import Plan
    from wfvae_cli.dataset.result import ItemResult, Task
    from wfvae_cli.dataset.run import Summary

_LINE_EVERY = 30.0
"""Seconds between lines where stderr is no terminal."""
_MOST_NAMES = 4


@dataclass
class _Counts:
    """Progress of a run."""

    begun: float = field(default_factory=time.monotonic)
    total: int = 0
    current: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    frames: int = 0
    under_way: dict[str, None] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        return self.done + self.failed + self.skipped

    @property
    def seconds(self) -> float:
        return max(1e-9, time.monotonic() - self.begun)

    @property
    def remaining(self) -> str:
        """Time that the rest will take at this pace."""
        if not self.done:  # failed and skipped items take almost no time
            return "unknown time"
        left = self.seconds / self.done * (self.total - self.settled)
        return str(timedelta(seconds=round(left)))


class DatasetView:
    """Shows a run while it goes; the callbacks of `run_dataset`.

    A bar with the current files below, where stderr is a terminal; elsewhere a line every 30 s;
    with `--json` an object on stdout for each event; with `--quiet` nothing.
    """

    def __init__(
        self,
        console: Console,
        output: str,
        on_result: Callable[[ItemResult], None] | None = None,
    ) -> None:
        self._console, self._output, self._on_result = console, output, on_result
        self._counts = _Counts()
        self._over = threading.Event()
        self._live: Live | None = None

    def __enter__(self) -> DatasetView:
        if self._console.quiet or self._console.json:
            return self
        screen = _console.stderr
        if screen.is_terminal:
            self._live = Live(
                get_renderable=self._picture, console=screen, transient=True, refresh_per_second=4
            )
            self._live.start()
        else:
            threading.Thread(target=self._tell_regularly, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._live is not None:
            self._live.stop()

    def planned(self, plan: Plan) -> None:
        """Show how much there is to do."""
        self._counts = _Counts(total=len(plan.tasks) + len(plan.kept), current=len(plan.done))
        event = {"todo": len(plan.tasks), "current": len(plan.done), "kept": len(plan.kept)}
        self._tell({"event": "planned", **event})
        if plan.done:
            self._console.say(f"skipping {len(plan.done)} up-to-date files")

    def started(self, task: Task) -> None:
        """Show what is under way."""
        name = task.item.relative
        self._counts.under_way[name] = None
        self._tell({"event": "started", "item": name})

    def advanced(self, frames: int) -> None:
        """Count frames."""
        self._counts.frames += frames

    def settled(self, result: ItemResult) -> None:
        """Count an item, and say why it failed."""
        counts = self._counts
        counts.under_way.pop(result.item, None)
        setattr(counts, result.status, getattr(counts, result.status) + 1)
        self._tell({"event": result.status, **result.to_json()})
        if self._on_result is not None:
            self._on_result(result)
        if result.status == "failed":
            self._console.note(f"failed: {result.error}")

    def conclude(self, summary: Summary, *, profile: bool) -> None:
        """Print the summary."""
        seconds = max(summary.seconds, 1e-9)
        rest = summary.items - summary.done - summary.failed - summary.skipped - summary.current
        parts = [f"{summary.done} done"]
        for count, what in (
            (summary.failed, "failed"),
            (summary.skipped, "skipped"),
            (summary.current, "already up to date"),
            (rest, "not attempted"),
        ):
            parts += [f"{count} {what}"] if count else []
        work = f"; {summary.frames} frames in " if summary.frames else ", in "
        speed = f" ({summary.frames / seconds:.1f} frames/s)" if summary.frames else ""
        self._console.say(f"{self._output}: {', '.join(parts)}{work}{summary.seconds:.1f} s{speed}")
        event: dict[str, object] = {
            "event": "summary",
            "items": summary.items,
            "done": summary.done,
            "failed": summary.failed,
            "skipped": summary.skipped,
            "current": summary.current,
            "frames": summary.frames,
            "seconds": round(summary.seconds, 3),
            "failures": dict(summary.failures),
            "stopped": summary.stopped,
        }
        if summary.metrics:
            shown = ", ".join(f"{LABELS.get(k, k)} {v:.4g}" for k, v in summary.metrics.items())
            self._console.say(f"mean over files: {shown}")
            event["metrics"] = summary.metrics
        spent = summary.profile
        if profile and spent is not None and spent.total > 0:
            shares = {
                "input": spent.waited_for_input / spent.total,
                "model": spent.in_model / spent.total,
                "output": spent.waited_for_output / spent.total,
            }
            self._console.say(
                "time of the model's thread: "
                + ", ".join(f"{share:.1%} {name}" for name, share in shares.items())
                + f", {1 - sum(shares.values()):.1%} else, of {spent.total:.1f} s"
            )
            event["profile"] = {name: round(share, 4) for name, share in shares.items()}
        self._tell(event)

    def _tell(self, event: Mapping[str, object]) -> None:
        self._console.result(event)
        if self._console.json:
            sys.stdout.flush()  # readers of events want them at once

    def _tell_regularly(self) -> None:
        while not self._over.wait(_LINE_EVERY):
            self._console.say(self._line())

    def _line(self) -> str:
        return f"{self._counted()}, {self._counts.remaining} left"

    def _counted(self) -> str:
        counts = self._counts
        text = f"{counts.settled} of {counts.total} files, {counts.failed} failed"
        if counts.frames:
            text += f", {counts.frames} frames, {counts.frames / counts.seconds:.1f} frames/s"
        return text

    def _picture(self) -> Group:
        """A bar, what it stands for, and the files that are under way."""
        counts = self._counts
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(
            ProgressBar(counts.total or None, counts.settled, pulse=not counts.total),
            Text(f"{counts.remaining} left"),
        )
        files = [_one_line(f"  {name}") for name in list(counts.under_way)[-_MOST_NAMES:]]
        return Group(bar, _one_line(self._counted()), *files)


def _one_line(text: str) -> Text:
    return Text(_console.printable(text), no_wrap=True, overflow="ellipsis")
