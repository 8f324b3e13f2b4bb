from __future__ import annotations

import pytest

from tests.stats.conftest import Make
from wfvae_cli.stats.table import bar, channel_table, formula_table, sparkline, summary_table


def test_sparkline_and_bar() -> None:
    assert sparkline((0.0, 0.001, 0.5, 1.0)) == " ▁▄█"
    assert sparkline((0.0, 0.0)) == "  "
    assert bar(1.0, 1.0, 4) == "████"
    assert bar(0.5, 1.0, 3) == "█▌"
    assert bar(0.0, 0.0) == ""


def test_tables_have_a_row_per_channel(make_report: Make) -> None:
    report = make_report(channels=6)
    table = channel_table(report)
    assert len(table.rows) == 6
    assert all(len(row) == len(table.header) for row in table.rows)
    assert table.rows[3][0] == "3"
    assert float(table.rows[3][1]) == pytest.approx(report.summary.mean[3], abs=1e-4)
    assert len(table.rows[0][-1]) == 16
    report.stats.fail("a", "broken")
    rows = {row[0]: row[1] for row in summary_table(report).rows}
    assert rows["clips"] == "12 (1 failed)"
    assert rows["means and stds known to"].startswith("±")
    assert len(formula_table().rows) == 3
