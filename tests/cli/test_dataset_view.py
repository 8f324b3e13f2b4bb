"""What the operator of a long run sees."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import rich.console
from rich.text import Text

from wfvae_cli.cli import console as shared
from wfvae_cli.cli import dataset_view
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.dataset_view import DatasetView
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.plan import Plan
from wfvae_cli.dataset.result import ItemResult, Task, failure
from wfvae_cli.errors import VideoError


def watch(view: DatasetView) -> None:
    """A run of four items that is half done."""
    items = [Item(f"/in/{name}", name) for name in ("a", "b", "c", "d")]
    view.planned(Plan([Task(item) for item in items], [], []))
    view.started(Task(items[0]))
    view.advanced(33)
    view.settled(ItemResult("a", "/in/a", "done", output="a.safetensors", frames=33))
    view.settled(failure(items[1], VideoError("/in/b: broken")))
    view.started(Task(items[2]))


def test_a_terminal_has_one_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    screen = io.StringIO()
    terminal = rich.console.Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(shared, "stderr", terminal)
    with DatasetView(Console(), str(tmp_path)) as view:
        watch(view)
        assert view._live is not None
        view._live.refresh()
    shown = screen.getvalue()
    for words in ("━", "2 of 4 files, 1 failed, 33 frames", "frames/s", "left", "  c", "broken"):
        assert words in shown
    assert all(len(Text.from_ansi(line)) <= 80 for line in shown.splitlines())


def test_elsewhere_a_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(shared, "stderr", rich.console.Console(file=screen, width=200))
    monkeypatch.setattr(dataset_view, "_LINE_EVERY", 0.01)
    with DatasetView(Console(), str(tmp_path)) as view:
        watch(view)
        while "2 of 4 files, 1 failed" not in screen.getvalue():
            pass
    assert "left" in screen.getvalue()


def test_quiet_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(shared, "stderr", rich.console.Console(file=screen, force_terminal=True))
    with DatasetView(Console(quiet=True), str(tmp_path)) as view:
        watch(view)
    assert screen.getvalue() == capsys.readouterr().out == ""
