from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wfvae_cli.stats.plot import plot_stats

from tests.stats.conftest import Make
from wfvae_cli.errors import MissingExtraError, OutputError
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


@pytest.mark.parametrize("channels", [4, 64])
def test_plot_is_one_png_with_the_same_bytes(
    channels: int, make_report: Make, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    report = make_report(channels=channels)
    plot_stats(report, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 1500
    assert 0.02 < (pixels.min(axis=2) < 250).mean() < 0.6  # neither empty nor full
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(OutputError, match="exists already"):
        plot_stats(report, tmp_path / "a.png")
    if channels == 4:
        before = (tmp_path / "a.png").read_bytes()
        plot_stats(report, tmp_path / "a.png", overwrite=True)
        assert (tmp_path / "a.png").read_bytes() == before


def test_plot_without_matplotlib_names_the_extra(
    make_report: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wfvae\[plot\]'"):
        plot_stats(make_report(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
