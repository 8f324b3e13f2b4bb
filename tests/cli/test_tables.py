"""Tables on terminals of any width: no figure is dropped."""

from __future__ import annotations

import pytest

from wfvae_cli.cli import tables

HEADER = ("name", *(f"figure {n}" for n in range(8)))
ROWS = [("a long name", *(f"{n}.12345678" for n in range(8))), ("b", *("9.5" for _ in range(8)))]


@pytest.mark.parametrize("width", [30, 80, 200])
@pytest.mark.parametrize("spare", [(), ("figure 1", "figure 5")])
def test_every_figure_is_shown_in_its_column(
    width: int,
    spare: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tables, "_PIPE_COLUMNS", width)
    tables.print_table(HEADER, ROWS, spare=spare, title="a title")
    shown = capsys.readouterr().out
    assert all(len(line) <= width for line in shown.splitlines())
    for cell in (*HEADER[1:], *ROWS[0][1:]):
        assert shown.count(cell) == 1
    if not spare:
        assert shown.count("a long name") == {30: 8, 80: 2, 200: 1}[width]
    assert shown.count("a title") == 1


def test_spare_columns_need_not_be_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "_PIPE_COLUMNS", 30)
    tables.print_table(HEADER, ROWS, spare=("no such column", *HEADER[2:]))
    shown = capsys.readouterr().out
    assert all(shown.count(cell) == 1 for cell in ROWS[0][1:])


def test_facts_are_shown_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "_PIPE_COLUMNS", 40)
    tables.print_facts({"sha256": "ab" * 32})
    assert "".join(capsys.readouterr().out.split()) == "sha256" + "ab" * 32
